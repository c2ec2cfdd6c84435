"""Today's workflows accept the histories of the release that recorded them: no run is parked by a deployment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from workflows import EVENT_WORKFLOWS, WORKFLOWS
from workflows.plugin import plugin, sandboxed

KINDS = {str(workflow._Definition.must_from_class(each).name): each for each in (*WORKFLOWS, *EVENT_WORKFLOWS)}
NOT_RECORDED = {"novacron.Bandwidth", "novacron.CloudCache", "novacron.Survey"}
"""They are asked for an answer and hold no decision that a deployment could park for long."""
HISTORIES = {path.stem: path.read_text() for path in (Path(__file__).parent / "histories").glob("*.json")}


def test_every_kind_of_end_was_recorded() -> None:
    assert HISTORIES.keys() >= {"moved", "cancelled_in_the_move", "failed_with_a_leftover", "two_copies"}


def test_every_kind_of_workflow_was_recorded() -> None:
    kinds = {_started(recorded)["workflowType"]["name"] for recorded in HISTORIES.values()}
    assert KINDS.keys() - kinds <= NOT_RECORDED


@pytest.mark.parametrize("name", sorted(HISTORIES))
async def test_a_recorded_history_replays(name: str) -> None:
    recorded = HISTORIES[name]
    history = WorkflowHistory.from_json(_started(recorded)["workflowId"], recorded)
    kind = KINDS[_started(recorded)["workflowType"]["name"]]
    runner = OnItsQueue(_started(recorded)["taskQueue"]["name"])
    await Replayer(workflows=[kind], workflow_runner=runner, plugins=[plugin()]).replay_workflow(history)


def _started(recorded: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(recorded)["events"][0]["workflowExecutionStartedEventAttributes"]
    return found


class OnItsQueue(WorkflowRunner):
    """Tells workflows the queue they were recorded on. The Replayer would tell them one of its own, and ours read their
    site from it."""

    def __init__(self, queue: str) -> None:
        self._runner = sandboxed(None)
        self._queue = queue

    def prepare_workflow(self, defn: workflow._Definition) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return self._runner.create_instance(replace(det, info=replace(det.info, task_queue=self._queue)))

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self._runner.set_worker_level_failure_exception_types(types)
