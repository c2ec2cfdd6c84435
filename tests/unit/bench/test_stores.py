"""Content stores of a row: empty, or as an earlier move left them; never shared between rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.stores import index_images, stores
from dwcp.errors import StoreFailed
from models.store import StoreSettings


def test_a_row_begins_with_empty_stores_and_leaves_nothing(tmp_path: Path) -> None:
    with stores(tmp_path / "stores", None) as folder:
        assert list(folder.iterdir()) == []
        (folder / "host-a").mkdir()
    assert not folder.exists()


def test_a_row_changes_its_copy_and_not_the_stores_it_is_made_from(tmp_path: Path) -> None:
    like = tmp_path / "like"
    (like / "host-a").mkdir(parents=True)
    (like / "host-a" / "visit").write_text("pages")
    with stores(tmp_path / "stores", like) as folder:
        assert (folder / "host-a" / "visit").read_text() == "pages"
        (folder / "host-a" / "visit").write_text("other pages")
    assert (like / "host-a" / "visit").read_text() == "pages"


def test_stores_that_are_kept_are_moved_away(tmp_path: Path) -> None:
    with stores(tmp_path / "stores", None) as folder:
        (folder / "host-a").mkdir()
        folder.rename(tmp_path / "kept")
    assert (tmp_path / "kept" / "host-a").is_dir()


def test_a_store_that_learns_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "content.img").write_bytes(b"block" * 4096)
    index_images(StoreSettings(folder=str(tmp_path / "store"), images=(str(tmp_path / "content.img"),)))
    with pytest.raises(StoreFailed, match=r"knows no image of \('/nowhere"):
        index_images(StoreSettings(folder=str(tmp_path / "store"), images=("/nowhere.img",)))
