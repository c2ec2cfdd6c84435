"""What is around the VM on its host, and what the two hosts need to talk: networks, certificates, room."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from clouds.kvm.facts import HostFacts
from models.host import HostStanding, VmSheet

EXPIRES_SOON = timedelta(days=7)
STATE_ROOM_MIB = 16
"""For the sockets, settings and log of a data path."""


def network_trusted(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.protection != "none":
        return ""
    wary = [
        host
        for host, trusts in ((sheet.host, sheet.trusted_network), (facts.report.host, facts.trusted_network))
        if not trusts
    ]
    return (
        f"protection none was asked for, and the settings of {' and '.join(wary)} do not trust the network"
        if wary
        else ""
    )


def networks_there(sheet: VmSheet, facts: HostFacts) -> str:
    missing = []
    for interface in sheet.interfaces:
        name = f"interface {interface.mac}" if interface.mac else "an interface"
        if interface.kind == "network" and interface.source not in facts.networks:
            missing.append(f"{name} needs the libvirt network {interface.source!r}, which is not active")
        elif interface.kind in ("bridge", "direct") and interface.source not in facts.devices:
            missing.append(f"{name} needs {interface.kind} device {interface.source!r}, which does not exist")
    return f"on {facts.report.host}: {'; '.join(missing)}" if missing else ""


def nothing_of_the_host(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.host_devices:
        return f"{sheet.vm.name} holds devices of {sheet.host}: {'; '.join(sheet.host_devices)}"
    return ""


def tpm_moves(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.tpm == "passthrough":
        return f"{sheet.vm.name} uses the TPM chip of {sheet.host}"
    if sheet.tpm and sheet.tpm not in facts.tpm_backends:
        return f"{sheet.vm.name} has a TPM of backend {sheet.tpm}, which {facts.report.host} does not offer"
    return ""


def certificates_valid(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.protection != "tls":
        return ""
    return "; ".join(
        f"the data path certificate of {each.host}: {each.certificate_error}"
        for each in _both(sheet, facts)
        if each.certificate_error
    )


def certificates_last(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.protection != "tls":
        return ""
    return "; ".join(
        f"the data path certificate of {each.host} expires at {each.certificate_expires.isoformat(timespec='minutes')}"
        for each in _both(sheet, facts)
        if each.certificate_expires
        and not each.certificate_error
        and each.certificate_expires - facts.now < EXPIRES_SOON
    )


def state_has_room(sheet: VmSheet, facts: HostFacts) -> str:
    return "; ".join(
        f"{each.host} has {each.state_free_mib} MiB free for the data path's sockets and log"
        for each in _both(sheet, facts)
        if each.state_free_mib is not None and each.state_free_mib < STATE_ROOM_MIB
    )


def store_has_room(sheet: VmSheet, facts: HostFacts) -> str:
    if not sheet.policy.store:
        return ""
    return "; ".join(
        f"{each.host} has {each.store_free_mib} MiB free where its content store lies, which leaves "
        f"{each.store_leaves_mib} MiB alone: nothing will be kept there for the next move"
        for each in _both(sheet, facts)
        if each.store_free_mib is not None and each.store_free_mib <= each.store_leaves_mib
    )


def _both(sheet: VmSheet, facts: HostFacts) -> Iterator[HostStanding]:
    return (each for each in (sheet.standing, facts.standing) if each is not None)
