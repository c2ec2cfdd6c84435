"""The floors of docs/architecture.md hold: a folder imports only from floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"models": 0, "dwcp": 1, "clouds": 1, "activities": 2, "workflows": 3, "workers": 4, "novacron": 5}
ROOMS = ["calls", "events", "site", "sharing", "plan", "move", "recovery", "cloud", "fleet"]
"""Of workflows/, from the lowest."""
IO_MODULES = {"libvirt", "socket", "subprocess", "requests", "httpx", "threading"}


def imported(path: Path) -> set[str]:
    """The modules a file imports, by their whole names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_imports_only_from_floors_below_it(folder: str) -> None:
    assert modules(folder), f"{folder}/ has no modules"
    for path in modules(folder):
        for name in imports(path) & FLOORS.keys() - {folder}:
            assert FLOORS[name] < FLOORS[folder], f"{path.relative_to(ROOT)} imports {name} from a floor not below it"


@pytest.mark.parametrize("folder", ["models", "dwcp", "clouds"])
def test_the_lower_floors_know_nothing_of_temporal(folder: str) -> None:
    for path in modules(folder):
        assert "temporalio" not in imports(path), f"{path.relative_to(ROOT)} imports temporalio"


def test_workflows_do_no_input_or_output() -> None:
    for path in modules("workflows"):
        assert not imports(path) & IO_MODULES, f"{path.relative_to(ROOT)} imports {imports(path) & IO_MODULES}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_workflows_imports_only_from_rooms_below_it(room: str) -> None:
    above = {f"workflows.{each}" for each in ROOMS[ROOMS.index(room) + 1 :]}
    for path in modules(f"workflows/{room}"):
        found = {".".join(name.split(".")[:2]) for name in imported(path)}
        assert not found & above, f"{path.relative_to(ROOT)} imports {found & above} from above"


def test_every_room_of_the_workflows_has_its_place() -> None:
    assert {path.parent.name for path in modules("workflows")} == {*ROOMS, "workflows"}


def test_no_module_is_two_ideas_long() -> None:
    for folder in FLOORS:
        for path in modules(folder):
            limit = 250 if folder == "workflows" else 600
            assert len(path.read_text().splitlines()) <= limit, f"{path.relative_to(ROOT)} is over {limit} lines"
