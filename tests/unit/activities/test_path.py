"""One end of the data path: opened, found again, closed; a process that will not end is killed, and only that one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import path
from activities.folder import Folder
from activities.host import HostActivities
from dwcp import control, process
from dwcp.errors import ControlFailed, NotRunning
from models.datapath import DataPathConfig, DataPathStatus
from models.host import HostSettings
from models.migration import ClosePath, Endpoint, LimitPath, MigrationPolicy, OpenPath, VmRef
from models.store import StoreSettings, StoreUse

TO_LISTEN = OpenPath(migration_id="m1", peer="host-a")
TO_DIAL = OpenPath(migration_id="m1", peer="host-b", endpoint=Endpoint(address="10.0.0.2", port=49152))


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> HostSettings:
    return HostSettings(
        site="lab",
        host="host-a",
        state_dir=f"/tmp/{tmp_path_factory.mktemp('s').name}-{os.getpid()}",
        migration_address="10.0.0.1",
        tls={"certificate": "/c", "key": "/k", "authority": "/a"},
    )


@pytest.fixture(autouse=True)
def qemu_group(monkeypatch: pytest.MonkeyPatch) -> int:
    """libvirt's answer, played."""
    monkeypatch.setattr("activities.host.inventory.qemu_group", lambda session: os.getgid())
    return os.getgid()


VM = VmRef(vm="web", uuid="0" * 8 + "-0000-4000-8000-" + "0" * 12)


class PlayedPath:
    """dwcp's process and control, as far as the activities use them."""

    def __init__(self) -> None:
        self.configs: list[DataPathConfig] = []
        self.launchers: list[tuple[str, ...]] = []
        self.now: DataPathStatus | None = None
        self.then: list[DataPathStatus] = []
        self.stops = 0

    def spawn(self, config: DataPathConfig, folder: Path, launcher: tuple[str, ...] = ()) -> None:
        (folder / "config.json").write_text(config.model_dump_json())
        self.configs.append(config)
        self.launchers.append(launcher)
        self.now = DataPathStatus(
            role=config.role, migration_id="m1", pid=1, state="waiting", port=config.port or 49152
        )

    def status(self, folder: Path) -> DataPathStatus:
        if self.now is None:
            raise NotRunning("nobody here")
        if self.then:
            self.now = self.now.model_copy(update={"state": self.then[0].state, "error": self.then.pop(0).error})
        return self.now

    def stop(self, folder: Path, timeout: float) -> DataPathStatus:
        last = self.status(folder)
        self.now, self.stops = None, self.stops + 1
        return last

    def limit(self, folder: Path, bytes_per_second: int) -> DataPathStatus:
        return self.status(folder).model_copy(update={"rate_limit": bytes_per_second})

    def will_be(self, *states: str, error: str = "") -> None:
        self.then = [
            DataPathStatus.model_validate(
                {"role": "source", "migration_id": "m1", "pid": 1, "state": state, "error": error}
            )
            for state in states
        ]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, settings: HostSettings) -> Iterator[PlayedPath]:
    played = PlayedPath()
    monkeypatch.setattr(process, "spawn", played.spawn)
    monkeypatch.setattr(control, "status", played.status)
    monkeypatch.setattr(control, "stop", played.stop)
    monkeypatch.setattr(control, "limit", played.limit)
    yield played
    Folder(Path(settings.state_dir)).remove()


def opened(settings: HostSettings, order: OpenPath) -> Endpoint:
    return ActivityEnvironment().run(HostActivities(settings).open_path, order)


def test_a_destination_answers_where_it_listens_and_dials_its_own_libvirtd(
    settings: HostSettings, played: PlayedPath
) -> None:
    assert opened(settings, TO_LISTEN) == Endpoint(address="10.0.0.1", port=49152)
    (config,) = played.configs
    folder = f"{settings.state_dir}/migrations/m1"
    assert (config.role, config.address, config.peer_name) == ("destination", "10.0.0.1", "host-a")
    assert {service.name: service.path for service in config.services} == {
        "ram": f"{folder}/ram.sock",
        "virt": "/run/libvirt/libvirt-sock",
        "nbd": f"{folder}/nbd.sock",
    }


