"""Finds Temporal as its own tools do (profile file, TEMPORAL_* variables); an error says where that led."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfigProfile
from temporalio.service import RPCError, RPCStatusCode

from novacron.errors import InvalidInput, NovaCronError, Unreachable
from workers import traces
from workflows.plugin import plugin

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_WITHIN = 5.0
POLLED_WITHIN = 3.0
RPC_WITHIN = timedelta(seconds=10)


async def connect(profile: str | None = None) -> Client:
    """A client for this profile (None: TEMPORAL_PROFILE, else `default`). A typo in the file is an error."""
    try:
        found = ClientConfigProfile.load(profile=profile, config_file_strict=True)
    except RuntimeError as error:
        raise InvalidInput(f"Temporal's configuration ({config_file()}): {error}", "Correct it.") from error
    config = found.to_client_connect_config()
    config.setdefault("target_host", DEFAULT_ADDRESS)
    address = config["target_host"]
    try:
        plugins = [plugin(), *traces.plugins("novacron")]
    except traces.TracesUnavailable as error:
        raise InvalidInput(str(error), "Or unset it to do without traces.") from error
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            return await Client.connect(**config, plugins=plugins)
    except (RuntimeError, RPCError, TimeoutError) as error:
        raise Unreachable(
            f"Temporal does not answer at {address} (address from {_origin(found, profile)}): {_reason(error)}",
            "Is it running? `novacron lab up` starts one here; for another one set TEMPORAL_ADDRESS, or address in "
            f"{config_file()}.",
        ) from error


async def require_control_worker(client: Client, site: str, queue: str) -> None:
    """A queue nobody polls is never an error to Temporal; a start on it would wait for ever, so ask first.

    A worker or a Temporal that has just started shows no pollers for a moment: that is waited out.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + POLLED_WITHIN
    while not (await client.workflow_service.describe_task_queue(request, timeout=RPC_WITHIN)).pollers:
        if loop.time() > deadline:
            raise Unreachable(
                f"no control worker polls {queue!r} in namespace {client.namespace!r}",
                f"Start the control worker of site {site!r}, or name the right site with --site or NOVACRON_SITE.",
            )
        await asyncio.sleep(0.2)


def from_rpc(error: RPCError) -> NovaCronError:
    """A refused or failed call to Temporal, in our words."""
    if error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
        return Unreachable(f"Temporal stopped answering: {error.message}", "Moves go on without us. Try again.")
    if error.status == RPCStatusCode.INVALID_ARGUMENT and "search attribute" in error.message.lower():
        return Unreachable(
            f"Temporal's namespace lacks our search attributes: {error.message}",
            "Register them once: docs/operations.md.",
        )
    return NovaCronError(f"Temporal refused the call: {error.message}", "")


def config_file() -> str:
    return os.environ.get("TEMPORAL_CONFIG_FILE") or "Temporal's configuration file"


def _origin(found: ClientConfigProfile, profile: str | None) -> str:
    if os.environ.get("TEMPORAL_ADDRESS"):
        return "TEMPORAL_ADDRESS"
    if found.address:
        return f"profile {profile or os.environ.get('TEMPORAL_PROFILE') or 'default'!r} of {config_file()}"
    return "the default"


def _reason(error: Exception) -> str:
    """The one thing worth reading in a transport error."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_WITHIN:g} s"
    known = ("Connection refused", "dns error", "Network is unreachable", "No route to host", "certificate")
    text = str(error)
    return next((words.lower() for words in known if words in text), text.splitlines()[0][:300])
