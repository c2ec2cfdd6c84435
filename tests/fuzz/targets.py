"""All decoders by name. A module that is not there is an error when its target is loaded, never a target less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.fuzz.engine import Case


def _wire(name: str) -> Callable[[], Case]:
    def load() -> Case:
        from tests.fuzz import wire

        return getattr(wire, name)()  # type: ignore[no-any-return]

    return load


def _codec(name: str) -> Callable[[], Case]:
    def load() -> Case:
        from dwcp.transport.frames import Codec
        from tests.fuzz import wire

        return wire.codec(Codec[name])()

    return load


def _files(name: str) -> Callable[[], Case]:
    def load() -> Case:
        from tests.fuzz import files

        return getattr(files, name)()  # type: ignore[no-any-return]

    return load


def _tokens(*engines: str) -> Callable[[], Case]:
    def load() -> Case:
        from tests.fuzz import pages

        return pages.tokens(lambda: tuple(pages.engine(name) for name in engines))()

    return load


def _stream(grammar: str, *engines: str) -> Callable[[], Case]:
    def load() -> Case:
        from tests.fuzz import pages

        return pages.stream(
            "nbd" if grammar == "nbd" else "ram", lambda: tuple(pages.engine(name) for name in engines)
        )()

    return load


TARGETS: Final[dict[str, Callable[[], Case]]] = {
    "header": _wire("header"),
    "frame": _wire("frame"),
    "opening": _wire("opening"),
    "lane": _wire("lane"),
    "peer": _wire("peer"),
    "codec-lz4": _codec("LZ4"),
    "codec-zstd": _codec("ZSTD"),
    "chain": _wire("chain"),
    "store-talk": _wire("store_talk"),
    "config": _wire("config"),
    "control-request": _wire("control_request"),
    "control-answer": _wire("control_answer"),
    "tokens-python": _tokens("python"),
    "tokens-c": _tokens("c"),
    "tokens-both": _tokens("python", "c"),
    "stream-ram-python": _stream("ram", "python"),
    "stream-ram-both": _stream("ram", "python", "c"),
    "stream-nbd-both": _stream("nbd", "python", "c"),
    "contents": _files("contents"),
    "store": _files("store"),
    "chunks": _files("chunks"),
    "recipe": _files("recipe"),
    "receiver": _files("receiver"),
    "sender": _files("sender"),
}


def _raises() -> Case:
    """For the engine's own tests: a finding within a second."""

    def run(data: bytes) -> None:
        if data[:1] == b"!":
            raise KeyError("found")

    return Case([b"a"], run)


def _dies() -> Case:
    def run(data: bytes) -> None:
        if data[:1] == b"!":
            import ctypes

            ctypes.string_at(0)

    return Case([b"a"], run)


def _hangs() -> Case:
    def run(data: bytes) -> None:
        while data[:1] == b"!":
            pass

    return Case([b"a"], run)


SELF_TESTS: Final[dict[str, Callable[[], Case]]] = {"_raises": _raises, "_dies": _dies, "_hangs": _hangs}


def load(name: str) -> Case:
    """Raises KeyError for an unknown name, ImportError when what it looks at is missing."""
    return {**TARGETS, **SELF_TESTS}[name]()
