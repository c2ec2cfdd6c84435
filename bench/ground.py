"""Where moves are measured: two hosts' network namespaces with a shaped link between them, and the guest's files.

The network, certificates and clean-up are the lab's, under a lab name of its own; libvirt and Temporal stay out, since
nothing measured here needs them and they would take CPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.carriers import End
from bench.guest import Machine
from workers.lab.certificates import Authority
from workers.lab.errors import LabError, run
from workers.lab.lab import Lab
from workers.lab.network import UPLINK, Network
from workers.lab.settings import LabSettings

HOSTS = ("host-a", "host-b")


@dataclass(frozen=True)
class Ground:
    ends: tuple[End, End]
    """Source and destination."""
    machine: Machine
    network: Network
    folder: Path
    """For snapshots, sockets and logs; gone afterwards."""

    def shape(self, mbit: int) -> None:
        """Bound the link, in both directions; 0 removes the bound."""
        for end in self.ends:
            self.network.shape(end.name, mbit * 1_000_000 or None)

    def charged(self, end: End) -> int:
        """Bytes the shaper has let out of this end so far, as it charges them: with the headers of every packet."""
        command = ("tc", "-n", end.namespace, "-s", "-j", "qdisc", "show", "dev", end.interface)
        return sum(int(entry["bytes"]) for entry in json.loads(run(*command)) if entry["kind"] == "tbf")

    def cut(self, end: End) -> None:
        """Drop every frame from and to this end, without a word to it."""
        self.network.cut(end.name)

    def heal(self, end: End) -> None:
        self.network.heal(end.name)


@contextlib.contextmanager
def ground(name: str = "bench") -> Iterator[Ground]:
    """Make it, and remove all of it at the end, whatever the end is.

    Raises LabError, for one when another bench runs.
    """
    settings = LabSettings.from_environment(name=name)
    lab = Lab(settings)
    with _alone(settings.root / f".{name}.running"):
        lab.down(purge=True)  # what a killed bench left
        try:
            yield _make(lab)
        finally:
            lab.down(purge=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another bench runs on this machine: wait until it is done") from error
        yield


def _make(lab: Lab) -> Ground:
    settings, network = lab.settings, lab.network
    media = settings.guest_folder
    if not (media / "stamp").exists():
        raise LabError(f"the guest is not built in {media}: run `make setup`")
    network.make_switch()
    authority = Authority(settings.tls_folder, "NovaCron bench")
    ends = []
    for host in HOSTS:
        network.make_namespace(host)
        network.make_uplink(host)
        ends.append(
            End(
                name=host,
                address=settings.migration_address(host),
                interface=UPLINK,
                namespace=settings.namespace(host),
                tls=authority.issue(host),
            )
        )
    machine = Machine(
        kernel=media / "vmlinuz",
        initrd=media / "initrd.gz",
        content=media / "content.img",
        accel=lab.accelerator(),
    )
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=settings.folder))
    return Ground((ends[0], ends[1]), machine, network, folder)
