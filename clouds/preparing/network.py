"""Network by DHCP on whatever card there is: neither the card's address nor its name goes along.

Each way of setting up a network is a row of `WAYS`: which files it has, what in them is not understood or set by hand,
and what takes their place. What is not understood is refused, never thrown away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clouds.preparing.guest import Guest
from clouds.preparing.steps import Answer, Noted, Refuse, Remove, Write
from clouds.preparing.targets import Target

_REMEDY = "Allow DHCP instead (--dhcp), and give the instance its address in the cloud; or change it in the guest."
_NAMES = (
    "etc/udev/rules.d/*persistent-net*.rules",
    "etc/udev/rules.d/*-net-setup-link.rules",
    "etc/systemd/network/*.link",
)


@dataclass(frozen=True)
class Trouble:
    """Why a file cannot give way to DHCP."""

    by_hand: bool
    """An address set by hand: may be allowed. Else it is more than we understand."""
    what: str


@dataclass(frozen=True)
class Way:
    name: str
    files: tuple[str, ...]
    read: Callable[[str], Iterator[Trouble]]
    ours: str
    """The file that takes the place of them all ..."""
    text: str
    """... and what it says."""
    mode: int = 0o644
    keep: Callable[[str, str], bool] = lambda path, text: False
    """Files of it that have nothing to do with cards."""


def forget_names(guest: Guest, target: Target) -> Iterator[Answer]:
    """Names given to cards by their addresses: the new card has another address, and would get another name."""
    for pattern in _NAMES:
        for path, text in guest.match(pattern):
            if re.search(r"ATTR\{address\}|^[ \t]*(Permanent)?MACAddress[ \t]*=", text, re.MULTILINE):
                yield Remove("network names", path, "names a card by its address")


def network_rule(dhcp: bool) -> Callable[[Guest, Target], Iterator[Answer]]:
    """`dhcp`: addresses set by hand give way."""

    def use_dhcp(guest: Guest, target: Target) -> Iterator[Answer]:
        seen = False
        for way in WAYS:
            for pattern in way.files:
                for path in guest.match_links(pattern):
                    yield Refuse("network", f"{path} is a link", "Put the file itself in its place, in the guest.")
            files = [each for pattern in way.files for each in guest.match(pattern) if not way.keep(*each)]
            seen |= bool(files)
            if files and files != [(way.ours, way.text)]:
                yield from _replace(way, files, dhcp)
        if not seen and not guest.has("usr/bin/cloud-init"):
            yield Noted("no network is set up in any way known here: it is left as it is")

    return use_dhcp


def _replace(way: Way, files: list[tuple[str, str]], dhcp: bool) -> Iterator[Answer]:
    found = [(path, trouble) for path, text in files for trouble in way.read(text)]
    refused = [(path, trouble) for path, trouble in found if not (trouble.by_hand and dhcp)]
    for path, trouble in refused:
        remedy = _REMEDY if trouble.by_hand else "Bring it to plain Ethernet by DHCP in the guest, before it moves."
        yield Refuse("network", f"{path}: {trouble.what}", remedy)
    if refused:
        return
    for path, text in files:
        if path != way.ours:
            yield Remove("network", path, _line(text))
    before = next((_line(text) for path, text in files if path == way.ours), "-")
    if (way.ours, way.text) not in files:
        yield Write("network", way.ours, way.text, before, f"{way.name}: DHCP", way.mode)


def _line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("#"))[:200] or "-"


def _read_interfaces(text: str) -> Iterator[Trouble]:
    """ifupdown."""
    for line in text.splitlines():
        match line.split():
            case ["iface", name, "inet" | "inet6", "static", *_]:
                yield Trouble(True, f"{name} has an address set by hand")
            case ["iface", "lo", _, "loopback"] | ["iface", _, "inet", "dhcp"] | ["iface", _, "inet6", "auto" | "dhcp"]:
                pass
            case ["iface", name, *_]:
                yield Trouble(False, f"{name}: only DHCP is understood")
            case [word, *_] if re.match(r"(bond|bridge|vlan|wpa|wireless|up|down|pre-|post-|mapping)", word):
                yield Trouble(False, f"`{word}`: more than a plain card")


_LINE = 1000
"""Longer lines are no settings, and looking through them takes time."""
_PLAIN_KEYS = """
    network version renderer ethernets dhcp4 dhcp6 match macaddress set-name name driver optional accept-ra critical
    dhcp-identifier dhcp4-overrides dhcp6-overrides link-local nameservers search mtu wakeonlan ipv6-privacy
    use-dns use-domains use-routes route-metric use-hostname send-hostname use-mtu use-ntp
