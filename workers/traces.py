"""OpenTelemetry traces: one for each move, from the command line over the workflow to the hosts' activities.

Off, and not even imported, unless OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) says where they go, or
NOVACRON_TRACES says how: `otlp`, `console` (to stderr), `off`. Needs the extra `otel`. Spans of a workflow appear when
it ends; until then its progress is in Temporal and in the metrics.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from temporalio.plugin import SimplePlugin

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

FLUSH_WITHIN_MS = 3000
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TracesUnavailable(Exception):
    """The message says what to set or install."""


def wanted() -> str:
    """`otlp`, `console` or `off`, by the environment. Raises TracesUnavailable for another word."""
    given = os.environ.get("NOVACRON_TRACES", "")
    if given not in ("", "otlp", "console", "off"):
        raise TracesUnavailable(f"NOVACRON_TRACES: got {given!r}. Use otlp, console or off")
    return given or ("otlp" if any(os.environ.get(name) for name in _ENDPOINTS) else "off")


def plugins(service: str) -> list[SimplePlugin]:
    """What a client needs besides our own plugin, and after it; a worker made from that client inherits it."""
    how = wanted()
    if how == "off":
        return []
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
    except ImportError as error:
        raise TracesUnavailable(f"traces need the extra otel ({error}): pip install 'novacron[otel]'") from error
    exporter: SpanExporter
    if how == "console":
        exporter = ConsoleSpanExporter(out=sys.stderr)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    return [tracing(service, BatchSpanProcessor(exporter))]


def tracing(service: str, processor: SpanProcessor) -> SimplePlugin:
    """Sets the process's tracer provider; once, as OpenTelemetry has it."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider

    provider = create_tracer_provider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return OpenTelemetryPlugin(add_temporal_spans=True)


def flush() -> None:
    """Before the process ends by os._exit: what was traced leaves, or is lost after a moment."""
    if "opentelemetry.sdk.trace" in sys.modules:
        from opentelemetry import trace
        from temporalio.contrib.opentelemetry import ReplaySafeTracerProvider

        provider = trace.get_tracer_provider()
        if isinstance(provider, ReplaySafeTracerProvider):
            provider.force_flush(FLUSH_WITHIN_MS)
