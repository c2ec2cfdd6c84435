"""The hosts of a simulated site and the VMs on them: what is true, whatever a workflow believes.

A VM has a copy on a host. A move makes a paused copy at the destination and ends in one of three ways: the VM runs
there and nowhere else, it stays, or it stays and the paused copy is left behind. Every switch is checked as it
happens, so that a VM that ran twice for a moment is found although all is well in the end.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bench.simulated.faults import Faults
from models.host import VmReport, VmState
from models.migration import OpenPath

MEMORY_MIB = (512, 1024, 2048, 4096)
HOST_MIB = 64 << 10
RESERVE_MIB = 256
TENANTS = ("red", "green", "blue", "gold")


@dataclass(frozen=True)
class Copy:
    """A VM on a host."""

    name: str
    uuid: str
    memory_mib: int
    tenant: str
    state: VmState = "running"
    job: bool = False
    incoming: bool = False
    """It has never run here."""

    def report(self) -> VmReport:
        return VmReport(
            name=self.name,
            uuid=self.uuid,
            state=self.state,
            reason=11 if self.incoming else 0,
            memory_mib=self.memory_mib,
            vcpus=2,
            persistent=False,
            job=self.job,
            labels={"tenant": self.tenant},
        )


@dataclass
class Host:
    """One host as its hypervisor would know it."""

    name: str
    copies: dict[str, Copy] = field(default_factory=dict)
    paths: dict[str, OpenPath] = field(default_factory=dict)
    """Data path ends by migration."""
    images: set[str] = field(default_factory=set)
    tokens: dict[str, int] = field(default_factory=dict)
    """The highest owner token that was seen for each VM."""

    @property
    def free_mib(self) -> int:
        return HOST_MIB - sum(copy.memory_mib for copy in self.copies.values())


@dataclass(frozen=True)
class Facts:
    """What a look over all hosts finds. All of it has to be zero but `vms`."""

    vms: int
    """That run on exactly one host."""
    lost: int
    """That run nowhere."""
    doubled: int
    """That run on two hosts, now or at any moment before."""
    leftovers: int
    """Paused copies that never ran."""
    jobs: int
    paths: int
    """Ends of data paths that nobody closed."""


class Site:
    """Hosts `h0000`, `h0001`, ... with VMs `vm-00000`, `vm-00001`, ... dealt out evenly."""

    def __init__(self, name: str, hosts: int, vms: int, faults: Faults | None = None) -> None:
        self.name = name
        self.faults = faults or Faults()
        self.hosts = {f"h{number:04}": Host(f"h{number:04}") for number in range(hosts)}
        self.vms = [f"vm-{number:05}" for number in range(vms)]
        self.switches = 0
        """Moves that succeeded."""
        self.ran_twice: list[str] = []
        """What should never be: a VM that was started on one host while it ran on another."""
        drawn = random.Random(self.faults.seed)
        names = list(self.hosts)
        for number, vm in enumerate(self.vms):
            self.hosts[names[number % hosts]].copies[vm] = Copy(
                name=vm,
                uuid=str(uuid.UUID(int=drawn.getrandbits(128), version=4)),
                memory_mib=drawn.choice(MEMORY_MIB),
                tenant=drawn.choice(TENANTS),
            )

    def runs_on(self, vm: str) -> list[str]:
        """Hosts on which the VM runs."""
        return [host.name for host in self.hosts.values() if vm in host.copies and not host.copies[vm].incoming]

    def left_on(self, hosts: Iterable[str]) -> int:
        """VMs that still run on these hosts."""
        return sum(not copy.incoming for name in hosts for copy in self.hosts[name].copies.values())

    def begin(self, vm: str, source: str, destination: str) -> None:
        """The destination holds a paused copy from now on."""
        here, there = self.hosts[source], self.hosts[destination]
        there.copies[vm] = replace(here.copies[vm], state="paused", job=False, incoming=True)
        here.copies[vm] = replace(here.copies[vm], job=True)

    def switch(self, vm: str, source: str, destination: str) -> None:
        """The VM runs at the destination and has left the source."""
        self.switches += 1
        copy = self.hosts[source].copies.pop(vm)
        if elsewhere := self.runs_on(vm):
            self.ran_twice.append(f"{vm} was started on {destination} and ran on {', '.join(elsewhere)}")
        self.hosts[destination].copies[vm] = replace(copy, state="running", job=False, incoming=False)

    def stay(self, vm: str, source: str, destination: str, leftover: bool = False) -> None:
        """The move has ended without a switch."""
        here, there = self.hosts[source], self.hosts[destination]
        here.copies[vm] = replace(here.copies[vm], job=False)
        if not leftover:
            there.copies.pop(vm, None)

    def facts(self) -> Facts:
        running: Counter[str] = Counter()
        for copy in self._copies():
            running[copy.name] += not copy.incoming
        return Facts(
            vms=sum(running[vm] == 1 for vm in self.vms),
            lost=sum(running[vm] == 0 for vm in self.vms),
            doubled=sum(running[vm] > 1 for vm in self.vms) + len(self.ran_twice),
            leftovers=sum(copy.incoming for copy in self._copies()),
            jobs=sum(copy.job for copy in self._copies()),
            paths=sum(len(host.paths) for host in self.hosts.values()),
        )

    def _copies(self) -> Iterable[Copy]:
        return (copy for host in self.hosts.values() for copy in host.copies.values())
