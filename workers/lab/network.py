"""The lab's network: one namespace per host, a bridge between them in a namespace of its own; nothing
outside those.

    host-a's namespace          the switch's namespace
    eth0 10.77.0.1/24  ══════  port `host-a` ── br0 ── port `host-b` ══════ ...
                                      or, with delay or loss:
                               port `host-a` ── host-a-br ── host-a-near ~ wire ~ host-a-far ── br0

The kernel holds all state: TBF holds the rate, the port's bridge state holds the cut. A cut port drops
frames and keeps its carrier, so TCP stalls as on a broken long-distance link and nothing is reset.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.lab.errors import LabError, run
from workers.lab.settings import LabSettings

UPLINK = "eth0"
_BRIDGE = "br0"
_DISABLED, _FORWARDING = "0", "3"  # bridge port states


@dataclass(frozen=True)
class Counters:
    """Bytes at a host's interface. One large segment counts its headers once."""

    tx_bytes: int
    rx_bytes: int


@dataclass(frozen=True)
class Network:
    settings: LabSettings

    def make_switch(self) -> None:
        """The switch's namespace with its bridge, unless it is there."""
        switch = self.settings.switch
        if not _usable(switch):
            _remake(switch)
        if not _devices(switch, _BRIDGE):
            run("ip", "-n", switch, "link", "add", _BRIDGE, "type", "bridge")
        run("ip", "-n", switch, "link", "set", _BRIDGE, "up")

    def make_namespace(self, host: str) -> None:
        """An empty network namespace for the host, in place of any that was there."""
        namespace = self.settings.namespace(host)
        _remake(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")

    def make_uplink(self, host: str) -> None:
        """The host's interface and its port on the switch, unless both are there."""
        namespace, switch = self.settings.namespace(host), self.settings.switch
        if self.joined(host):
            return
        for where, device in ((namespace, UPLINK), (switch, host)):
            if _devices(where, device):
                run("ip", "-n", where, "link", "del", device)
        run(
            "ip",
            "-n",
            switch,
            "link",
            "add",
            host,
            "type",
            "veth",
            "peer",
            "name",
            UPLINK,
            "netns",
            namespace,
        )
        address = f"{self.settings.migration_address(host)}/24"
        run("ip", "-n", namespace, "addr", "add", address, "dev", UPLINK)
        run("ip", "-n", switch, "link", "set", host, "master", _BRIDGE)
        for where, device in ((switch, host), (namespace, UPLINK)):
            # without IPv6 neighbour chatter the byte counters count what was sent
            run("ip", "-n", where, "link", "set", device, "addrgenmode", "none")
            run("ip", "-n", where, "link", "set", device, "up")

    def joined(self, host: str) -> bool:
        """The host's interface exists, and so does its port on the switch."""
        namespace, switch = self.settings.namespace(host), self.settings.switch
        if not (_usable(namespace) and _usable(switch)):
            return False
        return bool(_devices(namespace, UPLINK)) and bool(_devices(switch, host))

    def shape(self, host: str, rate: int | None) -> None:
        """Bound what the host sends and what it gets to `rate` bits a second; None removes the bound."""
        for namespace, device in ((self.settings.namespace(host), UPLINK), (self.settings.switch, host)):
            if rate is not None:
                # 4 ms of bytes at once, and no less than one 64 KiB segment; 50 ms in the queue
                burst = str(max(65536, rate // 8 // 250))
                tbf = ("tbf", "rate", f"{rate}bit", "burst", burst, "latency", "50ms")
                run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *tbf)
            elif _devices(namespace, device)[0].get("qdisc") == "tbf":
                run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")

    def through_wire(self, host: str) -> None:
        """Put the wire's two TAP devices between the host's port and the bridge. The wire must be running."""
        switch, cut = self.settings.switch, self.is_cut(host)
        between, near, far = f"{host}-br", f"{host}-near", f"{host}-far"
        if not _devices(switch, between):
            run("ip", "-n", switch, "link", "add", between, "type", "bridge")
        for device, master in ((far, _BRIDGE), (near, between), (host, between)):
            run("ip", "-n", switch, "link", "set", device, "addrgenmode", "none")
            run("ip", "-n", switch, "link", "set", device, "master", master, "up")
        run("ip", "-n", switch, "link", "set", between, "addrgenmode", "none", "up")
        if cut:
            self.cut(host)

    def past_wire(self, host: str) -> None:
        """Join the host's port to the bridge directly."""
        switch, cut = self.settings.switch, self.is_cut(host)
        port = _devices(switch, host)[0]
        if port.get("master") != _BRIDGE:
            run("ip", "-n", switch, "link", "set", host, "master", _BRIDGE)
        if _devices(switch, f"{host}-br"):
            run("ip", "-n", switch, "link", "del", f"{host}-br")
        if cut:
            self.cut(host)

    def cut(self, host: str) -> None:
        """Drop every frame from and to the host."""
        run("bridge", "-n", self.settings.switch, "link", "set", "dev", host, "state", _DISABLED)

    def heal(self, host: str) -> None:
        run("bridge", "-n", self.settings.switch, "link", "set", "dev", host, "state", _FORWARDING)

    def is_cut(self, host: str) -> bool:
        ports: list[dict[str, Any]] = json.loads(run("bridge", "-n", self.settings.switch, "-j", "link", "show"))
        return any(port["ifname"] == host and port["state"] == "disabled" for port in ports)

    def counters(self, host: str) -> Counters:
        """Bytes the host has sent to and got from its uplink."""
        found = _devices(self.settings.namespace(host), UPLINK)
        if not found:
            raise LabError(f"{host} has no uplink in lab {self.settings.name}: run `novacron lab up`")
        stats = found[0]["stats64"]
        return Counters(tx_bytes=int(stats["tx"]["bytes"]), rx_bytes=int(stats["rx"]["bytes"]))

    def namespaces(self) -> list[str]:
        """Names of all network namespaces this lab has on the machine."""
        folder, prefix = Path("/run/netns"), f"nc-{self.settings.name}-"
        return sorted(entry.name for entry in folder.glob(f"{prefix}*")) if folder.is_dir() else []

    def remove(self) -> None:
        """Remove every namespace; processes inside must have ended, or it lives on without a name."""
        for namespace in self.namespaces():
            run("ip", "netns", "del", namespace)


def _usable(namespace: str) -> bool:
    """The name stands for a namespace, rather than for the empty file that a lost mount leaves."""
    try:
        run("ip", "-n", namespace, "link", "show", "lo")
    except LabError:
        return False
    return True


def _remake(namespace: str) -> None:
    if Path("/run/netns", namespace).exists():
        run("ip", "netns", "del", namespace)
    run("ip", "netns", "add", namespace)


def _devices(namespace: str, device: str) -> list[dict[str, Any]]:
    """The device of this name as `ip` describes it; empty when there is none."""
    found: list[dict[str, Any]] = json.loads(run("ip", "-n", namespace, "-j", "-s", "link", "show"))
    return [entry for entry in found if entry.get("ifname") == device]