def test_a_source_waits_until_it_is_connected_and_listens_for_libvirt_and_qemu(
    settings: HostSettings, played: PlayedPath
) -> None:
    played.will_be("waiting", "waiting", "connected")
    assert opened(settings, TO_DIAL) == TO_DIAL.endpoint
    assert played.then == []
    (config,) = played.configs
    assert (config.role, config.address, config.port) == ("source", "10.0.0.2", 49152)
    folder = f"{settings.state_dir}/migrations/m1"
    assert [service.path for service in config.services] == [f"{folder}/{name}.sock" for name in ("ram", "virt", "nbd")]


def test_the_policy_and_the_hosts_settings_reach_the_process(settings: HostSettings, played: PlayedPath) -> None:
    own = settings.model_copy(
        update={"more_migration_addresses": ("10.1.0.1",), "trusted_network": True, "store": StoreSettings(limit_mib=7)}
    )
    policy = MigrationPolicy(
        lanes=9,
        max_lanes=4,
        wire_mib=3,
        protection="none",
        rdma="never",
        page_memory_mib=55,
        tenant="t",
        store_scope="site",
    )
    listening = opened(own, TO_LISTEN.model_copy(update={"policy": policy, "vm": VM}))
    assert listening.more_addresses == ("10.1.0.1",)
    played.now = None
    played.will_be("connected")
    there = Endpoint(address="10.0.0.2", port=49152, more_addresses=("10.1.0.2",))
    opened(own, TO_DIAL.model_copy(update={"migration_id": "m2", "endpoint": there, "policy": policy, "vm": VM}))
    destination, source = played.configs
    assert destination.more_addresses == ("10.1.0.1",)
    assert source.more_addresses == ("10.1.0.2",)
    for config in played.configs:
        assert (config.lanes, config.max_lanes, config.rate_limit) == (9, 9, 3 << 20)
        assert (config.protection, config.rdma, config.page_memory_mib) == ("none", "never", 55)
        assert config.store == StoreUse(settings=own.store, vm=str(VM.uuid), tenant="t", scope="site")


@pytest.mark.parametrize(
    ("policy", "limit_mib", "vm"),
    [(MigrationPolicy(store=False), 7, VM), (MigrationPolicy(), 0, VM), (MigrationPolicy(), 7, None)],
)
def test_there_is_no_store_where_policy_host_or_name_is_missing(
    settings: HostSettings, played: PlayedPath, policy: MigrationPolicy, limit_mib: int, vm: VmRef | None
) -> None:
    own = settings.model_copy(update={"store": StoreSettings(limit_mib=limit_mib)})
    opened(own, TO_LISTEN.model_copy(update={"policy": policy, "vm": vm}))
    assert played.configs[0].store is None


def test_a_path_in_the_clear_is_refused_where_the_network_is_not_trusted(
    settings: HostSettings, played: PlayedPath
) -> None:
    with pytest.raises(ApplicationError, match="trusted_network") as raised:
        opened(settings, TO_LISTEN.model_copy(update={"policy": MigrationPolicy(protection="none")}))
    assert (raised.value.type, raised.value.non_retryable) == ("Refused", True)
    assert played.configs == []


def test_the_bound_of_a_living_path_is_changed_and_that_of_none_is_not_found(
    settings: HostSettings, played: PlayedPath
) -> None:
    host, order = HostActivities(settings), LimitPath(migration_id="m1", bytes_per_second=5)
    with pytest.raises(ApplicationError, match="no data path") as raised:
        ActivityEnvironment().run(host.limit_path, order)
    assert (raised.value.type, raised.value.non_retryable) == ("NotFound", True)
    opened(settings, TO_LISTEN)
    assert ActivityEnvironment().run(host.limit_path, order).bytes_per_second == 5


def test_the_process_is_put_where_the_migration_network_is(settings: HostSettings, played: PlayedPath) -> None:
    opened(settings.model_copy(update={"migration_namespace": "mig"}), TO_LISTEN)
    opened(settings, OpenPath(migration_id="m2", peer="host-a"))
    assert played.launchers[0] == ("nsenter", "--net=/run/netns/mig", "--")