"""
_BY_HAND_KEYS = frozenset({"addresses", "gateway4", "gateway6", "routes", "to", "via", "from", "metric", "on-link"})


def _read_netplan(text: str) -> Iterator[Trouble]:
    """By its keys, not its values: YAML's many ways to write a list do not matter then."""
    within: list[tuple[int, str]] = []
    for line in text.splitlines():
        if len(line) > _LINE:
            yield Trouble(False, f"a line of {len(line)} characters")
            continue
        plain = re.sub(r"(^|\s)#.*", "", line)
        for found in re.finditer(r"(?:^|[{,\s-])[\"']?([A-Za-z0-9_.-]+)[\"']?\s*:(?=\s|$)", plain):
            key, depth = found[1], found.start(1)
            while within and within[-1][0] >= depth:
                within.pop()
            above = [name for _, name in within]
            within.append((depth, key))
            if key in _PLAIN_KEYS.split() or above[-1:] == ["ethernets"] or "nameservers" in above:
                continue
            if key in _BY_HAND_KEYS:
                if key in ("addresses", "gateway4", "gateway6", "routes"):
                    yield Trouble(True, f"`{key}` set by hand")
            else:
                yield Trouble(False, f"`{key}`: more than plain cards")


def _read_network(text: str) -> Iterator[Trouble]:
    """systemd-networkd."""
    section = ""
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
            if section not in (
                "Match",
                "Network",
                "Link",
                "DHCP",
                "DHCPv4",
                "DHCPv6",
                "Address",
                "Route",
                "IPv6AcceptRA",
            ):
                yield Trouble(False, f"[{section}]: more than a plain card")
        key = line.partition("=")[0].strip()
        if section in ("Address", "Network") and key in ("Address", "Gateway"):
            yield Trouble(True, f"{line} set by hand")
        if key in ("Bridge", "Bond", "VLAN", "VRF", "MACVLAN", "IPVLAN", "Tunnel"):
            yield Trouble(False, f"{line}: more than a plain card")


def _read_keyfile(text: str) -> Iterator[Trouble]:
    """NetworkManager."""
    settings = _ini(text)
    if settings.get("connection.type", "ethernet") not in ("ethernet", "802-3-ethernet"):
        yield Trouble(False, f"a connection of type {settings['connection.type'][:40]}")
    if any(key in settings for key in ("connection.master", "connection.controller", "802-1x.eap")):
        yield Trouble(False, "it belongs to a bond or bridge, or signs on by 802.1X")
    if "manual" in (settings.get("ipv4.method"), settings.get("ipv6.method")):
        yield Trouble(True, "an address set by hand")


def _read_ifcfg(text: str) -> Iterator[Trouble]:
    """Red Hat's network scripts."""
    settings = dict(re.findall(r"^([A-Z0-9_]+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    if settings.get("TYPE", "Ethernet") != "Ethernet" or any(key in settings for key in ("MASTER", "BRIDGE", "VLAN")):
        yield Trouble(False, "more than a plain card")
    if any(key.startswith(("IPADDR", "IPV6ADDR")) for key in settings):
        yield Trouble(True, "an address set by hand")


def _ini(text: str) -> dict[str, str]:
    found, section = {}, ""
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[f"{section}.{key.strip()}"] = value.strip()
    return found


_NETPLAN = """\
network:
  version: 2
  ethernets:
    any:
      match:
        name: "e*"
      dhcp4: true
      dhcp6: true
      optional: true
"""
WAYS: tuple[Way, ...] = (
    Way(
        "ifupdown",
        ("etc/network/interfaces", "etc/network/interfaces.d/*"),
        _read_interfaces,
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n",
    ),
    Way("netplan", ("etc/netplan/*.yaml",), _read_netplan, "etc/netplan/50-novacron.yaml", _NETPLAN, 0o600),
    Way(
        "systemd-networkd",
        ("etc/systemd/network/*.network", "etc/systemd/network/*.netdev"),
        _read_network,
        "etc/systemd/network/10-novacron.network",
        "[Match]\nName=e*\n\n[Network]\nDHCP=yes\n",
        0o644,
        lambda path, text: bool(re.search(r"^[ \t]*Name[ \t]*=[ \t]*lo[ \t]*$", text, re.MULTILINE)),
    ),
    Way(
        "NetworkManager",
        ("etc/NetworkManager/system-connections/*",),
        _read_keyfile,
        "etc/NetworkManager/system-connections/novacron.nmconnection",
        "[connection]\nid=novacron\ntype=ethernet\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n",
        0o600,  # it takes no other
        lambda path, text: "type=wifi" in text or "type=loopback" in text,
    ),
    Way(
        "network scripts",
        ("etc/sysconfig/network-scripts/ifcfg-*",),
        _read_ifcfg,
        "etc/sysconfig/network-scripts/ifcfg-eth0",
        "DEVICE=eth0\nTYPE=Ethernet\nBOOTPROTO=dhcp\nONBOOT=yes\n",
        0o644,
        lambda path, text: path.endswith("ifcfg-lo"),
    ),
)
