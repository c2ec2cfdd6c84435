"""What deploy/ puts on a host fits the code: settings validate, units restart without ending moves, paths agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from temporalio.envconfig import ClientConfigProfile

from models.host import HostSettings, SiteSettings
from models.migration import MigrationPolicy
from workers import runtime

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
UNITS = {"host": DEPLOY / "systemd/novacron-host.service", "control": DEPLOY / "systemd/novacron-control.service"}
SETTINGS = {"host": "host", "control": "site"}


def unit(name: str) -> dict[str, list[str]]:
    """Directive -> its values, in order (systemd allows a directive more than once, configparser does not)."""
    found: dict[str, list[str]] = {}
    for line in UNITS[name].read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_the_settings_examples_are_valid_and_name_the_same_site() -> None:
    host = HostSettings.model_validate_json((DEPLOY / "settings/host.example.json").read_bytes())
    site = SiteSettings.model_validate_json((DEPLOY / "settings/site.example.json").read_bytes())
    assert host.site == site.site
    assert host.host in site.hosts


@pytest.mark.parametrize("file", ["temporal.example.toml", "temporal.compose.toml"])
def test_temporal_reads_the_profile_files_strictly(file: str) -> None:
    path = DEPLOY / "settings" / file
    profile = ClientConfigProfile.load(
        config_source=path, config_file_strict=True, override_env_vars={}, disable_env=True
    )
    assert profile.namespace == "novacron"
    assert profile.address
    assert set(tomllib.loads(path.read_text())) == {"profile"}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_its_worker_with_its_settings(name: str) -> None:
    expected = f"/opt/novacron/bin/python -m workers.{name} --settings /etc/novacron/{SETTINGS[name]}.json"
    assert unit(name)["ExecStart"] == [expected]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_comes_back_always_and_gives_its_worker_time_to_stop(name: str) -> None:
    directives = unit(name)
    assert directives["Restart"] == ["always"]
    assert directives["StartLimitIntervalSec"] == ["0"]
    assert directives["RestartPreventExitStatus"] == ["2"], "wrong settings do not mend themselves"
    assert int(directives["TimeoutStopSec"][0]) > runtime.GRACE.total_seconds() + 10


def test_data_paths_outlive_their_worker() -> None:
    directives = unit("host")
    assert directives["KillMode"] == ["process"]
    assert directives["OOMPolicy"] == ["continue"]
    assert "RuntimeDirectory" not in directives, "systemd would remove the sockets of moves with the worker"


def test_a_worker_and_the_data_paths_of_the_one_before_it_share_their_mounts() -> None:
    makes_a_mount_namespace = re.compile(
        r"^(Private(?!Network|Users)|Protect(?!Clock)|Read|Bind|Inaccessible|Temporary|Root|Mount)"
    )
    assert not [key for key in unit("host") if makes_a_mount_namespace.match(key)]


def test_the_folder_of_moves_is_the_same_for_tmpfiles_apparmor_and_the_worker() -> None:
    state = HostSettings.model_fields["state_dir"].default
    tmpfiles = (DEPLOY / "systemd/novacron.tmpfiles.conf").read_text()
    assert re.findall(r"^d (\S+) 0711 root root -$", tmpfiles, re.M) == [state, f"{state}/migrations"]
    assert f"{state}/migrations/*/" in (DEPLOY / "apparmor/libvirt-qemu").read_text()


@pytest.mark.parametrize("file", ["libvirtd.conf", "qemu.conf"])
def test_libvirt_is_told_to_wait_longer_for_a_cut_link_than_the_data_path_does(file: str) -> None:
    given = dict(re.findall(r"^(\w+) = (\d+)$", (DEPLOY / "libvirt" / file).read_text(), re.M))
    patience = int(given["keepalive_interval"]) * (int(given["keepalive_count"]) + 1)
    assert patience > MigrationPolicy().resume_within


def test_images_start_workers_as_the_units_do_and_hold_no_secrets() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    commands = re.findall(r'^CMD \["python", (.*)\]$', dockerfile, re.M)
    started = {" ".join(word.strip('"') for word in command.split(", ")) for command in commands}
    assert started == {unit(name)["ExecStart"][0].removeprefix("/opt/novacron/bin/python ") for name in UNITS}
    copied = {line.split()[1] for line in dockerfile.splitlines() if line.startswith("COPY ") and "--from" not in line}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored, path
    assert dockerfile.rstrip().split("FROM ")[-1].count("USER 10001:10001") == 1, "the control worker is not root"
    assert not re.search(r"index|https?://", dockerfile), "where packages come from is the builder's own setting"


def test_constraints_pin_every_dependency_of_the_workers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["kvm"], *extras["postgres"]]
    names = {re.split(r"[\[><=!~ ]", need)[0].lower() for need in needed}
    lines = [line for line in (DEPLOY / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line) for line in lines)
    assert names <= {line.split("==")[0].lower() for line in lines}
