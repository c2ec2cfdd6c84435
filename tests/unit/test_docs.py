"""The pages hang together: every link leads somewhere, every page can be reached, every workflow is described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workflows import EVENT_WORKFLOWS, WORKFLOWS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text())


def links(page: Path) -> list[tuple[Path, str]]:
    """(file, section) of what it links to within the project."""
    found = [link for link in _LINK.findall(prose(page)) if "://" not in link and not link.startswith("mailto:")]
    parts = [link.partition("#") for link in found]
    return [((page.parent / file).resolve() if file else page, section) for file, _, section in parts]


def sections(page: Path) -> set[str]:
    """Names by which the headings of a page can be linked to, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title).lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_section_that_exist(page: Path) -> None:
    for target, section in links(page):
        assert target.exists(), f"{page.name} links to {target}, which does not exist"
        if section and target.suffix == ".md":
            assert section in sections(target), f"{page.name}: {target.name} has no section #{section}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        todo += [target for target, _ in links(page)]
    assert sorted(set(PAGES) - reached) == []


def test_every_workflow_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "workflows" / "README.md").read_text()
    for each in [*WORKFLOWS, *EVENT_WORKFLOWS]:
        name = each.__temporal_workflow_definition.name  # type: ignore[attr-defined]
        assert re.search(rf"\b{name.removeprefix('novacron.')}\b", index), f"{name} is not described"
