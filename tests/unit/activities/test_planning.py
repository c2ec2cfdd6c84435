"""What a probe of the link may reach, and what a host says of itself for any move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.folder import Folder
from activities.path import PROBE_LIFETIME, configuration
from activities.planning import link_speed
from activities.standing import free_mib, standing
from clouds.kvm.connection import Session
from dwcp.probe import Measured, Sample
from models.host import HostSettings
from models.migration import Endpoint, MigrationPolicy, OpenPath, VmRef
from novacron.commands.labels import read
from novacron.errors import InvalidInput

SETTINGS = HostSettings.model_validate(
    {
        "site": "lab",
        "host": "host-a",
        "migration_address": "10.0.0.1",
        "tls": {"certificate": "/c", "key": "/k", "authority": "/a"},
    }
)


@pytest.mark.parametrize("endpoint", [None, Endpoint(address="10.0.0.2", port=49152)])
def test_a_probe_reaches_nothing_of_the_host_and_does_not_last(endpoint: Endpoint | None) -> None:
    order = OpenPath(
        migration_id="m1",
        peer="host-b",
        endpoint=endpoint,
        policy=MigrationPolicy(lanes=3, wire_mib=7),
        vm=VmRef(vm="web", uuid="0" * 36),
        probe=True,
    )
    config = configuration(SETTINGS, order, Folder(Path("/run/novacron/migrations/m1")))
    assert [service.name for service in config.services] == ["probe"]
    assert config.store is None
    assert config.lifetime == PROBE_LIFETIME
    assert (config.lanes, config.rate_limit, config.protection) == (3, 7 << 20, "tls"), "as the move would have them"


def test_a_link_over_which_nothing_came_has_a_note_instead_of_a_rate() -> None:
    found = link_speed(Measured((Sample(1.0, 0),), 0.0, 2, "tls"))
    assert (found.bytes_per_second.likely, found.note) == (None, "nothing arrived in time")
    assert link_speed(Measured((Sample(1.0, 100),), 0.001, 2, "tls")).bytes_per_second.likely == 100


def test_a_host_compares_its_clock_with_the_moment_temporal_handed_the_question_out() -> None:
    class Versioned:
        def isAlive(self) -> int:
            return 1

        def close(self) -> int:
            return 0

        def getLibVersion(self) -> int:
            return 9000000

    environment = ActivityEnvironment()
    environment.info = ActivityEnvironment.default_info()
    started = datetime.now(UTC) - timedelta(seconds=100)
    environment.info = environment.info.__class__(**{**environment.info.__dict__, "started_time": started})
    with Session("/s", None, lambda _: Versioned()) as session:  # type: ignore[arg-type,return-value]  # all that is asked
        found = environment.run(standing, session, SETTINGS)
    assert found.clock_ahead is not None
    assert found.clock_ahead >= 100
    assert found.libvirt_version == "9.0.0"
    assert "/a" in found.certificate_error, "the files are not there"


def test_the_room_of_a_folder_that_is_not_there_yet_is_that_of_its_file_system(tmp_path: Path) -> None:
    assert abs(free_mib(str(tmp_path / "not" / "yet")) - free_mib(str(tmp_path))) < 1024


def test_labels_on_the_command_line_are_given_and_taken() -> None:
    assert read(("tier=gold", "team-", "empty=")) == ({"tier": "gold", "empty": ""}, ["team"])
    for wrong in ("tier", "-"):
        with pytest.raises(InvalidInput):
            read((wrong,))
