"""What people see of it: the page's table, the command line, the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clouds.errors import BadDisk
from clouds.preparing.prepare import report_of
from clouds.preparing.rules import make_plan
from clouds.preparing.targets import TARGETS, Target
from models.clouds import Cloud
from models.preparing import PrepareReport, PrepareRequest, State
from novacron.cli import cli
from novacron.commands import prepare as command
from tests.unit.preparing.trees import guest

PAGE = Path(__file__).parents[3] / "docs" / "preparing.md"


def row(name: Cloud, target: Target) -> str:
    cells = (target.drivers, target.if_there, target.consoles, target.arguments, target.data_sources)
    return f"| `{name}` | " + " | ".join(" ".join(cell) or "-" for cell in cells) + " |"


@pytest.mark.parametrize("name", TARGETS)
def test_the_page_has_the_table_as_it_is(name: Cloud) -> None:
    assert row(name, TARGETS[name]) in PAGE.read_text().splitlines()


def novacron(*args: str) -> Result:
    return CliRunner().invoke(cli, args, prog_name="novacron")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image whose look is that of the plain Debian; addresses by hand, if it is called so."""

    def prepare(request: PrepareRequest) -> PrepareReport:
        files = {"etc/network/interfaces": "iface ens3 inet static\n"} if "static" in request.image else {}
        plan = make_plan(guest(files), TARGETS[request.target], request.dhcp)
        state: State = "refused" if plan.refused else "prepared" if request.copy_to else "to be changed"
        return report_of(request, guest(files), plan, state)

    monkeypatch.setattr(command, "prepare", prepare)
    path = tmp_path / "static.raw"
    path.touch()
    (tmp_path / "web.raw").touch()
    return tmp_path / "web.raw"


def test_a_dry_run_says_what_would_be_changed(image: Path) -> None:
    told = novacron("image", "prepare", str(image), "--for", "aws", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "fstab: etc/fstab: /dev/vda2 / -> UUID=" in told.output
    assert "would be made ready for aws" in told.output
    answer = json.loads(novacron("image", "prepare", str(image), "--for", "gcp", "--to", "x.qcow2", "--json").output)
    assert answer["state"] == "prepared"
    assert {"rule", "path", "before", "after"} == set(answer["changes"][0])


def test_a_refusal_is_told_with_its_remedy_and_its_own_exit_code(image: Path) -> None:
    args = ("image", "prepare", str(image.with_name("static.raw")), "--for", "aws", "--dry-run")
    told = novacron(*args)
    assert told.exit_code == 6
    assert "refused, network: etc/network/interfaces: ens3 has an address set by hand. Allow DHCP" in told.output
    assert "nothing was changed" in told.output
    assert novacron(*args, "--dhcp").exit_code == 0


def test_neither_or_both_of_copy_and_dry_run_is_wrong_input(image: Path) -> None:
    for more in ((), ("--dry-run", "--to", "x")):
        told = novacron("image", "prepare", str(image), "--for", "aws", *more)
        assert told.exit_code == 2
        assert "either --to FILE or --dry-run" in told.output


def test_what_fails_says_so(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(request: PrepareRequest) -> PrepareReport:
        raise BadDisk("no such thing", "Do that.")

    monkeypatch.setattr(command, "prepare", fails)
    told = novacron("image", "prepare", str(image), "--for", "aws", "--dry-run")
    assert told.exit_code == 1
    assert "Do that." in told.output


def test_a_report_holds_no_more_of_a_guests_text_than_a_line_and_nothing_a_terminal_obeys() -> None:
    evil = guest({"etc/network/interfaces": "iface ens3 inet dhcp\x1b[2J" + "x" * 10_000 + "\n"})
    plan = make_plan(evil, TARGETS["aws"])
    request = PrepareRequest(image="/x", format="raw", target="aws")
    report = report_of(request, evil, plan, "to be changed")
    assert "\x1b" not in report.model_dump_json()
    assert all(len(each.before) <= 500 for each in report.changes)
