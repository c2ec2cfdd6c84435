"""One end of the data path as seen from the host's worker: start it or find it, wait until it is ready, stop it.

The process belongs to nobody: it is found again through its folder, so a worker may come and go. It is stopped in three
steps, each only if the one before did not do: asked through its control socket, ended by signal, killed. A signal goes
only to a process that is proved to be this data path: its command line names this folder's configuration, and it
lives in our mount namespace, where that path means this folder.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

from pydantic import ValidationError
from temporalio import activity

from activities import errors
from activities.folder import Folder
from activities.heartbeat import wait
from dwcp import control, process
from dwcp.errors import ControlFailed, NotRunning
from dwcp.local import PROBE
from models import failures
from models.datapath import DataPathConfig, DataPathStatus, Service
from models.host import HostSettings
from models.migration import Endpoint, LimitPath, OpenPath, PathLimit
from models.store import StoreUse

logger = logging.getLogger(__name__)

LISTENING_WITHIN = 20.0
CONNECTED_WITHIN = 30.0
STOPPED_WITHIN = 15.0
"""Time for an orderly goodbye to the peer."""
ENDED_WITHIN = 5.0
"""Time after a signal."""
PROBE_LIFETIME = 60.0
"""A probe that nobody closes ends by itself after so many seconds."""


def configuration(settings: HostSettings, order: OpenPath, folder: Folder) -> DataPathConfig:
    """Source: its service paths are listened on, and libvirt and QEMU connect to them. Destination: they are dialled;
    there QEMU itself listens at ram.sock and nbd.sock, and virt leads to this host's libvirtd."""
    source = order.endpoint is not None
    policy = order.policy
    if policy.protection == "none" and not settings.trusted_network:
        raise errors.final(
            failures.REFUSED,
            f"protection: none was asked for, and the settings of {settings.host} do not trust its migration network. "
            f"Use protection tls, or set trusted_network on both hosts if nobody else can listen there",
        )
    virt = folder.socket("virt") if source else settings.libvirt_socket
    carried = (
        Service(name="ram", path=folder.socket("ram")),
        Service(name="virt", path=virt),
        Service(name="nbd", path=folder.socket("nbd")),
    )
    config = DataPathConfig(
        role="source" if source else "destination",
        migration_id=order.migration_id,
        peer_name=order.peer,
        address=order.endpoint.address if order.endpoint else settings.migration_address,
        port=order.endpoint.port if order.endpoint else 0,
        port_range=settings.port_range,
        services=carried,
        tls=settings.tls,
        more_addresses=order.endpoint.more_addresses if order.endpoint else settings.more_migration_addresses,
        lanes=policy.lanes,
        max_lanes=max(policy.lanes, policy.max_lanes),
        rate_limit=policy.wire_mib << 20,
        protection=policy.protection,
        rdma=policy.rdma,
        codec=policy.codec,
        page_memory_mib=policy.page_memory_mib,
        store=_store(settings, order),
        resume_within=policy.resume_within,
        owner_token=order.vm.token if order.vm else 0,
        vm=order.vm.uuid if order.vm else None,
    )
    return _probing(config, folder) if order.probe else config


def _probing(config: DataPathConfig, folder: Folder) -> DataPathConfig:
    """The same path, for test bytes alone: nothing of this host can be reached over it, and it does not last."""
    return config.model_copy(
        update={
            "services": (Service(name=PROBE, path=folder.socket(PROBE)),),
            "codec": "raw",
            "page_memory_mib": 0,
            "store": None,
            "resume_within": 5,
            "open_within": PROBE_LIFETIME / 2,
            "linger": PROBE_LIFETIME / 2,
            "lifetime": PROBE_LIFETIME,
        }
    )


def _store(settings: HostSettings, order: OpenPath) -> StoreUse | None:
    """What the process may do with this host's store: nothing, unless policy and host both have one."""
    policy, uuid = order.policy, order.vm.uuid if order.vm else None
    if not (policy.store and settings.store.limit_mib and uuid):
        return None
    return StoreUse(settings=settings.store, vm=uuid, tenant=policy.tenant, scope=policy.store_scope)


def launcher(settings: HostSettings) -> tuple[str, ...]:
    """What puts the process into the network namespace that holds the migration network, if it has one."""
    if settings.migration_namespace is None:
        return ()
    return ("nsenter", f"--net=/run/netns/{settings.migration_namespace}", "--")


def open_end(settings: HostSettings, order: OpenPath, qemu_group: int | None = None) -> Endpoint:
    """Start or find this host's end, wait until it listens (destination) or is connected (source)."""
    folder = Folder.of(settings, order.migration_id)
    folder.make(qemu_group)
    wanted = configuration(settings, order, folder)
    if not _running(folder, wanted):
        logger.info("%s: starting the %s's end of the data path", order.migration_id, wanted.role)
        process.spawn(wanted, folder.path, launcher=launcher(settings))
    ready = _listening if wanted.role == "destination" else _connected
    status = wait(
        f"opening the data path {order.migration_id}",
        lambda: ready(folder),
        LISTENING_WITHIN if wanted.role == "destination" else CONNECTED_WITHIN,
        lambda: _late(folder, wanted),
    )
    return order.endpoint or Endpoint(
        address=settings.migration_address, port=status.port, more_addresses=settings.more_migration_addresses
    )


