"""What a scale run stands on: a Temporal server of its own, control workers in processes of their own, and a watch over
what all of them cost. Everything is ended and removed afterwards.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from dwcp.consensus import open_store
from models import queues
from models.host import SiteSettings
from models.lease import Lease, LeaseQuery, LeaseSettings
from workers.lab import temporal
from workflows.plugin import plugin

DYNAMIC_CONFIG = {
    **temporal.DYNAMIC_CONFIG,
    # as in deploy/dynamicconfig; with it the server keeps every queue twice
    "matching.enableFairness": "false",
    # default 1200 open polls a namespace and frontend: with two polls a host, 600 hosts would be the end
    "frontend.namespaceCount": "10000",
}
READY_WITHIN = 60.0
ENDS_WITHIN = 30.0
LOOK_EVERY = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """Of one kind of process: peak of resident memory, and CPU seconds so far."""

    peak_mib: int = 0
    cpu_seconds: float = 0.0


@dataclass
class Ground:
    client: Client
    folder: Path
    pids: dict[str, list[int]] = field(default_factory=dict)
    """Process ids by what they are: server, control, hosts."""
    costs: dict[str, Cost] = field(default_factory=dict)

    def look(self) -> dict[str, Cost]:
        """Costs as they are now; the peaks are kept."""
        for what, pids in self.pids.items():
            cost = self.costs.setdefault(what, Cost())
            cost.peak_mib = max(cost.peak_mib, sum(_resident_mib(pid) for pid in pids))
            cost.cpu_seconds = sum(_cpu_seconds(pid) for pid in pids)
        return {what: Cost(cost.peak_mib, cost.cpu_seconds) for what, cost in self.costs.items()}

    def leases(self, site: str) -> Iterator[Lease]:
        """The owner records, as the control workers keep them."""
        store = open_store(LeaseSettings(file=str(self.folder / "leases.db")), {})
        page = store.list(LeaseQuery(site=site))
        yield from page.leases
        while page.more:
            page = store.list(LeaseQuery(site=site, after=page.leases[-1].uuid))
            yield from page.leases

    def database_mib(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("temporal.db*")) >> 20


class GroundError(Exception):
    """A process of the bench did not start, or ended too early."""


@asynccontextmanager
async def ground(site: str, hosts: Sequence[str], control_workers: int = 1) -> AsyncIterator[Ground]:
    """A server and control workers for this site. Raises GroundError."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="novacron-scale-")))
        port = _free_port()
        server = await _started(stack, folder / "server.log", _server(folder, port))
        client = await _client(f"127.0.0.1:{port}", server, folder)
        made = Ground(client, folder, {"server": [server.pid], "control": [], "hosts": [os.getpid()]})
        settings = folder / "site.json"
        leases = LeaseSettings(file=str(folder / "leases.db"))
        settings.write_text(SiteSettings(site=site, hosts=tuple(hosts), leases=leases).model_dump_json())
        words = [sys.executable, "-m", "workers.control", "--settings", str(settings), "--log-level", "WARNING"]
        environment = {"TEMPORAL_ADDRESS": f"127.0.0.1:{port}", "TEMPORAL_NAMESPACE": "default"}
        for number in range(control_workers):
            worker = await _started(stack, folder / f"control-{number}.log", words, environment)
            made.pids["control"].append(worker.pid)
        await _polling(client, queues.control(site), control_workers)
        watch = asyncio.create_task(_watch(made))
        try:
            yield made
        finally:
            watch.cancel()


def _server(folder: Path, port: int) -> list[str]:
    words = [str(temporal.binary()), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    words += ["--log-level", "error", "--db-filename", str(folder / "temporal.db")]
    words += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
    for name, kind in temporal.SEARCH_ATTRIBUTES.items():
        words += ["--search-attribute", f"{name}={kind}"]
    for key, value in DYNAMIC_CONFIG.items():
        words += ["--dynamic-config-value", f"{key}={value}"]
    return words


async def _started(
    stack: AsyncExitStack, log: Path, words: Sequence[str], environment: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    output = stack.enter_context(log.open("wb"))
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, **(environment or {})},
        cwd=Path(__file__).parent.parent,
        start_new_session=True,  # a Ctrl-C is for this process, which then ends the others in order
    )
    stack.push_async_callback(_end, process)
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), ENDS_WITHIN)
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _client(address: str, server: asyncio.subprocess.Process, folder: Path) -> Client:
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    while True:
        try:
            return await Client.connect(address, plugins=[plugin()])
        except RuntimeError as error:
            if server.returncode is not None or asyncio.get_running_loop().time() > deadline:
                said = (folder / "server.log").read_text()[-2000:]
                raise GroundError(
                    f"the Temporal server at {address} does not answer: {error}. It said: {said}"
                ) from error
            await asyncio.sleep(0.1)


async def _polling(client: Client, queue: str, workers: int) -> None:
    """Until so many control workers ask for work."""
    question = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    while len((await client.workflow_service.describe_task_queue(question)).pollers) < workers:
        if asyncio.get_running_loop().time() > deadline:
            raise GroundError(f"no {workers} control workers poll {queue!r} after {READY_WITHIN:.0f} s")
        await asyncio.sleep(0.1)


async def _watch(made: Ground) -> None:
    while True:
        made.look()
        await asyncio.sleep(LOOK_EVERY)


def _resident_mib(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) >> 10
    return 0


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS
    return 0.0


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])
