"""The figures of models/metrics.py, as Prometheus would scrape them from a worker's own runtime."""

from __future__ import annotations

import asyncio
import re
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.runtime import Runtime
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment
from temporalio.worker import Replayer

from activities.events import EventActivities
from activities.gauges import STALLED_AFTER, Gauges
from activities.standing import certificate
from models import metrics
from models.datapath import DataPathStatus, FlowStatus
from models.events import CloudEvent, Delivery, HostDrained, Webhook
from models.host import HostSettings, SiteSettings
from models.migration import MigrationPolicy, MoveVm, Progress, VmRef
from tests.workflow.fake_site import VM, FakeSite, failure, outcome, vm
from tests.workflow.test_events import delivered, evacuation, heard
from workers.lab.certificates import Authority
from workers.runtime import telemetry
from workflows import WORKFLOWS
from workflows.plugin import plugin

pytestmark = pytest.mark.temporal


class Scraped:
    """A client whose workers publish, and what they publish."""

    def __init__(self, client: Client, runtime: Runtime, address: str) -> None:
        self.client = client
        self.runtime = runtime
        self._url = f"http://{address}/metrics"

    def page(self) -> str:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self._url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def value(self, name: str, **labels: str) -> float:
        """Of one series, whatever other labels the SDK gave it."""
        for line in self.page().splitlines():
            found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
            if found and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1])).items():
                return float(found[2])
        raise AssertionError(f"{name} {labels} is not among:\n{self.page()}")


@pytest.fixture(scope="module")
async def scraped(temporal: WorkflowEnvironment) -> Scraped:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    runtime = Runtime(telemetry=telemetry(address))
    target = temporal.client.service_client.config.target_host
    client = await Client.connect(target, namespace="default", runtime=runtime, plugins=[plugin()])
    return Scraped(client, runtime, address)


async def test_a_move_is_counted_with_its_bytes_ratio_pause_and_time_and_a_replay_counts_nothing(
    scraped: Scraped,
) -> None:
    site = FakeSite(scraped.client)
    async with site.working():
        move = await site.start()
        await outcome(move)
    assert scraped.value("novacron_moves_total", outcome="moved", task_queue=site.queue) == 1
    assert scraped.value("novacron_move_raw_bytes_total", task_queue=site.queue) == 1000
    assert scraped.value("novacron_move_wire_bytes_total", task_queue=site.queue) == 320
    assert scraped.value("novacron_redials_total", task_queue=site.queue) == 0
    assert scraped.value("novacron_move_ratio_bucket", le="4", task_queue=site.queue) == 1
    assert scraped.value("novacron_move_ratio_bucket", le="3", task_queue=site.queue) == 0
    assert scraped.value("novacron_move_downtime_seconds_sum", task_queue=site.queue) == pytest.approx(0.04)
    assert scraped.value("novacron_move_duration_seconds_count", outcome="moved", task_queue=site.queue) == 1
    replayer = Replayer(workflows=WORKFLOWS, plugins=[plugin()], runtime=scraped.runtime)
    await replayer.replay_workflow(await move.fetch_history())
    counted = [line for line in scraped.page().splitlines() if line.startswith("novacron_moves_total{")]
    assert [line.split()[-1] for line in counted if "moved" in line] == ["1"]


async def test_two_copies_and_dead_letters_are_counted(scraped: Scraped) -> None:
    site = FakeSite(scraped.client)
    site.destination.vms[VM] = vm()
    site.received["pager"] = []
    site.webhooks_gone.add("pager")
    async with site.working():
        move = await site.start()
        await failure(move)
        dead = (await delivered(site, move)).dead
    assert scraped.value("novacron_two_copies_total", task_queue=site.queue) == 1
    assert scraped.value("novacron_moves_total", outcome="Ambiguous", task_queue=site.queue) == 1
    assert scraped.value("novacron_event_dead_letters_total", webhook="pager") == len(dead) == 3


async def test_looks_at_a_host_in_maintenance_are_counted_by_what_they_found(scraped: Scraped) -> None:
    site = FakeSite(scraped.client)
    async with site.working():
        run = await evacuation(site)
        await heard(site, "novacron.host.drained")
        await run.cancel()
        with pytest.raises(WorkflowFailureError):
            await run.result()
    looks = {"host": "host-a", "task_queue": site.queue}
    assert scraped.value("novacron_maintenance_looks_total", outcome="drained", **looks) == 1