def test_opening_twice_finds_the_first(settings: HostSettings, played: PlayedPath) -> None:
    assert opened(settings, TO_LISTEN) == opened(settings, TO_LISTEN)
    assert len(played.configs) == 1


def test_another_endpoint_replaces_a_path_nothing_has_moved_over(settings: HostSettings, played: PlayedPath) -> None:
    played.will_be("connected")
    opened(settings, TO_DIAL)
    opened_again = TO_DIAL.model_copy(update={"endpoint": Endpoint(address="10.0.0.2", port=49153)})
    played.will_be("connected", "connected", "connected")
    assert opened(settings, opened_again).port == 49153
    assert played.stops == 1


def test_another_endpoint_leaves_a_path_alone_over_which_a_move_has_started(
    settings: HostSettings, played: PlayedPath
) -> None:
    played.will_be("connected")
    opened(settings, TO_DIAL)
    Folder.of(settings, "m1").mark_started(1.0)
    other = TO_DIAL.model_copy(update={"endpoint": Endpoint(address="10.0.0.2", port=49153)})
    with pytest.raises(ApplicationError, match="left alone") as raised:
        opened(settings, other)
    assert raised.value.non_retryable
    assert played.stops == 0


def test_a_peer_that_refuses_is_told_at_once_and_not_tried_again(settings: HostSettings, played: PlayedPath) -> None:
    played.will_be("waiting", "failed", error="wrong certificate")
    with pytest.raises(ApplicationError, match="wrong certificate") as raised:
        opened(settings, TO_DIAL)
    assert (raised.value.type, raised.value.non_retryable) == ("DataPathFailed", True)


def test_a_peer_that_cannot_be_reached_has_a_deadline(
    settings: HostSettings, played: PlayedPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "CONNECTED_WITHIN", 0.0)
    with pytest.raises(ApplicationError, match=r"has not reached host-b at 10\.0\.0\.2:49152"):
        opened(settings, TO_DIAL)


def test_closing_tells_the_last_status_and_leaves_nothing(settings: HostSettings, played: PlayedPath) -> None:
    opened(settings, TO_LISTEN)
    host = HostActivities(settings)
    report = ActivityEnvironment().run(host.close_path, ClosePath(migration_id="m1"))
    assert report.status is not None
    assert report.status.port == 49152
    assert not Folder.of(settings, "m1").path.exists()
    assert ActivityEnvironment().run(host.close_path, ClosePath(migration_id="m1")).status is None


def test_closing_what_never_was_is_fine(settings: HostSettings) -> None:
    assert ActivityEnvironment().run(HostActivities(settings).close_path, ClosePath(migration_id="m1")).status is None


STUBBORN = """
import fcntl, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = open(sys.argv[-1]); fcntl.flock(lock, fcntl.LOCK_EX)
print("ready", flush=True)
time.sleep(60)
"""


def stubborn(*words: str) -> subprocess.Popen[str]:
    """A process that holds the lock of the last word's file and does not end when it is asked to."""
    started = subprocess.Popen([sys.executable, "-c", STUBBORN, *words], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    threading.Thread(target=started.wait, daemon=True).start()
    return started


def test_a_process_that_does_not_stop_is_killed_and_its_neighbour_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "ENDED_WITHIN", 0.5)
    folder, other = Folder(tmp_path / "m1"), Folder(tmp_path / "m2")
    for each in (folder, other):
        each.make()
        each.config.touch()
    hung, neighbour = stubborn("dwcp", str(folder.config)), stubborn("dwcp", str(other.config))
    try:
        with pytest.raises(ControlFailed):
            control.status(folder.path)
        assert path.processes(folder) == [hung.pid]
        assert ActivityEnvironment().run(path.stop, folder) is None
        assert hung.wait(5) == -signal.SIGKILL
        assert neighbour.poll() is None
    finally:
        for started in (hung, neighbour):
            started.kill()
            started.wait(5)


def test_a_socket_nobody_answers_is_no_process(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "m1")
    folder.make()
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(folder.path / "control.sock"))
    assert ActivityEnvironment().run(path.stop, folder) is None
