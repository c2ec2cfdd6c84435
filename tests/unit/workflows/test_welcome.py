"""Which host may take work after it was started anew, and which VMs look wrong: pure, case by case."""

from __future__ import annotations

from models.host import HostReport, SiteReport, VmReport, VmState
from models.lease import Lease
from models.recovery import DeadRun
from workflows.recovery.suspicion import suspects
from workflows.site.welcome import objection

WEB, DB = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01", "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a02"
NAMES = {WEB: "web", DB: "db"}


def vm(uuid: str = WEB, state: VmState = "running", reason: int = 0) -> VmReport:
    return VmReport(name=NAMES[uuid], uuid=uuid, state=state, reason=reason, memory_mib=1, vcpus=1)


def host(name: str, *vms: VmReport) -> HostReport:
    return HostReport(
        site="s", host=name, uuid=name, libvirt_version="9", qemu_version="7", memory_total_mib=1, memory_free_mib=1,
        vms=vms,
    )  # fmt: skip


def site(*hosts: HostReport, silent: str = "") -> SiteReport:
    return SiteReport(site="s", hosts=hosts, silent={silent: "no worker"} if silent else {})


def owner(name: str, uuid: str = WEB, operation: str = "", expires: float = 0) -> dict[str, Lease]:
    lease = Lease(site="s", uuid=uuid, vm=NAMES[uuid], host=name, token=1, operation=operation, expires=expires)
    return {uuid: lease}


def test_a_host_without_a_live_vm_is_welcome_whoever_is_silent() -> None:
    back = host("a", vm(state="shutoff"))
    assert objection(back, site(back, silent="b"), owner("b")) == ""


def test_a_vm_that_its_record_knows_is_welcome_whoever_is_silent() -> None:
    back = host("a", vm())
    assert objection(back, site(back, silent="b"), owner("a")) == ""


def test_a_vm_that_lives_elsewhere_too_is_not() -> None:
    back = host("a", vm())
    assert objection(back, site(back, host("b", vm(state="paused"))), owner("a")) == "web lives on it and on b"


def test_a_vm_that_a_silent_host_may_run_is_not() -> None:
    back = host("a", vm())
    assert "its record names b, and these hosts do not answer: b" in objection(back, site(back, silent="b"), owner("b"))
    assert "it has no owner record" in objection(back, site(back, silent="b"), {})


def test_the_only_copy_of_all_hosts_is_welcome_whatever_its_record_says() -> None:
    back = host("a", vm())
    assert objection(back, site(back, host("b")), owner("b")) == ""


def test_a_site_in_order_has_no_suspects() -> None:
    assert suspects(site(host("a", vm()), host("b", vm(DB))), owner("a") | owner("b", DB), [], now=0) == []


def test_each_reason_for_a_look_is_told() -> None:
    dead = DeadRun(vm="old", workflow_id="vm/s/old", run_id="r1", status="TERMINATED")
    doubled = site(host("a", vm(), vm(DB)), host("b", vm(state="paused")))
    found = suspects(doubled, owner("b", DB) | owner("a", operation="r", expires=5), [dead], now=9)
    assert [(each.vm, each.why) for each in found] == [
        ("db", "runs on a, and its record names b"),
        ("old", "run r1 ended as terminated"),
        ("web", "lives on a and b"),
    ]
    held = suspects(site(host("a", vm())), owner("a", operation="r", expires=5), [], now=9)
    assert [each.why for each in held] == ["operation r never released it"]
    assert suspects(site(host("a", vm())), owner("a", operation="r", expires=5), [], now=4) == []


def test_half_a_vm_is_a_suspect() -> None:
    (found,) = suspects(site(host("a", vm(state="paused", reason=13))), owner("a"), [], now=0)
    assert found.why == "in post-copy on a, its other half nowhere"
