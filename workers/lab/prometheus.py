"""The lab's Prometheus, when one is asked for: Debian's program, unpacked by `make setup`, with deploy's alerts."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

from workers.lab.errors import SEARCH, LabError, wait_until
from workers.lab.processes import Part
from workers.lab.settings import LabSettings

ALERTS = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "alerts.yml"
SCRAPE_EVERY = "5s"
READY_WITHIN = 60.0

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def binary(settings: LabSettings) -> str:
    """What `make setup` unpacked, else an installed one."""
    unpacked = settings.root / "prometheus" / "usr" / "bin" / "prometheus"
    found = str(unpacked) if unpacked.exists() else shutil.which("prometheus", path=SEARCH)
    if found is None:
        raise LabError(f"Prometheus is neither in {unpacked.parent} nor installed: run `make setup`")
    return found


def command(settings: LabSettings, hosts: list[str]) -> list[str]:
    """Writes the configuration too."""
    folder = settings.folder / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(text(settings, hosts))
    program = binary(settings)
    assets = Path(program).parents[1] / "share" / "prometheus" / "web"
    return [
        program,
        f"--web.local-assets={assets}/",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{settings.prometheus_port}",
        "--log.level=warn",
    ]


def text(settings: LabSettings, hosts: list[str]) -> str:
    """Its configuration. JSON is YAML."""
    targets = {
        "temporal": [f"127.0.0.1:{settings.metrics_port}"],
        "control-worker": [settings.worker_metrics("control")],
        "host-worker": [settings.worker_metrics(host) for host in hosts],
    }
    configuration = {
        "global": {"scrape_interval": SCRAPE_EVERY, "evaluation_interval": SCRAPE_EVERY},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()
        ],
    }
    return json.dumps(configuration, indent=2) + "\n"


def wait_ready(settings: LabSettings, part: Part) -> None:
    def ready() -> bool:
        if part.process() is None:
            raise LabError(f"Prometheus ended (is port {settings.prometheus_port} taken?); {part.last_words()}")
        try:
            with _DIRECT.open(f"{settings.prometheus}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_until(ready, READY_WITHIN, lambda: f"Prometheus does not answer on {settings.prometheus}; {part.last_words()}")
