"""The Python client. Connects as Temporal's own tools do; every wait can be left, the move goes on without us."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import platform
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from models import ids, queues
from models.base import Name
from models.decisions import Story
from models.host import InventoryRequest, SiteReport, VmReport
from models.migration import MigrateRequest, MigrationOutcome, MigrationPolicy, Progress
from models.planning import LabelReport, Plan, PlanRequest
from novacron import connection, errors, watch
from workflows import request
from workflows import search_attributes as sa
from workflows.fleet import convoy
from workflows.move.migrate_vm import MigrateVm
from workflows.plan.label_vm import LabelVm
from workflows.plan.plan_move import PlanMove
from workflows.site.inventory import Inventory

Watcher = Callable[[Progress], None]
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_STEERED_WITHIN = timedelta(seconds=90)
_EXPLAINED_WITHIN = timedelta(seconds=20)
_INVENTORY_WITHIN = timedelta(minutes=5)


class Migration:
    """One run of MigrateVm, running or ended."""

    def __init__(self, client: Client, handle: WorkflowHandle[MigrateVm, MigrationOutcome]) -> None:
        self._client = client
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def run_id(self) -> str | None:
        return self._handle.result_run_id or self._handle.run_id

    async def result(self, watch: Watcher | None = None) -> MigrationOutcome:
        """Wait for the end; `watch` is called with each Progress meanwhile. Raises one of novacron.errors."""
        with our_errors(self.id):
            last = Progress()
            if watch is not None:
                async for last in self.follow():
                    watch(last)
            outcome = await self._outcome()
            if watch is not None:
                watch(
                    last.model_copy(
                        update={
                            "phase": "done",
                            "percent": 100.0,
                            "eta": None,
                            "eta_low": None,
                            "eta_high": None,
                            "memory_remaining": 0,
                        }
                    )
                )
            return outcome

    def follow(self, every: float = watch.EVERY) -> AsyncIterator[Progress]:
        """Progress, until the run has ended."""
        return watch.follow(self._client, self._handle, every)

    async def cancel(self, reason: str = "") -> str:
        """Ask to stop; returns what happens now. Refused past the point of no return."""
        with our_errors(self.id):
            return await self._handle.execute_update(
                MigrateVm.cancel, reason, id=uuid4().hex, rpc_timeout=timedelta(seconds=30)
            )

    async def start_now(self) -> str:
        """Do not wait for a window of the policy. Refused when the move does not."""
        return await self._steer("start_now")

    async def limit(self, mib: int) -> str:
        """Bound what the move puts on the link to MiB a second; 0: no bound. Refused when nothing crosses any more."""
        return await self._steer("set_bandwidth", mib)

    async def post_copy_now(self) -> str:
        """Let the VM switch before all of its memory is across. Refused in mode pre-copy, and when it has switched."""
        return await self._steer("post_copy_now")

    async def set_policy(self, **changes: Any) -> str:
        """Change goals while it runs: finish_within (s), finish_by (ISO 8601), max_downtime_ms, max_slowdown (%),
        allow_post_copy, allow_pause, bandwidth_mib, wire_mib. All of them, or none with the reason."""
        return await self._steer("set_policy", changes)

    async def pause(self, seconds: float = 600) -> str:
        """Let nothing cross the link for `seconds` at most; the guest runs on at its source, the deadline goes on."""
        return await self._steer("pause", seconds)

    async def resume(self) -> str:
        """Let a paused move go on. Refused when it is not paused."""
        return await self._steer("resume")

    async def explain(self) -> Story:
        """Phases, decisions and goals; of an ended run too, as long as Temporal keeps it and a control worker runs."""
        with our_errors(self.id):
            try:
                told: Story = await self._handle.query("decisions", result_type=Story, rpc_timeout=_EXPLAINED_WITHIN)
            except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
                raise errors.Unreachable(
                    f"{self.id}: no control worker could tell: {error}", "Is the control worker running? Ask again."
                ) from error
            return told

    async def _steer(self, update: str, *args: Any) -> str:
        with our_errors(self.id):
            answer: str = await self._handle.execute_update(
                update, args=args, id=uuid4().hex, result_type=str, rpc_timeout=_STEERED_WITHIN
            )
            return answer

    async def _outcome(self) -> MigrationOutcome:
        """A restart of Temporal does not end the wait."""
        loop = asyncio.get_running_loop()
        lost: float | None = None
        while True:
            try:
                return await self._handle.result()
            except RPCError as error:
                lost = lost or loop.time()
                if error.status != RPCStatusCode.UNAVAILABLE or loop.time() - lost > watch.PATIENCE:
                    raise
                await asyncio.sleep(1)


class NovaCron:
    """One site, through one Temporal. Make it with `connect`."""

    def __init__(self, client: Client, site: str) -> None:
        self.client = client
        self.site = site

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, profile: str | None = None, site: str | None = None) -> AsyncIterator[NovaCron]:
        """`profile` of Temporal's configuration file (None: TEMPORAL_PROFILE, else default); `site` is NOVACRON_SITE,
        else `lab`, when None. Raises InvalidInput, Unreachable."""
        chosen = site or os.environ.get("NOVACRON_SITE") or "lab"
        check_name("site", chosen)
        yield cls(await connection.connect(profile), chosen)

    async def migrate(
        self,
        vm: str,
        to: str,
        *,
        source: str | None = None,
        policy: MigrationPolicy | None = None,
        policy_name: str | None = None,
        watch: Watcher | None = None,
    ) -> MigrationOutcome:
        """Move `vm` to host `to` and wait until it runs there. Fields that `policy` was given go over the site's policy
        of that name, or for the VM's labels."""
        move = await self.start(vm, to, source=source, policy=policy, policy_name=policy_name)
        return await move.result(watch)

    async def start(
        self,
        vm: str,
        to: str,
        *,
        source: str | None = None,
        policy: MigrationPolicy | None = None,
        policy_name: str | None = None,
    ) -> Migration:
        """Start the move and return at once. Raises AlreadyMoving when a run holds the VM's lock."""
        wanted = wish(vm, to, source=source, policy=policy, policy_name=policy_name)
        with our_errors(vm):
            queue = queues.control(self.site)
            await connection.require_control_worker(self.client, self.site, queue)
            handle = await self.client.start_workflow(
                MigrateVm.run,
                wanted.model_dump(mode="json"),
                id=ids.migrate_vm(self.site, vm),
                task_queue=queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                priority=convoy.priority(wanted.policy),
                static_summary=f"{vm}: {source} → {to}" if source else f"{vm} → {to}",
                static_details=f"Asked by {initiator()}. Wish: {wanted.model_dump_json(exclude_none=True)}",
                search_attributes=self._attributes(wanted),
            )
        return Migration(self.client, handle)

    async def plan(
        self,
        vm: str,
        to: str,
        *,
        source: str | None = None,
        policy: MigrationPolicy | None = None,
        policy_name: str | None = None,
        measure: bool = True,
    ) -> Plan:
        """What moving `vm` to host `to` would meet and cost, without starting it. Blocked is a plan too."""
        wanted = wish(vm, to, source=source, policy=policy, policy_name=policy_name)
        order = PlanRequest.model_validate({**wanted.model_dump(), "measure": measure})
        made: Plan = await self._ask(
            PlanMove.run, order.model_dump(mode="json"), ids.plan(self.site, uuid4().hex[:12]), f"plan {vm} → {to}"
        )
        return made

    async def label(
        self, vm: str, give: Mapping[str, str] | None = None, take: Sequence[str] = (), *, source: str | None = None
    ) -> LabelReport:
        """Give the VM labels, take others off; all it has then."""
        raw = {"vm": vm, "give": dict(give or {}), "take": list(take), "source": source}
        with our_errors(vm):
            order = request.read_label(raw)
        found: LabelReport = await self._ask(
            LabelVm.run, order.model_dump(mode="json"), ids.label(self.site, vm), f"label {vm}"
        )
        return found

    async def _ask(self, run: Any, order: dict[str, Any], id: str, summary: str) -> Any:
        """A short workflow of this site, from start to result."""
        queue = queues.control(self.site)
        with our_errors(id):
            await connection.require_control_worker(self.client, self.site, queue)
            return await self.client.execute_workflow(
                run,
                order,
                id=id,
                task_queue=queue,
                execution_timeout=_INVENTORY_WITHIN,
                static_summary=summary,
            )

    def migration(self, vm_or_id: str, run_id: str | None = None) -> Migration:
        """A run by VM name or workflow id; the newest one without `run_id`."""
        full = workflow_id(self.site, vm_or_id)
        return Migration(self.client, self.client.get_workflow_handle_for(MigrateVm.run, full, run_id=run_id))

    async def hosts(self) -> SiteReport:
        """Every host of the site with its VMs; the silent ones are named. A large site takes several runs."""
        queue = queues.control(self.site)
        with our_errors(self.site):
            await connection.require_control_worker(self.client, self.site, queue)
            report = await self._inventory(queue, InventoryRequest())
            while report.rest:
                more = await self._inventory(queue, InventoryRequest(hosts=report.rest))
                both = {"hosts": (*report.hosts, *more.hosts), "silent": report.silent | more.silent}
                report = more.model_copy(update=both)
        return report

    async def _inventory(self, queue: str, wanted: InventoryRequest) -> SiteReport:
        return await self.client.execute_workflow(
            Inventory.run,
            wanted.model_dump(mode="json"),
            id=ids.inventory(self.site, uuid4().hex[:12]),
            task_queue=queue,
            execution_timeout=_INVENTORY_WITHIN,
            static_summary=f"what runs where on {self.site}",
        )

    async def vms(self) -> list[tuple[str, VmReport]]:
        """(host, VM), by VM name. A silent host's VMs are not in it: see `hosts`."""
        report = await self.hosts()
        found = [(host.host, vm) for host in report.hosts for vm in host.vms]
        return sorted(found, key=lambda pair: (pair[1].name, pair[0]))

    def _attributes(self, wanted: MigrateRequest) -> TypedSearchAttributes:
        hosts = [wanted.source, wanted.to] if wanted.source else [wanted.to]
        return TypedSearchAttributes(
            [
                SearchAttributePair(sa.VM_ID, wanted.vm),
                SearchAttributePair(sa.SITE, self.site),
                SearchAttributePair(sa.HOST_IDS, hosts),
                SearchAttributePair(sa.PHASE, "checking"),
                SearchAttributePair(sa.INITIATOR, initiator()),
            ]
        )


