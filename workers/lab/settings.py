"""Every folder, name and port of a lab, in one place, derived from its name and its first port.

Two labs that differ in name and port share nothing but the built guest.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError, model_validator

from models.base import Model, Port
from workers.lab.errors import LabError

SITE = "lab"
HOSTS = ("host-a", "host-b", "host-c", "host-d")
STATE_DIR = "/run/novacron"
LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"

SCRATCH_FOLDER = "/var/lib/libvirt/scratch"
"""Where a host has the disks that only it sees."""
SCRATCH_FORMAT = "qcow2"

_LONGEST_SOCKET = 107


class LabSettings(Model):
    """What distinguishes one lab from another. `from_environment` is the usual way to make one."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,7}$")] = "lab"
    """Part of network namespace names; short because socket paths hold it."""
    root: Path = Path("/var/lib/novacron/lab")
    """Folder of all labs and of the built guest."""
    port: Port = 7233
    """Temporal's gRPC port; the ports below follow it unless they are given."""
    ui_port: Port = Field(default=8233)
    http_port: Port = Field(default=7243)
    metrics_port: Port = Field(default=9233)
    prometheus_port: Port = Field(default=9243)
    workers_port: Port = Field(default=9253)
    """Figures of the control worker; those of the hosts' workers are on the ports after it."""

    @model_validator(mode="before")
    @classmethod
    def _ports_follow_the_first(cls, given: dict[str, object]) -> dict[str, object]:
        text = str(given.get("port", 7233))
        if not text.isdecimal():
            return given  # the field's own validation will say so
        first = int(text)
        following = {
            "ui_port": 1000,
            "http_port": 10,
            "metrics_port": 2000,
            "prometheus_port": 2010,
            "workers_port": 2020,
        }
        return {**{name: first + distance for name, distance in following.items()}, **given}

    @model_validator(mode="after")
    def _sockets_fit(self) -> LabSettings:
        longest = self.host(HOSTS[0]) / "run" / "libvirt-sock-ro"
        if not self.root.is_absolute() or len(str(longest)) > _LONGEST_SOCKET:
            raise ValueError(
                f"root: {self.root} is relative or too long for socket paths: take an absolute, shorter one"
            )
        return self

    @classmethod
    def from_environment(cls, **given: object) -> LabSettings:
        """Settings from NOVACRON_LAB, NOVACRON_LAB_DIR, NOVACRON_LAB_PORT; what is given here goes first."""
        names = {"name": "NOVACRON_LAB", "root": "NOVACRON_LAB_DIR", "port": "NOVACRON_LAB_PORT"}
        found = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
        try:
            return cls.model_validate({**found, **given})
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0]) if first["loc"] else "settings"
            source = f" (environment variable {names[field]})" if field in found.keys() - given.keys() else ""
            raise LabError(f"lab {field}{source}: {first['input']!r} does not do: {first['msg']}") from error

    @property
    def folder(self) -> Path:
        return self.root / "labs" / self.name

    @property
    def guest_folder(self) -> Path:
        """Where guest/build.sh puts kernel, initrd and content; shared by all labs."""
        return self.root / "guest"

    @property
    def cache_folder(self) -> Path:
        """What libvirt found out about QEMU (8 s of work), shared by all hosts of all labs."""
        return self.root / "cache"

    @property
    def tls_folder(self) -> Path:
        return self.folder / "tls"

    @property
    def switch(self) -> str:
        """Network namespace that holds the bridge between the hosts."""
        return f"nc-{self.name}-net"

    @property
    def address(self) -> str:
        """Where Temporal's clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.ui_port}"

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.prometheus_port}"

    def worker_metrics(self, worker: str) -> str:
        """Where `control`, or a host's worker, publishes its figures when the lab has a Prometheus."""
        return f"127.0.0.1:{self.workers_port + ('control', *HOSTS).index(worker)}"

    @property
    def temporal_profile(self) -> Path:
        """Temporal configuration file (TOML) with this lab as its default profile."""
        return self.folder / "temporal.toml"

    def host(self, host: str) -> Path:
        return self.folder / host

    def namespace(self, host: str) -> str:
        return f"nc-{self.name}-{host}"

    def migration_address(self, host: str) -> str:
        """The same in every lab: it exists only inside the lab's own network namespaces."""
        return f"10.77.0.{HOSTS.index(host) + 1}"

    def host_uuid(self, host: str) -> uuid.UUID:
        """libvirt refuses to migrate between hosts of equal uuid."""
        return uuid.uuid5(uuid.NAMESPACE_DNS, f"{host}.{self.name}.novacron")

    def libvirt_socket(self, host: str) -> Path:
        """The host's libvirt socket as seen from outside its namespaces."""
        return self.host(host) / "run" / "libvirt-sock"

    def libvirt_uri(self, host: str) -> str:
        return f"qemu+unix:///system?socket={self.libvirt_socket(host)}"

    def serial_log(self, host: str, guest: str) -> Path:
        return self.host(host) / "lib" / "serial" / f"{guest}.log"

    def scratch_image(self, host: str, guest: str) -> Path:
        """A guest's own disk as seen from outside the host."""
        return self.host(host) / "lib" / "scratch" / f"{guest}.{SCRATCH_FORMAT}"


def host_name(name: str) -> str:
    """`name` when it is a host's, else a LabError that lists them."""
    if name not in HOSTS:
        raise LabError(f"there is no host {name!r} in a lab: hosts are {', '.join(HOSTS)}")
    return name
