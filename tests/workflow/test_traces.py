"""One trace for each move: whoever starts it, its workflow, and every activity; a replay adds nothing to it."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from tests.workflow.fake_site import FakeSite, outcome
from workers import traces
from workflows import WORKFLOWS
from workflows.plugin import plugin

pytestmark = pytest.mark.temporal


async def test_a_move_is_one_trace_from_its_client_to_its_activities(temporal: WorkflowEnvironment) -> None:
    memory = InMemorySpanExporter()
    plugins = [plugin(), traces.tracing("test", SimpleSpanProcessor(memory))]
    address = temporal.client.service_client.config.target_host
    site = FakeSite(await Client.connect(address, namespace=temporal.client.namespace, plugins=plugins))
    async with site.working():
        move = await site.start()
        await outcome(move)
    spans = [span for span in memory.get_finished_spans() if _workflow(span) in (None, site.id)]
    names = [span.name for span in spans]
    assert names.count("StartWorkflow:novacron.MigrateVm") == 1
    assert names.count("RunWorkflow:novacron.MigrateVm") == 1
    for step in ("admit_vm", "open_path", "move_vm", "close_path"):
        assert f"RunActivity:novacron.{step}" in names
    assert len({span.context.trace_id for span in spans if span.context}) == 1

    history = await move.fetch_history()
    await Replayer(workflows=WORKFLOWS, plugins=plugins).replay_workflow(history)
    assert len(memory.get_finished_spans()) == len(spans)


def _workflow(span: ReadableSpan) -> object:
    return (span.attributes or {}).get("temporalWorkflowID")


def test_traces_are_off_and_not_imported_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOVACRON_TRACES", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert traces.plugins("test") == []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert traces.wanted() == "otlp"
    monkeypatch.setenv("NOVACRON_TRACES", "off")
    assert traces.plugins("test") == []


def test_a_word_that_says_nothing_about_traces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVACRON_TRACES", "yes")
    with pytest.raises(traces.TracesUnavailable, match=r"got 'yes'\. Use otlp, console or off"):
        traces.plugins("test")
