"""What both worker processes share: settings from a file, a patient connection, a run that ends well on a signal.

A wrong file or a wrong Temporal profile ends the process at once with what to mend (exit code 2). Temporal being away
does not: it is dialled until it is there.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

import pydantic
from temporalio.client import Client
from temporalio.common import MetricMeter
from temporalio.envconfig import ClientConfig
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Worker

from models import metrics
from models.base import Model
from models.logline import BadFormat
from workers import logs, traces
from workflows.plugin import plugin

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)
Workers = Worker | list[Worker]

DIAL_AGAIN = (0.5, 1.0, 2.0, 5.0)
"""Seconds between dials; the last one goes on."""
HEARTBEAT_THROTTLE = timedelta(seconds=1)
"""A cancel reaches a move with the answer to a heartbeat; the SDK would hold those back for most of their timeout."""
GRACE = timedelta(seconds=10)
"""How long a stopping worker lets short activities finish. A move needs none: it detaches at once."""


class BadSettings(Exception):
    """A file or a profile that cannot be used; the message says where and what to do."""


def load(model: type[M], file: Path) -> M:
    """Settings from a JSON file. Raises BadSettings that names the field, its value and the remedy."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise BadSettings(f"settings file {file}: {error.strerror}. Give the path of a readable file") from error
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        wrong = "\n".join(
            f"  {'.'.join(map(str, one['loc'])) or 'the whole file'}: {one['msg']}, got {str(one['input'])[:200]!r}"
            for one in error.errors()
        )
        raise BadSettings(f"settings file {file} does not do; mend these fields:\n{wrong}") from error


async def connect(stop: asyncio.Event) -> Client | None:
    """The client of Temporal's own profile and environment; None when `stop` came first."""
    try:
        config = ClientConfig.load_client_connect_config(config_file_strict=True)
    except Exception as error:  # the SDK's own parser raises bare RuntimeError and others for a bad file
        raise BadSettings(
            f"Temporal's profile cannot be used: {error}. Check TEMPORAL_CONFIG_FILE, TEMPORAL_PROFILE and the "
            f"TEMPORAL_* variables"
        ) from error
    try:
        plugins = [plugin(), *traces.plugins("novacron-worker")]
    except traces.TracesUnavailable as error:
        raise BadSettings(str(error)) from error
    target = config.setdefault("target_host", "localhost:7233")
    for pause in chain(DIAL_AGAIN, repeat(DIAL_AGAIN[-1])):
        try:
            client = await Client.connect(**config, plugins=plugins)
        except RuntimeError as error:
            logger.warning("Temporal at %s cannot be reached: %s; dialling again", target, error)
        else:
            logger.info("connected to Temporal at %s, namespace %s", target, client.namespace)
            return client
        try:
            await asyncio.wait_for(stop.wait(), pause)
            break
        except TimeoutError:
            continue
    return None


def telemetry(address: str) -> TelemetryConfig:
    """Temporal's figures and ours on `address`, with names, units and buckets as docs/metrics.md has them."""
    prometheus = PrometheusConfig(
        bind_address=address,
        durations_as_seconds=True,
        counters_total_suffix=True,
        unit_suffix=True,
        histogram_bucket_overrides=metrics.buckets(),
    )
    return TelemetryConfig(metrics=prometheus)


def publish_metrics() -> None:
    """Figures for Prometheus at NOVACRON_METRICS (ADDRESS:PORT), when it is set. Before any client is made."""
    if not (address := os.environ.get("NOVACRON_METRICS")):
        return
    try:
        Runtime.set_default(Runtime(telemetry=telemetry(address)))
    except ValueError as error:
        raise BadSettings(
            f"NOVACRON_METRICS: {error}, got {address!r}. Give ADDRESS:PORT of this machine, such as 127.0.0.1:9464"
        ) from error


def meter() -> MetricMeter:
    """For figures that belong to the process, not to an activity."""
    return Runtime.default().metric_meter


async def serve(build: Callable[[Client], Workers]) -> None:
    """Connect and run the workers until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await connect(stop)
    if client is None:
        return
    built = build(client)
    async with AsyncExitStack() as running:
        for worker in built if isinstance(built, list) else [built]:
            await running.enter_async_context(worker)
            logger.info("polling %s as %s", worker.task_queue, worker.config().get("identity"))
        await stop.wait()
        logger.info("stopping: no new work, %s for what runs", GRACE)
    logger.info("stopped")


def main(name: str, model: type[M], build: Callable[[M, Client], Workers]) -> None:
    """`python -m workers.<name> --settings FILE`; ends the process."""
    parser = argparse.ArgumentParser(prog=f"python -m workers.{name}")
    parser.add_argument("--settings", required=True, type=Path, metavar="FILE", help=f"{model.__name__} as JSON")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args()
    faulthandler.enable()
    code = 0
    try:
        logs.to_stderr(options.log_level, process=name)
        settings = load(model, options.settings)
        logs.to_stderr(options.log_level, process=name, **settings.model_dump(include={"site", "host"}))
        publish_metrics()
        asyncio.run(serve(lambda client: build(settings, client)))
    except (BadSettings, BadFormat) as error:
        print(error, file=sys.stderr)
        code = 2
    except Exception:
        logger.exception("the %s worker ends on an error it cannot mend", name)
        code = 1
    traces.flush()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # the SDK's native runtime may crash while the interpreter tears down; nothing is left to do
