"""docker-compose.yml keeps its promises: order, pins, closed doors, and no password or file it does not name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflows import search_attributes

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (ROOT / "deploy/.env.example").read_text().splitlines()
    if line and not line.startswith("#")
)
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
JOBS = ("temporal-schema", "temporal-namespace")


def default(text: str) -> str:
    """`text` as Compose reads it when nothing is set."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "", text)


def mounts(service: str) -> list[tuple[str, str]]:
    """(source, target) of each mount."""
    pairs = []
    for mount in SERVICES[service].get("volumes", []):
        if isinstance(mount, dict):
            pairs.append((default(mount["source"]), mount["target"]))
        else:
            source, target = default(mount).split(":")[:2]
            pairs.append((source, target))
    return pairs


def test_server_tools_and_ui_are_pinned_and_server_and_tools_are_equal() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    for name, image in images.items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", image), f"{name}: {image} is not pinned"
    server = images["temporal"].split(":")[1]
    assert {images[job] for job in JOBS} == {f"temporalio/admin-tools:{server}"}
    assert "auto-setup" not in TEXT


def test_each_start_waits_for_what_it_needs() -> None:
    conditions = {
        name: {on: how["condition"] for on, how in service["depends_on"].items()}
        for name, service in SERVICES.items()
        if "depends_on" in service
    }
    assert conditions == {
        "temporal-schema": {"postgresql": "service_healthy"},
        "temporal": {"temporal-schema": "service_completed_successfully"},
        "temporal-namespace": {"temporal": "service_healthy"},
        "temporal-ui": {"temporal": "service_healthy"},
        "temporal-door": {"temporal": "service_healthy"},
        "control-worker": {"temporal-namespace": "service_completed_successfully"},
    }


def test_what_others_wait_for_has_a_health_check() -> None:
    for service in SERVICES.values():
        for on, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or SERVICES[on]["healthcheck"]["test"]


def test_jobs_end_and_services_come_back() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == ("on-failure:5" if name in JOBS else "unless-stopped"), name


def test_the_password_has_no_default_and_stands_nowhere() -> None:
    used = [found for found in VARIABLE.finditer(TEXT) if "PASSWORD" in found[1]]
    assert used
    assert all(found[2] == "?" for found in used)
    assert EXAMPLE["POSTGRES_PASSWORD"] == ""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "PWD" in name:
                assert value.startswith("${POSTGRES_PASSWORD:?")


def test_every_variable_is_in_the_example_with_the_same_default() -> None:
    used = {found[1]: found for found in VARIABLE.finditer(TEXT)}
    assert used.keys() == EXAMPLE.keys()
    for name, found in used.items():
        assert found[2] == "?" or found[3] == EXAMPLE[name], name


def test_ports_are_published_on_loopback_unless_the_door_is_opened() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert default(port).startswith("127.0.0.1:"), f"{name}: {port}"
    assert "ports" not in SERVICES["postgresql"]


def test_data_is_kept_in_named_volumes() -> None:
    assert ("postgresql-data", "/var/lib/postgresql/data") in mounts("postgresql")
    assert ("prometheus-data", "/prometheus") in mounts("prometheus")
    for name in SERVICES:
        for source, _ in mounts(name):
            assert source[0] in "./" or source in COMPOSE["volumes"], f"{name}: {source}"


def test_every_file_mounted_from_the_repository_is_in_it() -> None:
    for name in SERVICES:
        for source, _ in mounts(name):
            assert not source.startswith("./") or (ROOT / source).exists(), f"{name}: {source}"


def test_folders_of_the_machine_are_never_made_by_a_mount() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            if isinstance(mount, dict):
                assert mount["bind"] == {"create_host_path": False}, f"{name}: {mount['source']}"


def test_files_named_in_commands_and_settings_are_mounted() -> None:
    def inside(service: str, path: str) -> Path:
        for source, target in mounts(service):
            if path == target or path.startswith(target + "/"):
                return ROOT / source / path.removeprefix(target).lstrip("/")
        raise AssertionError(f"{service}: {path} is not mounted")

    dynamic = SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]
    assert inside("temporal", dynamic).is_file()
    assert inside("prometheus", "/etc/prometheus/prometheus.yml").is_file()
    assert inside("prometheus", "/etc/novacron/prometheus-hosts.yml").is_file()
    for job in JOBS:
        assert inside(job, SERVICES[job]["entrypoint"][1]).is_file()
    for worker in ("control-worker", "host-worker"):
        inside(worker, SERVICES[worker]["environment"]["TEMPORAL_CONFIG_FILE"])


def test_the_namespace_gets_exactly_the_search_attributes_workflows_set() -> None:
    types = {"KEYWORD": "Keyword", "KEYWORD_LIST": "KeywordList", "DOUBLE": "Double"}
    wanted = {key.name: types[key.indexed_value_type.name] for key in search_attributes.ALL}
    given = SERVICES["temporal-namespace"]["environment"]["SEARCH_ATTRIBUTES"].split()
    assert dict(pair.split("=") for pair in given) == wanted


def test_the_server_is_set_up_to_last() -> None:
    environment = SERVICES["temporal"]["environment"]
    assert environment["NUM_HISTORY_SHARDS"] == "512"
    assert environment["DB"] == "postgres12"
    assert environment["PROMETHEUS_ENDPOINT"].endswith(":9090")
    assert default(SERVICES["temporal-namespace"]["environment"]["RETENTION"]) == "30d"
    dynamic = yaml.safe_load((ROOT / "deploy/dynamicconfig/novacron.yaml").read_text())
    assert not [key for key in dynamic if "force" in key.lower()], "forced cache refreshes are for development"


@pytest.mark.parametrize("worker", ["control", "host"])
def test_workers_images_are_built_here_and_run_read_only_without_capabilities(worker: str) -> None:
    service = SERVICES[f"{worker}-worker"]
    dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
    assert f" AS {service['build']['target']}\n" in dockerfile
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service


def test_prometheus_scrapes_services_by_their_names() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert [(ROOT / "deploy/prometheus" / file).is_file() for file in config["rule_files"]] == [True]
    targets = [
        target
        for job in config["scrape_configs"]
        for static in job.get("static_configs", [])
        for target in static["targets"]
    ]
    assert {target.split(":")[0] for target in targets} == {"temporal", "control-worker"}
