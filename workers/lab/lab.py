"""The lab as a whole: up, down, status, and everything one does to a running lab.

`up` is one pass over all parts that makes what is missing and leaves what is sound; so it starts a lab,
adds hosts to one, and repairs one of which any part was killed. `down` finds what there is by looking at
the machine (mount and network namespaces, a mark in the environment), not by what was written down, so it
also ends what a killed lab left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from models import queues
from models.base import Model
from models.host import SiteSettings
from models.lease import LeaseSettings
from workers.lab import guests, temporal, wire
from workers.lab.accelerator import Accelerator, accelerator
from workers.lab.certificates import Authority
from workers.lab.errors import SEARCH, LabError, wait_until
from workers.lab.guests import Guest
from workers.lab.heartbeats import Heartbeats
from workers.lab.hosts import Host, end_all
from workers.lab.link import LinkSpec
from workers.lab.network import Counters, Network
from workers.lab.processes import Part, Process, doomed, identify, in_network, marked, send, wait_gone
from workers.lab.settings import HOSTS, SITE, LabSettings, host_name

WORKER_WITHIN = 60.0


class HostStatus(Model):
    name: str
    up: bool
    address: str
    """On the migration network, inside the lab."""
    namespace: str
    libvirt_uri: str
    """For use from outside: virsh -c URI list."""
    cut: bool = False
    tx_bytes: int = 0
    rx_bytes: int = 0
    guests: tuple[str, ...] = ()


class LabStatus(Model):
    name: str
    up: bool
    """Every part lives."""
    folder: str
    site: str = SITE
    temporal: str
    ui: str
    profile: str
    """Temporal configuration file of this lab: TEMPORAL_CONFIG_FILE for `temporal` and `novacron`."""
    link: LinkSpec = LinkSpec()
    hosts: tuple[HostStatus, ...] = ()
    parts: dict[str, int | None] = Field(default_factory=dict)
    """Pid of each part that should live; None when it does not."""


class _Plan(Model):
    """What the lab was asked to be; kept in lab.json, so that a repair knows."""

    hosts: int = 0
    link: LinkSpec = LinkSpec()
    workers: bool = False


@dataclass(frozen=True)
class _Worker:
    part: Part
    command: list[str]
    queue: str
    kind: Literal["WORKFLOW", "ACTIVITY"]


class Lab:
    """One lab of this machine. Cheap to make: it holds no process or file open."""

    def __init__(self, settings: LabSettings | None = None) -> None:
        self.settings = settings or LabSettings.from_environment()
        self.network = Network(self.settings)

    # up, down, status

    def up(self, hosts: int = 2, link: LinkSpec | None = None, workers: bool = True) -> LabStatus:
        """Make the lab run: at least `hosts` hosts (an up takes none away), this link (None: as it is), workers.

        Returns when libvirt answers on each host, Temporal answers, and all workers poll.
        """
        if not 1 <= hosts <= len(HOSTS):
            raise LabError(f"hosts: {hosts} is out of range: a lab has 1 to {len(HOSTS)}")
        self._check_machine()
        with self._locked():
            old = self._plan()
            plan = _Plan(hosts=max(hosts, old.hosts), link=link or old.link, workers=workers or old.workers)
            self._save(plan)
            self._write_files(plan)
            self._start_temporal()
            self.network.make_switch()
            for host in self._hosts(plan):
                host.make_ground(self.network)
                host.start_libvirtd()
            self._lay_link(plan)
            for host in self._hosts(plan):
                host.wait_libvirtd()
            temporal.wait_ready(self.settings, self._part("temporal"))
            if plan.workers:
                self._start_workers(plan)
        return self.status()

    def down(self, purge: bool = False) -> None:
        """End every process and namespace of the lab. Logs and the workflows' history stay, unless `purge`."""
        self._check_root()
        if not self.settings.folder.exists() and not self.network.namespaces():
            return
        with self._locked():
            end_all(self._processes)
            self.network.remove()
            for name in HOSTS:
                if self.settings.host(name).exists():
                    Host(self.settings, name).clear()
            shutil.rmtree(self.settings.folder / "parts", ignore_errors=True)
            for file in ("lab.json", "wire.sock"):
                (self.settings.folder / file).unlink(missing_ok=True)
            if purge:
                shutil.rmtree(self.settings.folder)

    def status(self) -> LabStatus:
        """What there is now; never raises for a lab that is down or half dead."""
        plan = self._plan()
        parts = {name: process.pid if (process := self._part(name).process()) else None for name in self._names(plan)}
        hosts = tuple(self._host_status(host) for host in self._hosts(plan))
        return LabStatus(
            name=self.settings.name,
            up=bool(parts) and None not in parts.values() and all(host.up for host in hosts),
            folder=str(self.settings.folder),
            temporal=self.settings.address,
            ui=self.settings.ui,
            profile=str(self.settings.temporal_profile),
            link=plan.link,
            hosts=hosts,
            parts=parts,
        )

    # the link

    def link(self, spec: LinkSpec) -> None:
        """Change rate, delay and loss of all hosts' links while the lab runs. Connections live through it."""
        with self._locked():
            plan = self._running().model_copy(update={"link": spec})
            self._save(plan)
            self._lay_link(plan)

    def cut(self, host: str | None = None) -> None:
        """Drop every frame of this host's link, or of all. Carrier and addresses stay, so TCP stalls."""
        for each in self._named(host):
            self.network.cut(each.name)

    def heal(self, host: str | None = None) -> None:
        for each in self._named(host):
            self.network.heal(each.name)

    def counters(self, host: str) -> Counters:
        """Bytes at the host's uplink since it was made."""
        return self.network.counters(host_name(host))

    # guests

    def accelerator(self) -> Accelerator:
        """What guests run on: kvm if one was seen to start on it since the machine booted, else tcg."""
        self.settings.root.mkdir(parents=True, exist_ok=True)
        return accelerator(self.settings.guest_folder, self.settings.root / "accelerator.json")

    def boot_guest(
        self,
        name: str,
        host: str = "host-a",
        memory_mib: int = 512,
        fill: int = 0,
        dirty: int = 0,
        check: int = 1,
        scratch: int = 0,
    ) -> Guest:
        """Boot a guest, wait for its heartbeat. `fill`: MiB of real content; `dirty`: MiB/s of changing pages;
        `scratch`: MiB of a disk that only its host sees, and that it writes to and reads back."""
        hosts = [each.name for each in self._hosts(self._running())]
        if host not in hosts:
            raise LabError(f"there is no host {host!r} in lab {self.settings.name}: it has {', '.join(hosts)}")
        kind = self.accelerator()
        return guests.boot(self.settings, hosts, kind, name, host, memory_mib, fill, dirty, check, scratch)

    def destroy_guest(self, name: str) -> None:
        """End the guest wherever it is; nothing happens when it is nowhere."""
        for host in self._hosts(self._running()):
            guests.destroy(self.settings, name, host.name)

    def guests(self) -> dict[str, tuple[str, ...]]:
        """Guests with a QEMU process, by host."""
        return {host.name: host.guests() for host in self._hosts(self._plan())}

    def heartbeats(self, name: str, from_start: bool = False) -> Heartbeats:
        """A listener to this guest on all hosts; use it with `with`."""
        hosts = self._hosts(self._plan())
        return Heartbeats({host.name: self.settings.serial_log(host.name, name) for host in hosts}, from_start)

    # parts, by name: temporal, control.worker, wire, <host>.libvirtd, <host>.worker, <host>.keeper

    def pid_of(self, name: str) -> int:
        """Pid of a living part, or of a guest's QEMU as `<host>.qemu.<guest>`; LabError when it is dead."""
        host, _, guest = name.partition(".qemu.")
        if guest and guest in (found := Host(self.settings, host_name(host)).qemu()):
            return found[guest]
        process = None if guest else self._known(name).process()
        if process is None:
            raise LabError(f"{name} is not alive in lab {self.settings.name}: see `novacron lab status`")
        return process.pid

    def log_of(self, name: str) -> Path:
        return self._known(name).log

    def start(self, name: str) -> int:
        """Start one part that ended, and wait until it serves again; its pid."""
        part = self._known(name)
        with self._locked():
            plan = self._running()
            host, _, kind = name.partition(".")
            if name == "temporal":
                self._start_temporal()
                temporal.wait_ready(self.settings, part)
            elif name == "wire":
                self._lay_link(plan)
            elif kind == "worker":
                self._start_workers(plan, only=name)
            elif kind == "libvirtd":
                Host(self.settings, host).start_libvirtd()
                Host(self.settings, host).wait_libvirtd()
            else:
                raise LabError(f"{name} cannot be started alone: without it its host is gone; run `novacron lab up`")
        return self.pid_of(name)

    def stop(self, name: str) -> None:
        """End one part (SIGTERM, then SIGKILL)."""
        self._known(name).stop()

    def kill(self, name: str) -> None:
        """kill -9 one part, or a guest's QEMU as in `pid_of`, and return when it is gone."""
        if process := identify(self.pid_of(name)):
            send(process, signal.SIGKILL)
            wait_gone(process)

    def restart_worker(self, host: str) -> int:
        """Stop and start a host's worker; its new pid."""
        self.stop(f"{host_name(host)}.worker")
        return self.start(f"{host}.worker")

    # inside

    def _hosts(self, plan: _Plan) -> list[Host]:
        return [Host(self.settings, name) for name in HOSTS[: plan.hosts]]

    def _named(self, host: str | None) -> list[Host]:
        hosts = self._hosts(self._running())
        chosen = [each for each in hosts if host in (None, each.name)]
        if not chosen:
            there = ", ".join(each.name for each in hosts)
            raise LabError(f"there is no host {host!r} in lab {self.settings.name}: it has {there}")
        return chosen

    def _part(self, name: str) -> Part:
        return Part(name, self.settings.folder)

    def _names(self, plan: _Plan) -> list[str]:
        """Names of the parts that should live."""
        names = ["temporal"] if plan.hosts else []
        names += ["wire"] if plan.link.needs_wire else []
        names += ["control.worker"] if plan.workers else []
        for host in self._hosts(plan):
            names += [host.keeper.name, host.libvirtd.name]
            names += [host.worker.name] if plan.workers else []
        return names

    def _known(self, name: str) -> Part:
        names = self._names(self._plan())
        if name not in names:
            there = ", ".join(names) or "none, it is down"
            raise LabError(f"lab {self.settings.name} has no part {name!r}: it has {there}")
        return self._part(name)

    def _plan(self) -> _Plan:
        try:
            return _Plan.model_validate_json((self.settings.folder / "lab.json").read_text())
        except (FileNotFoundError, ValueError):
            return _Plan()  # down, or written by another release: as if it never was

    def _running(self) -> _Plan:
        plan = self._plan()
        if not plan.hosts:
            raise LabError(f"lab {self.settings.name} is down: run `novacron lab up`")
        return plan

    def _save(self, plan: _Plan) -> None:
        fresh = self.settings.folder / "lab.json.new"
        fresh.write_text(plan.model_dump_json(indent=2) + "\n")
        fresh.replace(self.settings.folder / "lab.json")

    def _host_status(self, host: Host) -> HostStatus:
        joined = self.network.joined(host.name)
        counters = self.network.counters(host.name) if joined else Counters(0, 0)
        return HostStatus(
            name=host.name,
            up=joined and host.keeper.process() is not None and host.libvirtd.process() is not None,
            address=self.settings.migration_address(host.name),
            namespace=self.settings.namespace(host.name),
            libvirt_uri=self.settings.libvirt_uri(host.name),
            cut=joined and self.network.is_cut(host.name),
            tx_bytes=counters.tx_bytes,
            rx_bytes=counters.rx_bytes,
            guests=host.guests(),
        )

    def _check_root(self) -> None:
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces and starts QEMU, so it needs root: run it with sudo")

    def _check_machine(self) -> None:
        self._check_root()
        programs = ("ip", "tc", "bridge", "nsenter", "unshare", "libvirtd", "qemu-system-x86_64")
        if missing := [program for program in programs if not shutil.which(program, path=SEARCH)]:
            raise LabError(f"not installed: {', '.join(missing)}: run `make setup`")
        temporal.binary()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes a lab; another one waits for it."""
        file = self.settings.folder / "lock"

        def taken() -> int | None:
            self.settings.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(file, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == file.stat().st_ino:
                    return lock
            except (BlockingIOError, FileNotFoundError):
                pass  # held by another, or the lab was purged meanwhile: ask again
            os.close(lock)
            return None

        lock = wait_until(
            taken, 180, lambda: f"another process changes lab {self.settings.name}: wait until it is done"
        )
        try:
            yield
        finally:
            os.close(lock)

    def _processes(self) -> set[Process]:
        """All processes of the lab there are on this machine, whoever remembers them."""
        found = marked(self.settings.folder) | in_network(self.network.namespaces())
        for name in HOSTS:
            found |= Host(self.settings, name).processes()
        return found

    def _write_files(self, plan: _Plan) -> None:
        authority = Authority(self.settings.tls_folder, f"NovaCron lab {self.settings.name}")
        for host in self._hosts(plan):
            host.write_files(authority)
        site = SiteSettings(
            site=SITE,
            hosts=tuple(host.name for host in self._hosts(plan)),
            leases=LeaseSettings(file=str(self.settings.folder / "leases.db")),
        )
        self._control_settings.write_text(site.model_dump_json(indent=2) + "\n")
        self.settings.temporal_profile.write_text(temporal.profile(self.settings))

    @property
    def _control_settings(self) -> Path:
        return self.settings.folder / "control.json"

    def _start_temporal(self) -> None:
        part = self._part("temporal")
        ports = (
            self.settings.port,
            self.settings.ui_port,
            self.settings.http_port,
            self.settings.metrics_port,
        )
        if (running := part.process()) and doomed(running):
            wait_gone(running)
        if part.process() is None:
            wait_until(  # the threads of one that was killed may hold them a moment longer
                lambda: not temporal.ports_in_use(ports),
                5,
                lambda: (
                    f"Temporal cannot start: port {temporal.ports_in_use(ports)} in use by others; "
                    "end what listens there, or choose another first port with NOVACRON_LAB_PORT"
                ),
            )
        part.start(temporal.command(self.settings))

    def _lay_link(self, plan: _Plan) -> None:
        """Make the links as planned. The wire runs only when there is a delay or a loss."""
        hosts = [host.name for host in self._hosts(plan)]
        if plan.link.needs_wire:
            self._start_wire(hosts, plan.link)
        for host in hosts:
            self.network.shape(host, plan.link.rate)
            if plan.link.needs_wire:
                self.network.through_wire(host)
            else:
                self.network.past_wire(host)
        if not plan.link.needs_wire:
            self._part("wire").stop()

    def _start_wire(self, hosts: list[str], spec: LinkSpec) -> None:
        part, control = self._part("wire"), self.settings.folder / "wire.sock"

        def serves() -> bool:
            if part.process() is None:
                raise LabError(f"the wire ended; {part.last_words()}")
            try:
                answered = wire.order(control, spec.delay, spec.loss)
            except OSError:
                return False
            if answered.keys() != set(hosts):
                part.stop()  # a host was added: it needs its devices
                part.start(command)
            return answered.keys() == set(hosts)

        enter = ["nsenter", f"--net=/run/netns/{self.settings.switch}"]
        command = [*enter, sys.executable, "-m", "workers.lab.wire", str(control), *hosts]
        part.start(command)
        wait_until(serves, 20, lambda: f"the wire does not answer; {part.last_words()}")

    def _start_workers(self, plan: _Plan, only: str | None = None) -> None:
        """Start the workers that do not live, and wait until each one asks Temporal for work."""
        site = [sys.executable, "-m", "workers.control", "--settings", str(self._control_settings)]
        wanted = [_Worker(self._part("control.worker"), site, queues.control(SITE), "WORKFLOW")]
        for host in self._hosts(plan):
            own = [sys.executable, "-m", "workers.host", "--settings", str(host.worker_settings)]
            command = [*host.enter(network=False), *own]
            wanted.append(_Worker(host.worker, command, queues.host(SITE, host.name), "ACTIVITY"))
        fresh = [each for each in wanted if only in (None, each.part.name) and each.part.process() is None]
        begun = datetime.now(UTC)
        for worker in fresh:
            worker.part.start(worker.command, self.environment)
        for worker in fresh:
            self._wait_polling(worker, begun)

    def _wait_polling(self, worker: _Worker, begun: datetime) -> None:
        def polls() -> bool:
            if worker.part.process() is None:
                raise LabError(f"{worker.part.name} ended; {worker.part.last_words()}")
            return temporal.polled(self.settings, worker.queue, worker.kind, begun)

        wait_until(
            polls,
            WORKER_WITHIN,
            lambda: f"{worker.part.name} does not poll {worker.queue}; {worker.part.last_words()}",
        )

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which `temporal`, `novacron` and the workers use this lab's server."""
        return {
            "TEMPORAL_ADDRESS": self.settings.address,
            "TEMPORAL_NAMESPACE": "default",
            "TEMPORAL_CONFIG_FILE": str(self.settings.temporal_profile),
            "TEMPORAL_PROFILE": "default",
        }
