"""The fence of a host: the highest token is kept, on disk, and nobody with a lower one is obeyed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from activities import fence as module
from activities.fence import Fence
from activities.host import HostActivities
from models.disks import DiskImage, PrepareDisks, SettleDisks
from models.host import HostSettings
from models.migration import LimitPath, MoveVm, OpenPath, VmRef

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> HostSettings:
    folder = tmp_path_factory.mktemp("s")
    state = Path("/tmp") / f"fence-{folder.name}-{id(folder)}"[:35]
    return HostSettings(
        site="lab",
        host="host-a",
        state_dir=str(state),
        migration_address="10.0.0.1",
        tls={"certificate": "/c", "key": "/k", "authority": "/a"},
    )


@pytest.fixture
def fence(settings: HostSettings) -> Fence:
    return Fence(settings)


def web(token: int, uuid: str | None = UUID) -> VmRef:
    return VmRef(vm="web", uuid=uuid, token=token)


def test_an_older_token_is_refused_and_both_are_named(fence: Fence) -> None:
    fence.check(web(7), "move")
    with pytest.raises(
        ApplicationError, match="host-a refuses to move for web: .* owner token 6, .* has seen 7"
    ) as told:
        fence.check(web(6), "move")
    assert told.value.type == "Refused"
    assert told.value.non_retryable
    fence.check(web(7), "move")
    fence.check(web(8), "move")


def test_tokens_outlive_the_worker(settings: HostSettings) -> None:
    Fence(settings).check(web(7), "move")
    with pytest.raises(ApplicationError):
        Fence(settings).check(web(6), "move")


def test_an_order_without_a_token_is_obeyed_only_where_none_was_seen(fence: Fence) -> None:
    fence.check(web(0), "move")
    fence.check(None, "move")
    fence.check(web(1), "move")
    with pytest.raises(ApplicationError, match="owner token 0"):
        fence.check(web(0), "move")
    with pytest.raises(ApplicationError, match="owner token 0"):
        fence.check(web(0, uuid=None), "move")  # by name alone it is the same VM


def test_a_token_is_of_one_vm(fence: Fence) -> None:
    fence.check(web(7), "move")
    fence.check(VmRef(vm="db", uuid=UUID.replace("1", "2"), token=3), "move")


def test_a_refused_order_leaves_no_trace_and_an_accepted_one_is_on_disk_before_it_is_obeyed(
    settings: HostSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = module.os.fsync

    def fsync(handle: int) -> None:
        synced.append(handle)
        real(handle)

    monkeypatch.setattr("activities.fence.os.fsync", fsync)
    Fence(settings).check(web(7), "move")
    assert len(synced) == 2, "the file and its folder"
    assert Fence(settings).seen(web(0)) == 7


def test_threads_that_come_at_once_leave_the_highest(fence: Fence) -> None:
    def come(token: int) -> None:
        try:
            fence.check(web(token), "move")
        except ApplicationError:
            return

    threads = [threading.Thread(target=come, args=(token,)) for token in (5, 9, 3, 8, 1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert fence.seen(web(0)) == 9


def test_a_damaged_token_is_an_error_and_not_a_welcome(settings: HostSettings, fence: Fence) -> None:
    fence.check(web(7), "move")
    (Path(settings.state_dir) / "owners" / f"{UUID}.json").write_text("")
    with pytest.raises(ValueError, match="line 1 column 1"):
        fence.check(web(1), "move")


def test_a_host_takes_no_vm_until_it_was_welcomed_and_then_no_token_from_before(fence: Fence) -> None:
    (finding,) = fence.findings()
    assert (finding.id, finding.severity) == ("not-reconciled", "blocker")
    assert "novacron reconcile" in finding.remedy
    assert fence.welcome(5) == 5
    assert fence.findings() == ()
    assert fence.known(web(0)) == 5
    with pytest.raises(ApplicationError, match="owner token 5.*has seen 6|owner token 4.*has seen 5"):
        fence.check(web(4), "move")
    fence.check(web(6), "move")


def test_a_second_welcome_does_not_shut_out_moves_that_began_after_the_first(fence: Fence) -> None:
    fence.welcome(5)
    assert fence.welcome(9) == 5
    fence.check(web(6), "move")


def test_after_a_reboot_a_host_is_not_welcome_even_if_its_state_survived(
    settings: HostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fence(settings).welcome(5)
    boot = tmp_path / "boot_id"
    boot.write_text("another boot\n")
    monkeypatch.setattr("activities.fence.BOOT", boot)
    assert not Fence(settings).welcomed()
    assert Fence(settings).welcome(9) == 9


IMAGE = DiskImage(target="vda", path="/nowhere/disk", format="raw")


async def test_every_order_that_changes_something_is_fenced(settings: HostSettings) -> None:
    Fence(settings).check(web(7), "anything")
    host = HostActivities(settings)
    old = web(6)
    orders = [
        lambda: host.open_path(OpenPath(migration_id="m", peer="b", vm=old)),
        lambda: host.move_vm(MoveVm(migration_id="m", vm=old, source="a", destination="b")),
        lambda: host.prepare_disks(PrepareDisks(migration_id="m", disks=(IMAGE,), vm=old)),
        lambda: host.settle_disks(SettleDisks(migration_id="m", disks=(IMAGE,), keep=False, vm=old)),
        lambda: host.discard_incoming(old),
        lambda: host.start_post_copy(old),
        lambda: host.limit_path(LimitPath(migration_id="m", bytes_per_second=0, vm=old)),
    ]
    for order in orders:
        with pytest.raises(ApplicationError, match="owner token 6, and this host has seen 7"):
            order()
