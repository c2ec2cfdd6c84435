"""Recipes and the files built from them: any edit, any crash, exactly the file or not at all."""

from __future__ import annotations

import os
import random
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp.encoding import recipe as recipes
from dwcp.encoding.chunks import HOLE, MOST, Chunker, chunk_id
from dwcp.encoding.rebuild import FileChunks, Rebuild, fill, rebuild
from dwcp.encoding.recipe import Builder, Recipe, decode, missing, of_file
from dwcp.errors import DigestMismatch, Incomplete, ProtocolError, TransferFailed

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
Source = Callable[[bytes], bytes | None]


def recipe_of(data: bytes) -> Recipe:
    chunker, builder = Chunker(), Builder()
    builder.add(chunker.feed(data))
    builder.add(chunker.end())
    return builder.done()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def chunks_of(data: bytes, recipe: Recipe) -> dict[bytes, bytes]:
    return {
        recipe.id(piece): data[offset : offset + recipe.lengths[piece]]
        for piece, offset in enumerate(recipe.offsets())
        if recipe.lengths[piece] > 0
    }


DATA = noise(200_000) + bytes(5 * HOLE) + noise(100_000, 1) + noise(200_000) + bytes(HOLE)
EDITS = st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(0, 40_000), st.binary(max_size=300)), max_size=4)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, cut, put in edits:
        data = data[:place] + put + data[place + cut :]
    return data


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


@given(EDITS)
def test_every_recipe_comes_back_as_it_was(edits: list[tuple[int, int, bytes]]) -> None:
    data = edited(DATA, edits)
    recipe = recipe_of(data)
    encoded = recipe.encode()
    assert decode(encoded) == recipe
    assert recipe.length == len(data)
    assert recipe.digest == blake3(data).digest()
    assert len(encoded) == recipes.size_of(len(recipe.lengths))


def test_a_recipe_is_the_bytes_its_page_says() -> None:
    data = b"a chunk" + bytes(20_000) + b"another"
    digest = blake3(data).digest()
    body = b"NCRP" + struct.pack("!HHIQ", 1, 0, 3, len(data)) + digest + struct.pack("!qqq", 7, -20_000, 7)
    body += chunk_id(b"a chunk") + bytes(32) + chunk_id(b"another")
    assert recipe_of(data).encode() == body + blake3(body).digest()


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_recipe_or_a_protocol_error(raw: bytes, sealed: bool) -> None:
    if sealed:
        raw = b"NCRP\0\1\0\0" + raw
        raw += blake3(raw).digest()
    try:
        decode(raw)
    except ProtocolError:
        return