def wish(
    vm: str,
    to: str,
    *,
    source: str | None = None,
    policy: MigrationPolicy | None = None,
    policy_name: str | None = None,
) -> MigrateRequest:
    """The request, checked without asking anyone. InvalidInput names the field."""
    given = policy.model_dump(exclude_unset=True) if policy else {}
    with our_errors(vm):
        return request.read({"vm": vm, "to": to, "source": source, "policy": given, "policy_name": policy_name})


def workflow_id(site: str, vm_or_id: str) -> str:
    """Id of the workflow that moves this VM; an id passes through."""
    if "/" not in vm_or_id:
        check_name("vm", vm_or_id)
        return ids.migrate_vm(site, vm_or_id)
    if ids.parse_migrate_vm(vm_or_id) is None:
        raise errors.InvalidInput(f"id: got {vm_or_id!r}", "Give a VM's name, or an id as vm/<site>/<vm>.")
    return vm_or_id


@contextlib.contextmanager
def our_errors(what: str) -> Iterator[None]:
    """Everything Temporal may raise, as one of novacron.errors."""
    try:
        yield
    except WorkflowAlreadyStartedError as error:
        raise errors.AlreadyMoving(error.workflow_id, error.run_id) from None
    except WorkflowFailureError as error:
        raise errors.from_workflow(error) from error
    except WorkflowUpdateFailedError as error:
        raise errors.from_update(error) from error
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        raise errors.Unreachable(
            f"{what}: no control worker took the request in time", "Is the control worker running? Ask again."
        ) from error
    except ApplicationError as error:
        raise errors.InvalidInput(error.message) from None
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise errors.NoSuchRun(what, error.message) from error
        raise connection.from_rpc(error) from error


def check_name(field: str, value: str) -> None:
    try:
        _NAME.validate_python(value)
    except ValidationError:
        raise errors.InvalidInput(
            f"{field}: got {value!r}", "Use letters, digits, dot, underscore and dash; 63 characters at most."
        ) from None


def initiator() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"
