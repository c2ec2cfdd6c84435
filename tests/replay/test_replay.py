"""Today's workflows accept the histories of the release that recorded them: no run is parked by a deployment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from workflows import EVENT_WORKFLOWS, WORKFLOWS
from workflows.plugin import plugin

ALL = [*WORKFLOWS, *EVENT_WORKFLOWS]
NOT_RECORDED = {"novacron.Bandwidth", "novacron.SurveySite"}
"""They are asked for an answer and hold no decision that a deployment could park for long."""
HISTORIES = {path.stem: path.read_text() for path in (Path(__file__).parent / "histories").glob("*.json")}


def test_every_kind_of_end_was_recorded() -> None:
    assert HISTORIES.keys() >= {"moved", "cancelled_in_the_move", "failed_with_a_leftover", "two_copies"}


def test_every_kind_of_workflow_was_recorded() -> None:
    kinds = {
        json.loads(recorded)["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"]
        for recorded in HISTORIES.values()
    }
    offered = {workflow._Definition.must_from_class(each).name for each in ALL}
    assert offered - kinds <= NOT_RECORDED


@pytest.mark.parametrize("name", sorted(HISTORIES))
async def test_a_recorded_history_replays(name: str) -> None:
    recorded = HISTORIES[name]
    history = WorkflowHistory.from_json(_workflow_id(recorded), recorded)
    await Replayer(workflows=ALL, plugins=[plugin()]).replay_workflow(history)


def _workflow_id(recorded: str) -> str:
    """A workflow checks its own id, so the replay needs the recorded one."""
    return str(json.loads(recorded)["events"][0]["workflowExecutionStartedEventAttributes"]["workflowId"])