def status(raw: int, state: str = "connected") -> DataPathStatus:
    flow = FlowStatus(service="ram", ordinal=0, raw_out=raw)
    return DataPathStatus.model_validate(
        {"role": "source", "migration_id": "m", "pid": 1, "state": state, "flows": [flow], "raw_out": raw}
        | {"wire_rate": 600.0, "lanes_alive": 3}
    )


def order(migration_id: str) -> MoveVm:
    policy = MigrationPolicy(finish_within=100)
    return MoveVm(migration_id=migration_id, vm=VmRef(vm="v"), source="a", destination="b", policy=policy)


async def test_a_host_shows_what_leaves_it_and_zero_when_all_has_left(scraped: Scraped) -> None:
    host, now = f"h{uuid4().hex[:8]}", 0.0
    gauges = Gauges(host, now=lambda: now)

    def shown(metric: metrics.Metric, **labels: str) -> float:
        return scraped.value(metric.name, host=host, **labels)

    @activity.defn
    def step() -> None:
        nonlocal now
        with gauges.of(order("m1")) as first, gauges.of(order("m2")) as second:
            second.status(status(5, "link-lost"))
            for now, raw in ((1.0, 1000), (2.0, 3000)):
                first.status(status(raw))
                first.report(Progress(phase="moving", elapsed=now))
            assert shown(metrics.STREAM_RATE, stream="ram") == 2000
            assert shown(metrics.WIRE_RATE) == 1200
            assert (shown(metrics.LANES), shown(metrics.LANE_RATE)) == (6, 200)
            assert (shown(metrics.LINK_LOST), shown(metrics.STALLED), shown(metrics.LATE)) == (1, 0, 0)
            now = 2.0 + STALLED_AFTER
            first.status(status(3001))
            second.status(status(5))
            first.report(Progress(phase="post-copy", elapsed=101))
            assert (shown(metrics.STALLED), shown(metrics.LATE)) == (1, 1)
            assert (shown(metrics.RUNNING, phase="moving"), shown(metrics.RUNNING, phase="post-copy")) == (1, 1)
        assert (shown(metrics.RUNNING, phase="moving"), shown(metrics.RUNNING, phase="post-copy")) == (0, 0)
        assert (shown(metrics.STREAM_RATE, stream="ram"), shown(metrics.WIRE_RATE), shown(metrics.STALLED)) == (0, 0, 0)

    environment = ActivityEnvironment()
    environment.metric_meter = scraped.runtime.metric_meter
    with ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, environment.run, step)


def test_a_host_shows_when_its_certificate_expires_and_zero_when_no_peer_would_take_it(
    scraped: Scraped, tmp_path: Path
) -> None:
    files = Authority(tmp_path).issue("host-a")
    good = HostSettings(site="lab", host="host-a", migration_address="10.0.0.1", tls=files)
    certificate(good, scraped.runtime.metric_meter)
    assert scraped.value(metrics.CERTIFICATE_EXPIRES.name, host="host-a") > time.time() + 86400
    certificate(good.model_copy(update={"host": "host-b"}), scraped.runtime.metric_meter)
    assert scraped.value(metrics.CERTIFICATE_EXPIRES.name, host="host-b") == 0


async def test_attempts_to_deliver_are_counted_by_webhook_and_outcome(
    scraped: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    webhook = Webhook(name="unreachable", url="https://a.example/", secret_env="NO_SUCH_SECRET")
    activities = EventActivities(SiteSettings(site="lab", hosts=("a",), webhooks=(webhook,)), None)
    event = CloudEvent.of(
        HostDrained(host="a"),
        site="lab",
        workflow_id="w",
        run_id="r",
        sequence=1,
        subject="a",
        time="2026-01-01T00:00Z",
    )
    environment = ActivityEnvironment()
    environment.metric_meter = scraped.runtime.metric_meter
    with pytest.raises(Exception, match="holds no secret"):
        await environment.run(activities.deliver_event, Delivery(webhook=webhook.name, event=event))
    assert scraped.value("novacron_webhook_posts_total", webhook="unreachable", outcome="failed") == 1


async def test_the_page_has_no_label_twice_and_says_what_each_of_our_figures_means(scraped: Scraped) -> None:
    page = scraped.page()
    for line in page.splitlines():
        names = re.findall(r'(\w+)="', line) if not line.startswith("#") else []
        assert len(names) == len(set(names)), line
    known = {metric.name: metric for metric in metrics.ALL}
    for name, kind in re.findall(r"^# TYPE (novacron_\w+) (\w+)", page, re.MULTILINE):
        assert known[name].kind == kind
        assert f"# HELP {name} {known[name].help}" in page
