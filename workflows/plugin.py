"""One Temporal plugin for client, workers, replayer and tests: converter, sandbox and failure types in one place.

Give it to the client; a worker made from that client inherits it. Give it to a Replayer explicitly.
"""

from __future__ import annotations

import pydantic
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.plugin import SimplePlugin
from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

PASSED_THROUGH = ("models", "activities", "clouds", "dwcp", "pydantic", "pydantic_core", "annotated_types")
"""Not loaded anew for every workflow: contracts and signatures. A workflow never runs their code with effects."""


def plugin() -> SimplePlugin:
    return SimplePlugin(
        "novacron",
        data_converter=pydantic_data_converter,
        workflow_runner=sandboxed,
        # An input that does not fit fails its workflow at once. Never Exception here: it includes NondeterminismError,
        # and a bad deployment would then fail running moves instead of parking them.
        workflow_failure_exception_types=[pydantic.ValidationError],
    )


def sandboxed(runner: WorkflowRunner | None) -> WorkflowRunner:
    if runner is not None and not isinstance(runner, SandboxedWorkflowRunner):
        return runner  # chosen by the caller (a test, a debugger)
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))