def test_no_flipped_bit_passes() -> None:
    raw = bytearray(recipe_of(b"some" + bytes(20_000)).encode())
    for bit in range(len(raw) * 8):
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            decode(raw)
        raw[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("lengths", "ids", "words"),
    [
        ([MOST + 1], [b"x" * 32], "above"),
        ([5, 0], [b"x" * 32, b"x" * 32], "empty"),
        ([-5, -5], [bytes(32), bytes(32)], "hole after a hole"),
        ([-5], [b"x" * 32], "hole with a name"),
        ([1, 1, 1, 1], [b"x" * 32] * 4, "above what"),
    ],
)
def test_a_sealed_recipe_that_no_chunker_makes_is_refused(lengths: list[int], ids: list[bytes], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode(Recipe(array("q", lengths), b"".join(ids), bytes(32)).encode())


def test_a_recipe_above_the_limit_is_refused() -> None:
    with pytest.raises(ProtocolError, match="above what is taken"):
        decode(recipe_of(DATA).encode(), limit=len(DATA) - 1)


def test_what_is_missing_is_named_once_in_order() -> None:
    twice = noise(100_000) * 2
    recipe = recipe_of(twice)
    wanted = missing(recipe, ())
    assert len(wanted) == len({recipe.id(piece) for piece in wanted}) < len(recipe.lengths)
    assert wanted == sorted(wanted)
    assert missing(recipe, {recipe.id(0)}) == wanted[1:]
    assert missing(recipe, chunks_of(twice, recipe)) == []


def test_a_byte_at_the_front_of_64_mib_leaves_under_one_in_a_hundred_missing() -> None:
    data = noise(64 << 20)
    old, new = recipe_of(data), recipe_of(b"!" + data)
    resent = sum(new.lengths[piece] for piece in missing(new, chunks_of(data, old)))
    assert resent + len(new.encode()) < len(data) / 100


def test_a_file_is_read_as_its_bytes_say_and_its_holes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(noise(70_000))
        file.seek(50 << 20)
        file.write(noise(70_000, 1) + bytes(100_000))
        file.truncate(80 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20
    assert of_file(path) == recipe_of(path.read_bytes())
    for size in (0, 1, 40_000):
        path.write_bytes(noise(size))
        assert of_file(path) == recipe_of(noise(size))


def test_a_file_that_changes_while_it_is_read_gives_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    read_at = recipes.read_at

    def meddle(handle: int, offset: int, size: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        return read_at(handle, offset, size)

    monkeypatch.setattr(recipes, "read_at", meddle)
    with pytest.raises(TransferFailed, match="changed while it was read"):
        of_file(path)
    monkeypatch.setattr(recipes, "read_at", lambda handle, offset, size: (path.write_bytes(b""), read_at(handle, 9, 9)))
    with pytest.raises(TransferFailed, match="cut while it was read"):
        of_file(path)


@in_one_folder
@given(EDITS)
def test_any_edited_file_is_rebuilt_from_the_old_one_and_what_is_missing(
    tmp_path: Path, edits: list[tuple[int, int, bytes]]
) -> None:
    old, target, new = tmp_path / "old", tmp_path / "new", edited(DATA, edits)
    old.write_bytes(DATA)
    target.unlink(missing_ok=True)
    recipe, have = recipe_of(new), FileChunks(old)
    fresh = {piece: chunks_of(new, recipe)[recipe.id(piece)] for piece in missing(recipe, have)}
    with Rebuild(recipe, target) as work:
        fill(work, have)
        assert work.missing() == list(fresh)
        for piece, data in fresh.items():
            work.put(piece, data)
        work.finish()
    have.close()
    assert target.read_bytes() == new
    assert not parts(tmp_path)


@in_one_folder
@given(st.integers(0, 30), st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.binary(max_size=5000)), max_size=5))
def test_an_attempt_goes_on_from_whatever_a_crash_left(
    tmp_path: Path, reached: int, scribbles: list[tuple[int, bytes]]
) -> None:
    """`scribbles`: a crash may leave any bytes where chunks were being written."""
    target, recipe = tmp_path / "file", recipe_of(DATA)
    target.unlink(missing_ok=True)
    chunks = chunks_of(DATA, recipe)
    first = Rebuild(recipe, target)
    for piece in first.missing()[:reached]:
        first.put(piece, chunks[recipe.id(piece)])
    left = len(first.missing())
    first.close()
    assert not target.exists()
    (part,) = parts(tmp_path)
    hole = range(200_000, 200_000 + 5 * HOLE)
    with part.open("r+b") as file:
        for place, junk in scribbles:
            if place not in hole and place + len(junk) < len(DATA) - HOLE and place + len(junk) not in hole:
                file.seek(place)
                file.write(junk)
    with Rebuild(recipe, target) as work:
        assert len(work.missing()) >= left if scribbles else len(work.missing()) == left
        fill(work, chunks.get)
        work.finish()
    assert target.read_bytes() == DATA


def test_a_hole_stays_a_hole(tmp_path: Path) -> None:
    data = noise(50_000) + bytes(64 << 20) + noise(50_000, 1)
    recipe = recipe_of(data)
    rebuild(recipe, chunks_of(data, recipe).get, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert (tmp_path / "file").stat().st_blocks * 512 < 1 << 20


def test_an_empty_file_and_one_hole_are_files_too(tmp_path: Path) -> None:
    for data in (b"", bytes(100_000), b"\0"):
        recipe = recipe_of(data)
        rebuild(recipe, chunks_of(data, recipe).get, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == data


def test_what_the_sources_lack_is_told_and_what_they_had_is_kept(tmp_path: Path) -> None:
    recipe, target = recipe_of(DATA), tmp_path / "file"
    chunks = chunks_of(DATA, recipe)
    some = dict(list(chunks.items())[::2])
    with pytest.raises(Incomplete) as caught:
        rebuild(recipe, some.get, target)
    assert caught.value.missing == missing(recipe, some)
    rest = {name: data for name, data in chunks.items() if name not in some}
    rebuild(recipe, rest.get, target)
    assert target.read_bytes() == DATA


def test_until_the_end_the_target_is_what_it_was(tmp_path: Path) -> None:
    recipe, target = recipe_of(DATA), tmp_path / "file"
    target.write_bytes(b"old")
    with Rebuild(recipe, target) as work:
        fill(work, chunks_of(DATA, recipe).get)
        assert target.read_bytes() == b"old"
        work.finish()
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_wrong_chunk_is_never_written_and_another_source_may_still_give_it(tmp_path: Path) -> None:
    recipe, target = recipe_of(DATA), tmp_path / "file"
    with Rebuild(recipe, target) as work:
        for wrong in (b"", b"x" * recipe.lengths[0]):
            with pytest.raises(DigestMismatch, match="nothing was written"):
                work.put(0, wrong)
        fill(work, lambda name: b"wrong")
        assert work.missing() == missing(recipe, ())
        fill(work, chunks_of(DATA, recipe).get)
        work.finish()
    assert target.read_bytes() == DATA


def test_bytes_that_rot_before_the_end_are_found_and_the_work_is_dropped(tmp_path: Path) -> None:
    recipe, target = recipe_of(DATA), tmp_path / "file"
    with Rebuild(recipe, target) as work:
        fill(work, chunks_of(DATA, recipe).get)
        with parts(tmp_path)[0].open("r+b") as file:
            file.seek(200_000 + HOLE)
            file.write(b"in a hole")
        with pytest.raises(DigestMismatch, match="check the disk"):
            work.finish()
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_build_one_file(tmp_path: Path) -> None:
    recipe, target = recipe_of(DATA), tmp_path / "file"
    with Rebuild(recipe, target), pytest.raises(TransferFailed, match="another process"):
        Rebuild(recipe, target)
    with Rebuild(recipe, target) as work:
        assert work.missing()


def test_a_part_that_was_finished_while_it_was_opened_is_not_mistaken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, target = recipe_of(DATA), tmp_path / "file"
    first = Rebuild(recipe, target)
    fill(first, chunks_of(DATA, recipe).get)
    real = os.open

    def slow_open(path: object, flags: int, mode: int = 0o777) -> int:
        handle = real(path, flags, mode)  # type: ignore[arg-type]
        if flags & os.O_CREAT:
            monkeypatch.undo()
            first.finish()
            first.close()
        return handle

    monkeypatch.setattr(os, "open", slow_open)
    with Rebuild(recipe, target) as second:
        assert second.missing()
        assert target.read_bytes() == DATA
    assert target.read_bytes() == DATA


def test_an_older_attempt_at_another_recipe_is_swept_away_unless_somebody_is_at_it(tmp_path: Path) -> None:
    older, other, newer = recipe_of(b"older"), recipe_of(b"other"), recipe_of(b"newer")
    target = tmp_path / "file"
    bystander = tmp_path / ".file.not-ours.part"
    bystander.write_bytes(b"")
    Rebuild(older, target).close()
    with Rebuild(other, target):
        with Rebuild(newer, target):
            assert len(parts(tmp_path)) == 3
        assert bystander.exists()


def test_a_source_file_that_changed_gives_what_is_still_in_it(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(DATA)
    recipe = recipe_of(DATA)
    have = FileChunks(path)
    with path.open("r+b") as file:
        file.write(b"changed")
    assert have(recipe.id(0)) is None
    assert recipe.id(0) in have
    assert have(recipe.id(1)) == chunks_of(DATA, recipe)[recipe.id(1)]
    assert have(b"x" * 32) is None
    have.close()
