"""The QMP client, against a small server that speaks as QEMU does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.qmp import Qmp, QmpClosed, QmpError

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}


class FakeQemu:
    """Answers `echo` with its arguments, refuses `nonsense`, keeps silent on `silence`, dies on `quit`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: Any) -> None:
            writer.write(json.dumps(message).encode() + b"\r\n")

        send(GREETING)
        while line := await reader.readline():
            call = json.loads(line)
            name, arguments = call["execute"], call.get("arguments", {})
            self.calls.append(name)
            if name == "quit":
                break
            if name == "nonsense":
                send({"error": {"class": "CommandNotFound", "desc": "no such command"}, "id": call["id"]})
            elif name == "migrate":
                send({"event": "MIGRATION", "data": {"status": "setup"}, "timestamp": {}})
                send({"return": {}, "id": call["id"]})
                send({"event": "MIGRATION", "data": {"status": "completed"}, "timestamp": {}})
            elif name != "silence":
                send({"return": arguments, "id": call["id"]})
        writer.close()


@pytest.fixture
async def qemu(tmp_path: Path) -> AsyncIterator[tuple[Qmp, FakeQemu]]:
    fake = FakeQemu()
    server = await asyncio.start_unix_server(fake.serve, str(tmp_path / "qmp.sock"))
    qmp = await Qmp.connect(tmp_path / "qmp.sock", "source")
    yield qmp, fake
    await qmp.close()
    server.close()


def status(value: str) -> Any:
    return lambda event: event.name == "MIGRATION" and event.data["status"] == value


async def test_it_negotiates_before_anything_else(qemu: tuple[Qmp, FakeQemu]) -> None:
    assert qemu[1].calls == ["qmp_capabilities"]


async def test_arguments_go_out_and_the_value_comes_back(qemu: tuple[Qmp, FakeQemu]) -> None:
    assert await qemu[0].execute("echo", {"max-bandwidth": 0}) == {"max-bandwidth": 0}


async def test_a_refused_command_says_who_refused_what_and_why(qemu: tuple[Qmp, FakeQemu]) -> None:
    with pytest.raises(QmpError, match=r"source: nonsense .*no such command"):
        await qemu[0].execute("nonsense")


async def test_events_are_kept_and_can_be_awaited_after_they_came(qemu: tuple[Qmp, FakeQemu]) -> None:
    qmp, _ = qemu
    await qmp.execute("migrate", {"uri": "unix:/x"})
    done = await qmp.event(status("completed"), 5, "the end")
    begun = await qmp.event(status("setup"), 5, "the start")
    assert begun.at <= done.at
    with pytest.raises(TimeoutError, match="source: another end did not come"):
        await qmp.event(status("completed"), 0.01, "another end", since=len(qmp.events))


async def test_no_answer_is_an_error_with_the_name_of_the_command(qemu: tuple[Qmp, FakeQemu]) -> None:
    with pytest.raises(TimeoutError, match="no answer to silence"):
        await qemu[0].execute("silence", within=0.01)


async def test_a_qemu_that_dies_wakes_everyone_who_waits(qemu: tuple[Qmp, FakeQemu]) -> None:
    qmp, _ = qemu
    waiting = asyncio.create_task(qmp.event(status("completed"), 30, "the end"))
    with pytest.raises(QmpClosed):
        await qmp.execute("quit")
    with pytest.raises(QmpClosed):
        await waiting
    with pytest.raises(QmpClosed):
        await qmp.execute("echo")


async def test_no_monitor_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(QmpClosed, match=r"no monitor at .*absent\.sock"):
        await Qmp.connect(tmp_path / "absent.sock", "source", within=0)
