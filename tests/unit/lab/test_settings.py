"""Names, folders and ports of a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.lab.errors import LabError
from workers.lab.settings import LabSettings


def test_ports_follow_the_first_unless_they_are_given() -> None:
    lab = LabSettings(name="two", port=17233)
    assert (lab.ui_port, lab.http_port, lab.metrics_port) == (18233, 17243, 19233)
    assert LabSettings(port=17233, ui_port=80).ui_port == 80


def test_two_labs_share_no_name_and_no_folder() -> None:
    one, two = LabSettings(name="one"), LabSettings(name="two", port=17233)
    assert one.folder != two.folder
    assert one.namespace("host-a") != two.namespace("host-a")
    assert one.host_uuid("host-a") != two.host_uuid("host-a")
    assert one.host_uuid("host-a") != one.host_uuid("host-b")


def test_the_environment_names_the_lab_and_arguments_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVACRON_LAB", "mine")
    monkeypatch.setenv("NOVACRON_LAB_DIR", "/srv/lab")
    monkeypatch.setenv("NOVACRON_LAB_PORT", "17233")
    assert LabSettings.from_environment().folder == Path("/srv/lab/labs/mine")
    assert LabSettings.from_environment().ui_port == 18233
    assert LabSettings.from_environment(name="other").name == "other"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NOVACRON_LAB", "My Lab"), ("NOVACRON_LAB_PORT", "99999"), ("NOVACRON_LAB_PORT", "many")],
)
def test_a_wrong_setting_is_refused_by_the_name_of_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(LabError, match=f"environment variable {variable}.*{value}"):
        LabSettings.from_environment()


def test_a_root_too_long_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVACRON_LAB_DIR", "/" + "deep/" * 20)
    with pytest.raises(LabError, match="too long for socket paths"):
        LabSettings.from_environment()
