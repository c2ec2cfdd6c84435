"""The command line says what is wrong at once, without a server, in words or as one JSON line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.cli import cli


def novacron(*args: str, **env: str) -> Result:
    clean = dict.fromkeys(("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "NOVACRON_SITE"))
    world = {**clean, "TEMPORAL_CONFIG_FILE": "/nonexistent", **env}
    return CliRunner().invoke(cli, args, prog_name="novacron", env=world)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


WRONG = [
    (["migrate", "coun ter", "--to", "host-b"], "vm: got 'coun ter'"),
    (["migrate", "counter", "--to", "host/b"], "to: got 'host/b'"),
    (["migrate", "counter", "--to", "host-b", "--from", "host-b"], "to: 'host-b' is also the source"),
    (["migrate", "counter", "--to", "host-b", "--from", "-"], "source: got '-'"),
    (["migrate", "counter", "--to", "host-b", "--lanes", "99"], "lanes: got 99"),
    (["migrate", "counter", "--to", "host-b", "--codec", "gzip"], "codec: got 'gzip'"),
    (["migrate", "counter", "--to", "host-b", "--max-downtime", "0"], "max_downtime_ms: got 0"),
    (["migrate", "counter", "--to", "host-b", "--bandwidth", "-1"], "bandwidth_mib: got -1"),
    (["migrate", "counter", "--to", "host-b", "--finish-within", "0"], "finish_within: got 0"),
    (["migrate", "counter", "--to", "host-b", "--resume-within", "many"], "--resume-within"),
    (["migrate", "counter", "--to", "host-b", "--mode", "teleport"], "mode: got 'teleport'"),
    (["migrate", "counter", "--to", "host-b", "--disks", "burn"], "disks: got 'burn'"),
    (["migrate", "counter", "--to", "host-b", "--protection", "hope"], "protection: got 'hope'"),
    (["migrate", "counter", "--to", "host-b", "--limit", "-1"], "wire_mib: got -1"),
    (["migrate", "counter", "--to", "host-b", "--page-memory", "-1"], "page_memory_mib: got -1"),
    (["migrate", "counter", "--to", "host-b", "--store-scope", "world"], "store_scope: got 'world'"),
    (["cloud", "move", "web", "--to", "moon:base", "--size", "x"], "to: got 'moon:base'. name a cloud and a region"),
    (["cloud", "move", "web", "--to", "aws", "--size", "x"], "to: got 'aws'. name a cloud and a region"),
    (["cloud", "move", "a b", "--to", "aws:eu-west-1", "--size", "x"], "vm: got 'a b'"),
    (["cloud", "move", "web", "--to", "aws:eu-west-1", "--size", "x", "--rounds", "0"], "rounds: got 0"),
    (["cloud", "move", "web", "--to", "aws:eu-west-1"], "--size"),
    (["cloud", "bring", "web", "--from", "moon:base", "--to", "host-b"], "source: got 'moon:base'. name a cloud and"),
    (["cloud", "bring", "web", "--from", "aws:eu-west-1", "--to", "a b"], "to: got 'a b'"),
    (["cloud", "bring", "web", "--from", "aws:eu-west-1", "--to", "b", "--memory", "1"], "hardware.memory_mib: got 1"),
    (["cloud", "bring", "web", "--from", "aws:eu-west-1", "--to", "b", "--folder", "/"], "folder: got '/'"),
    (["cloud", "bring", "web", "--to", "host-b"], "--from"),
    (["cloud", "transfer", "web", "--from", "aws:eu-west-1", "--to", "azure:westeurope"], "--size"),
    (
        ["cloud", "transfer", "web", "--from", "aws:eu-west-1", "--to", "aws:eu-west-1", "--size", "t3.micro"],
        "same place: name two",
    ),
    (
        ["cloud", "transfer", "web", "--from", "here", "--to", "aws:eu-west-1", "--size", "t3.micro"],
        "source: got 'here'. name a cloud and",
    ),
    (["cloud", "test", "web", "--subnet", "s"], "--security-group"),
    (["cloud", "test", "web", "--subnet", "s", "--security-group", "-"], "network.security_groups.0: got '-'"),
    (["cloud", "roll-back", "a b"], "vm: got 'a b'"),
    (["cloud", "cache", "list", "moon:base"], "place: got 'moon:base'. name a cloud and a region"),
    (["cloud", "cache", "prune", "aws"], "place: got 'aws'. name a cloud and a region"),
    (["cloud", "move", "web", "--to", "aws:eu-west-1", "--size", "x", "--cache", "some"], "--cache"),
    (["limit", "counter", "many"], "MIB"),
    (["limit", "a b", "3"], "vm: got 'a b'"),
    (["post-copy", "a b"], "vm: got 'a b'"),
    (["migrate", "counter"], "--to"),
    (["watch", "a b"], "vm: got 'a b'"),
    (["cancel", "vm/lab"], "id: got 'vm/lab'"),
    (["--site", "my site", "hosts"], "site: got 'my site'"),
    (["lab", "up", "--hosts", "9"], "--hosts"),
    (["host", "evacuate", "a b"], "host: got 'a b'"),
    (["host", "evacuate", "host-a", "--non-movable", "kill"], "--non-movable"),
    (["host", "evacuate", "host-a", "--stop-within", "0"], "stop_within: got 0"),
    (["host", "slots", "host-a", "0"], "SLOTS"),
    (["move-many"], "nothing chooses VMs"),
    (["move-many", "--label", "gold"], "--label: got 'gold'"),
    (["rebalance", "--threshold", "0"], "threshold: got 0"),
    (["schedule", "create", "n", "rebalance"], "give either cron or every"),
    (["schedule", "create", "n", "rebalance", "--cron", "0 1 * * *", "--input", "{"], "--input: got '{'"),
    (["schedule", "create", "n", "dance", "--every", "60"], "dance"),
    (["nonsense"], "nonsense"),
]


@pytest.mark.parametrize(("args", "words"), WRONG)
def test_wrong_input_is_named_and_ends_with_2(args: list[str], words: str) -> None:
    told = novacron(*args)
    assert told.exit_code == 2
    assert words in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(("args", "words"), [case for case in WRONG if case[0] != ["nonsense"]])
def test_wrong_input_is_one_json_line_when_asked(args: list[str], words: str) -> None:
    told = novacron(*args, "--json")
    assert told.exit_code == 2
    (line,) = told.stdout.splitlines()
    error = json.loads(line)["error"]
    assert error["type"] == "InvalidInput"
    assert words in error["message"]
    assert error["remedy"]


ASKING = [
    ["hosts"],
    ["vm", "list"],
    ["watch", "x"],
    ["cancel", "x"],
    ["migrate", "x", "--to", "y"],
    ["limit", "x", "3"],
]


@pytest.mark.parametrize("args", ASKING)
def test_without_a_server_every_command_says_where_it_looked(args: list[str]) -> None:
    address = f"127.0.0.1:{unused_port()}"
    told = novacron(*args, TEMPORAL_ADDRESS=address)
    assert told.exit_code == 4
    assert f"does not answer at {address} (address from TEMPORAL_ADDRESS): connection refused" in told.stderr
    assert "novacron lab up" in told.stderr


def test_the_address_of_a_profile_is_told_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    address = f"127.0.0.1:{unused_port()}"
    file.write_text(f'[profile.default]\naddress = "{address}"\n')
    told = novacron("hosts", "--json", TEMPORAL_CONFIG_FILE=str(file))
    assert told.exit_code == 4
    error = json.loads(told.stdout)["error"]
    assert error["type"] == "Unreachable"
    assert f"{address} (address from profile 'default' of {file})" in error["message"]


def test_a_typo_in_the_configuration_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "temporal.toml"
    file.write_text('[profile.default]\nadress = "127.0.0.1:1"\n')
    told = novacron("hosts", TEMPORAL_CONFIG_FILE=str(file))
    assert told.exit_code == 2
    assert "adress" in told.stderr


def test_help_has_units_defaults_and_exit_codes() -> None:
    text = " ".join(novacron("migrate", "--help").stdout.split())
    for words in ("in milliseconds", "Default: 300.", "in MiB a second", "cost CPU", "the VM stays where it is"):
        assert words in text
    assert "3 already moving" in " ".join(novacron("--help").stdout.split())


def test_the_faces_need_no_libvirt() -> None:
    """A machine that only asks installs no hypervisor bindings."""
    code = "import sys; sys.modules['libvirt'] = None; import novacron.cli"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
