"""Lines that a workflow and its activities' threads log say which move they belong to."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity, workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities import context
from activities.context import ContextInterceptor
from models import ids
from models.migration import MoveVm, VmRef

LOGGER = logging.getLogger("tests.logs")


@activity.defn(name="test.log_a_line")
def log_a_line(order: MoveVm) -> None:
    LOGGER.info("in the activity's thread")


@workflow.defn(name="test.LogsALine", sandboxed=False)
class LogsALine:
    @workflow.run
    async def run(self) -> None:
        workflow.logger.info("in the workflow")
        order = MoveVm(migration_id="m1", vm=VmRef(vm="counter"), source="host-a", destination="host-b")
        await workflow.execute_activity(log_a_line, order, start_to_close_timeout=timedelta(seconds=20))


@pytest.mark.temporal
async def test_lines_of_a_workflow_and_of_its_activities_threads_say_whose_they_are(
    temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append({"message": record.getMessage(), **context.current()})

    monkeypatch.setattr(workflow.logger, "workflow_info_on_message", False)
    keep = Keep()
    loggers = (LOGGER, workflow.logger.base_logger)
    for each in loggers:
        each.addHandler(keep)
        each.setLevel(logging.INFO)
    queue = uuid4().hex
    try:
        async with Worker(
            temporal.client,
            task_queue=queue,
            workflows=[LogsALine],
            activities=[log_a_line],
            activity_executor=ThreadPoolExecutor(1),
            interceptors=[ContextInterceptor()],
        ):
            handle = await temporal.client.start_workflow(
                LogsALine.run, id=ids.migrate_vm(queue, "counter"), task_queue=queue
            )
            await handle.result()
    finally:
        for each in loggers:
            each.removeHandler(keep)
    common = {"workflow_id": handle.id, "run_id": handle.result_run_id, "vm": "counter"}
    assert lines == [
        {"message": "in the workflow", **common},
        {
            "message": "in the activity's thread",
            **common,
            "migration_id": "m1",
            "activity": "test.log_a_line",
            "attempt": 1,
        },
    ]
