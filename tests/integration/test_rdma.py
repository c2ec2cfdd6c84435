"""RDMA lanes on real RoCE, in software: two guests of QEMU joined by a virtual wire, a data path in each.

The kernel of this machine need not know RDMA: the guests bring their own (tests/rdma/guest), and see this machine's
files. What is tried is in tests/rdma/inside.py.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAB = Path(os.environ.get("NOVACRON_LAB_DIR", "/var/lib/novacron/lab")) / "rdma"
DEBIANS = Path("/usr/lib/python3/dist-packages/pyverbs")
SECONDS = 420
SCENARIOS = [
    node.name
    for node in ast.parse((ROOT / "tests/rdma/inside.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]

pytestmark = [pytest.mark.real, pytest.mark.timeout(SECONDS + 60)]

RUN = """
mkdir -p /tmp/site && ln -s {pyverbs} /tmp/site/
export PYTHONPATH=/tmp/site:{root} PYTHONDONTWRITEBYTECODE=1
cd {root}
{device}
exec {python} -m tests.rdma.inside {role}
"""
ROLES = {"near": ("10.77.0.1", "near /out/report"), "far": ("10.77.0.2", "far")}


def pyverbs() -> Path:
    """Where this Python finds it: its own, or Debian's, which is built for one version."""
    found = importlib.util.find_spec("pyverbs")
    if found and found.origin:
        return Path(found.origin).parent
    version = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
    if not list(DEBIANS.glob(f"device.{version}*")):
        pytest.skip(f"no pyverbs for Python {sys.version_info.major}.{sys.version_info.minor} in {DEBIANS}")
    return DEBIANS


def boot(role: str, folder: Path, wire: Path, *, listens: bool) -> subprocess.Popen[bytes]:
    address, words = ROLES[role]
    device = "rdma link add rxe0 type rxe netdev eth0" if role == "near" else ""
    script = RUN.format(pyverbs=pyverbs(), root=ROOT, python=sys.executable, role=words, device=device)
    (folder / "run.sh").write_text(script)
    command = [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{folder / 'console'}", "-kernel", str(LAB / "vmlinux"), "-initrd", str(LAB / "initrd.gz")),
        "-append",
        f"console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on rdma.ip={address} rdma.run=run.sh",
        *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={folder},mount_tag=out,security_model=none"),
        *("-netdev", f"stream,id=wire,server={'on' if listens else 'off'},addr.type=unix,addr.path={wire}"),
        *("-device", f"virtio-net-pci,netdev=wire,host_mtu=4200,mac=52:54:00:00:00:0{1 + listens}"),
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of each scenario -> what went wrong, or nothing."""
    folder = tmp_path_factory.mktemp("rdma")
    wire = folder / "wire"
    guests: list[subprocess.Popen[bytes]] = []
    begun = time.monotonic()
    try:
        for role in ("far", "near"):
            (folder / role).mkdir()
            guests.append(boot(role, folder / role, wire, listens=role == "far"))
            while not wire.exists():
                assert guests[0].poll() is None, "QEMU did not start"
                assert time.monotonic() - begun < 20, "QEMU does not listen"
                time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):  # the report shows how far it came
            guests[1].wait(SECONDS)
    finally:
        for guest in guests:
            guest.kill()
            guest.wait()
    console = (folder / "near" / "console").read_text(errors="replace")
    lines = folder / "near" / "report"
    assert lines.exists(), f"the guest said nothing: {console[-4000:]}"
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    return {
        entry["name"]: entry["error"] and f"{entry['error']}\n\nConsole of the source's guest:\n{console[-6000:]}"
        for entry in found
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_between_two_guests(report: dict[str, str], scenario: str) -> None:
    assert scenario in report, "the guests did not get that far"
    assert not report[scenario], report[scenario]
