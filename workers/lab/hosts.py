"""One lab host: network, mount and UTS namespaces, a libvirtd inside, a host worker.

The namespaces live as long as the *keeper*, a sleeping process that made them. Everything else of the host
enters them through it, so libvirtd and the worker may be killed and started again while guests run on.
Whoever sees the host's own folder at /run/libvirt is inside: that is how all its processes are found, those
it forgot included.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.host import HostSettings
from models.store import StoreSettings
from workers.lab.certificates import Authority
from workers.lab.errors import LabError, wait_until
from workers.lab.network import Network
from workers.lab.processes import Part, Process, end, in_mounts_where, in_network
from workers.lab.settings import LIBVIRT_SOCKET, SITE, STATE_DIR, LabSettings

# the host's folder -> where the host sees it
_MOUNTS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "etc": "/etc/libvirt",
    "novacron": STATE_DIR,
}

_STORE_MIB = 2048

# `exec` all the way: the pid that was started is the one that stays
_KEEPER = """
set -e
hostname "$1"; shift
while [ $# -gt 0 ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
exec sleep infinity
"""

_QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
seccomp_sandbox = 0
migration_host = "{address}"
keepalive_interval = 5
keepalive_count = 70
"""

_LIBVIRTD_CONF = """
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
log_outputs = "3:stderr"
keepalive_interval = 5
keepalive_count = 70
"""


@dataclass(frozen=True)
class Host:
    settings: LabSettings
    name: str

    @property
    def folder(self) -> Path:
        return self.settings.host(self.name)

    @property
    def keeper(self) -> Part:
        return Part(f"{self.name}.keeper", self.settings.folder)

    @property
    def libvirtd(self) -> Part:
        return Part(f"{self.name}.libvirtd", self.settings.folder)

    @property
    def worker(self) -> Part:
        return Part(f"{self.name}.worker", self.settings.folder)

    @property
    def worker_settings(self) -> Path:
        return self.folder / "worker.json"

    def write_files(self, authority: Authority) -> None:
        """Configuration of libvirtd, QEMU and the worker, and the host's certificate."""
        for source in _MOUNTS:
            (self.folder / source).mkdir(parents=True, exist_ok=True)
        for part in ("serial", "scratch"):
            (self.folder / "lib" / part).mkdir(exist_ok=True)
        address = self.settings.migration_address(self.name)
        (self.folder / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(address=address))
        libvirtd = _LIBVIRTD_CONF.format(address=address, uuid=self.settings.host_uuid(self.name))
        (self.folder / "etc" / "libvirtd.conf").write_text(libvirtd)
        worker = HostSettings(
            site=SITE,
            host=self.name,
            libvirt_socket=LIBVIRT_SOCKET,
            state_dir=STATE_DIR,
            migration_address=address,
            migration_namespace=self.settings.namespace(self.name),
            tls=authority.issue(self.name),
            trusted_network=True,
            store=StoreSettings(
                folder=f"{self.folder}/store",
                limit_mib=_STORE_MIB,
            ),
        )
        self.worker_settings.write_text(worker.model_dump_json(indent=2) + "\n")

    def make_ground(self, network: Network) -> None:
        """The host's namespaces and its uplink. If any is missing it starts empty, as after a power cut."""
        if not (self.keeper.process() and network.joined(self.name) and self.keeper_joined()):
            self.clear()
            network.make_namespace(self.name)
            network.make_uplink(self.name)
            self._start_keeper()

    def keeper_joined(self) -> bool:
        """The keeper is in the network namespace that now has the host's name."""
        return self.keeper.process() in in_network([self.settings.namespace(self.name)])

    def _start_keeper(self) -> None:
        self.settings.cache_folder.mkdir(exist_ok=True)
        mounts = [str(self.settings.cache_folder), "/var/cache/libvirt"]
        for source, to in _MOUNTS.items():
            mounts += [str(self.folder / source), to]
        namespace = f"/run/netns/{self.settings.namespace(self.name)}"
        enter = ("nsenter", f"--net={namespace}", "unshare", "--mount", "--uts", "--propagation", "private")
        self.keeper.start([*enter, "bash", "-c", _KEEPER, "novacron-lab-keeper", self.name, *mounts])

        def ready() -> bool:
            process = self.keeper.process()
            if process is None:
                raise LabError(f"the namespaces of {self.name} could not be made; {self.keeper.last_words()}")
            return Path(f"/proc/{process.pid}/comm").read_text().strip() == "sleep"

        wait_until(ready, 10, lambda: f"the namespaces of {self.name} are not ready; {self.keeper.last_words()}")

    def enter(self, network: bool) -> list[str]:
        """Words that run a command inside the host; `network` False stays in the root network namespace."""
        process = self.keeper.process()
        if process is None:
            raise LabError(f"{self.name} is down: run `novacron lab up`")
        kinds = ("mnt", "uts", "net") if network else ("mnt", "uts")
        flags = {"mnt": "--mount", "uts": "--uts", "net": "--net"}
        return ["nsenter", *(f"{flags[kind]}=/proc/{process.pid}/ns/{kind}" for kind in kinds)]

    def start_libvirtd(self) -> None:
        """libvirtd in the foreground; QEMU processes that run already are found again by it."""
        daemon = ["/usr/sbin/libvirtd", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid"]
        self.libvirtd.start([*self.enter(network=True), *daemon, "--config", "/etc/libvirt/libvirtd.conf"])

    def wait_libvirtd(self, within: float = 30) -> None:
        def ready() -> bool:
            if self.libvirtd.process() is None:
                raise LabError(f"libvirtd of {self.name} ended; {self.libvirtd.last_words()}")
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                try:
                    probe.connect(str(self.settings.libvirt_socket(self.name)))
                except OSError:
                    return False
            return True

        wait_until(ready, within, lambda: f"libvirtd of {self.name} does not answer; {self.libvirtd.last_words()}")

    def processes(self) -> set[Process]:
        """Every process inside the host: keeper, libvirtd, QEMU, worker, data paths."""
        inside = in_mounts_where(_MOUNTS["run"], self.folder / "run")
        return inside | in_network([self.settings.namespace(self.name)])

    def clear(self) -> None:
        """End all processes of the host and forget what a reboot would forget."""
        end_all(self.processes)
        for part in (self.keeper, self.libvirtd, self.worker):
            part.stop()
        for source in ("run", "novacron"):
            shutil.rmtree(self.folder / source, ignore_errors=True)
            (self.folder / source).mkdir(parents=True)

    def guests(self) -> tuple[str, ...]:
        """Names of guests that have a QEMU process here (from libvirt's own pid files)."""
        return tuple(sorted(self.qemu()))

    def qemu(self) -> dict[str, int]:
        """QEMU's pid by guest."""
        found = {}
        for file in (self.folder / "run" / "qemu").glob("*.pid"):
            try:
                pid = int(file.read_text())
                name = Path(f"/proc/{pid}/comm").read_text()
            except (OSError, ValueError):
                continue  # it has just ended
            if name.startswith("qemu-system"):
                found[file.stem] = pid
        return found


def end_all(find: Callable[[], set[Process]]) -> None:
    """End what `find` finds, again, until it finds nothing: an ending process may have started another."""
    for _ in range(5):
        processes = find()
        if not processes:
            return
        end(processes)
    left = sorted(process.pid for process in find())
    raise LabError(f"processes {left} keep coming back: see what starts them with `ps -o ppid,args -p PID`")
