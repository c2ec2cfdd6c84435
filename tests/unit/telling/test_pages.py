"""docs/metrics.md and docs/events.md say what the code does, and deploy's alerts name figures that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from models import metrics
from models.events import TYPES
from models.host import SiteSettings
from workers.lab.settings import LabSettings

ROOT = Path(__file__).resolve().parents[3]
METRICS = (ROOT / "docs/metrics.md").read_text()
EVENTS = (ROOT / "docs/events.md").read_text()
ALERTS = (ROOT / "deploy/prometheus/alerts.yml").read_text()
UNITS = ("_bytes_total", "_seconds", "_bytes_per_second", "_ratio")
SUFFIXES = ("", "_bucket", "_sum", "_count")


def row(metric: metrics.Metric) -> str:
    labels = " ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def test_the_page_of_metrics_is_the_table_in_the_code() -> None:
    rows = [line for line in METRICS.splitlines() if line.startswith("| `novacron_")]
    assert rows == [row(metric) for metric in metrics.ALL]


@pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)
def test_a_name_says_what_it_counts_and_in_which_unit(metric: metrics.Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)
    if any(word in metric.help.lower().split() for word in ("bytes", "pause", "rate")):
        assert metric.name.endswith(UNITS)


def test_every_metric_is_used_by_somebody() -> None:
    code = "".join(path.read_text() for folder in ("activities", "workflows") for path in (ROOT / folder).rglob("*.py"))
    for name, value in vars(metrics).items():
        if isinstance(value, metrics.Metric):
            assert value in metrics.ALL
            assert re.search(rf"metrics\.{name}\b", code), f"nothing emits {value.name}"


@pytest.mark.parametrize("text", [METRICS, ALERTS, (ROOT / "docs/operations.md").read_text()])
def test_pages_and_alerts_name_only_figures_that_exist(text: str) -> None:
    known = {metric.name + suffix for metric in metrics.ALL for suffix in SUFFIXES}
    assert set(re.findall(r"\bnovacron_\w+", text)) <= known


def test_every_type_of_event_has_a_sample_that_is_one() -> None:
    samples = [json.loads(line) for line in EVENTS.splitlines() if line.startswith('{"type"')]
    assert [sample["type"] for sample in samples] == list(TYPES)
    for sample in samples:
        told = TYPES[sample["type"]].model_validate(sample["data"])
        assert told.model_dump(mode="json") == sample["data"], "every field is shown"
        assert f"### {sample['type']}\n" in EVENTS


def test_the_webhooks_of_the_page_are_settings_that_do() -> None:
    (block,) = re.findall(r'```json\n(\{\n  "site".*?)```', EVENTS, re.DOTALL)
    chat, pager = SiteSettings.model_validate_json(block).webhooks
    assert chat.wants("novacron.host.drained")
    assert not pager.wants("novacron.host.drained")


def test_every_alert_says_what_happened_what_to_do_and_how_urgent_it_is() -> None:
    (group,) = yaml.safe_load(ALERTS)["groups"]
    tested = (ROOT / "tests/unit/deploy/alerts.test.yml").read_text()
    operations = (ROOT / "docs/operations.md").read_text()
    for rule in group["rules"]:
        assert rule["annotations"].keys() == {"summary", "runbook"}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["alert"] in tested
        assert f"`{rule['alert']}`" in operations


def test_the_alerts_fire_when_they_must_and_are_quiet_when_they_must() -> None:
    unpacked = LabSettings.from_environment().root / "prometheus" / "usr" / "bin" / "promtool"
    promtool = str(unpacked) if unpacked.exists() else shutil.which("promtool")
    assert promtool, "promtool is missing: run `make setup`"
    ran = subprocess.run(
        [promtool, "test", "rules", "tests/unit/deploy/alerts.test.yml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