def _running(folder: Folder, wanted: DataPathConfig) -> bool:
    """Does a process with this very configuration live here? One with another is of an attempt that was given up."""
    try:
        control.status(folder.path)
    except NotRunning:
        return False
    try:
        found = DataPathConfig.model_validate_json(folder.config.read_bytes())
    except (FileNotFoundError, ValidationError):
        found = None
    if found == wanted:
        return True
    if folder.started() is not None:
        raise errors.final(
            failures.DATA_PATH_FAILED,
            f"the data path in {folder.path} runs with another configuration, and a move has started over it; "
            f"it was left alone. Wait for that move to end, or stop it with novacron cancel",
        )
    stop(folder)
    return False


def limit(settings: HostSettings, order: LimitPath) -> PathLimit:
    """Change the bound of a path that lives here."""
    folder = Folder.of(settings, order.migration_id)
    try:
        return PathLimit(bytes_per_second=control.limit(folder.path, order.bytes_per_second).rate_limit)
    except NotRunning as error:
        raise errors.final(
            failures.NOT_FOUND, f"no data path of migration {order.migration_id} runs on {settings.host}: {error}"
        ) from error


def _listening(folder: Folder) -> DataPathStatus | None:
    status = _status(folder)
    return status if status is not None and status.port else None


def _connected(folder: Folder) -> DataPathStatus | None:
    status = _status(folder)
    return status if status is not None and status.state in ("connected", "link-lost") else None


def _status(folder: Folder) -> DataPathStatus | None:
    """None while the process is too busy to answer; raises when it has failed or ended."""
    try:
        status = control.status(folder.path)
    except NotRunning as error:
        raise errors.retryable(
            failures.DATA_PATH_FAILED, f"the data path process in {folder.path} ended: {error}. Its log: {folder.log}"
        ) from error
    except ControlFailed as error:
        logger.warning("%s", error)
        return None
    if status.state in ("failed", "closed"):
        raise errors.final(
            failures.DATA_PATH_FAILED,
            f"the {status.role}'s end of the data path {status.state}: {status.error or 'it gave no reason'}. "
            f"Its log: {folder.log}",
        )
    return status


def _late(folder: Folder, wanted: DataPathConfig) -> Exception:
    if wanted.role == "destination":
        what = f"does not listen at {wanted.address} after {LISTENING_WITHIN:.0f} s"
        remedy = "Check migration_address and port_range in this host's settings"
    else:
        what = f"has not reached {wanted.peer_name} at {wanted.address}:{wanted.port} in {CONNECTED_WITHIN:.0f} s"
        remedy = "Check the migration network and its firewall between the two hosts"
    return errors.final(
        failures.DATA_PATH_FAILED, f"the data path {wanted.migration_id} {what}. {remedy}. Its log: {folder.log}"
    )


def close_end(settings: HostSettings, migration_id: str) -> DataPathStatus | None:
    """Stop this host's end and remove its folder; its last status, or None when there was none."""
    folder = Folder.of(settings, migration_id)
    last = stop(folder)
    folder.remove()
    return last


def stop(folder: Folder) -> DataPathStatus | None:
    """Returns when no data path lives on this folder: its last status, or None when it had none to give."""
    try:
        return control.stop(folder.path, timeout=STOPPED_WITHIN)
    except NotRunning:
        return None
    except ControlFailed as error:
        logger.warning("%s: %s", folder.path.name, error)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes(folder):
            logger.warning("%s: sending %s to data path process %d", folder.path.name, number.name, pid)
            _send(pid, number, folder)
        if _ended(folder):
            return None
    raise errors.retryable(
        failures.DATA_PATH_FAILED,
        f"data path process {processes(folder)} of {folder.path} survives SIGKILL. Look at /proc/PID/stack",
    )


def processes(folder: Folder) -> list[int]:
    """Every process that is a data path of this very folder."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_ours(entry, folder)]


def _is_ours(entry: Path, folder: Folder) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        same_mounts = (entry / "ns" / "mnt").stat().st_ino == Path("/proc/self/ns/mnt").stat().st_ino
    except OSError:
        return False  # it has just ended, or belongs to someone else
    return b"dwcp" in words and os.fsencode(folder.config) in words and same_mounts


def _send(pid: int, number: signal.Signals, folder: Folder) -> None:
    """Through a pidfd that is checked after it was opened: a pid that was used again is never hit."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _is_ours(Path(f"/proc/{pid}"), folder):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _ended(folder: Folder) -> bool:
    """Beats while it waits. A stop is not cut short by a cancel: it is what a cancel leads to."""
    deadline = time.monotonic() + ENDED_WITHIN
    while control.is_running(folder.path):
        if time.monotonic() > deadline:
            return False
        activity.heartbeat()
        time.sleep(0.1)
    return True
