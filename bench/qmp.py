"""A client of QEMU's monitor (QMP): commands one at a time, events kept in order with their time of arrival.

One task reads the socket, so that an event is stamped when it arrives and not when somebody asks for it.
Every wait has a deadline, and a QEMU that goes away wakes every waiter with QmpClosed.
Protocol: https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINE_LIMIT = 8 << 20
"""Longest line accepted from QEMU. The longest answers (schemas) are under 1 MiB."""


class QmpError(RuntimeError):
    """QEMU refused a command."""


class QmpClosed(ConnectionError):
    """The monitor's connection ended, so most likely QEMU did."""


@dataclass(frozen=True)
class Event:
    at: float
    """time.monotonic() of its arrival."""
    name: str
    data: dict[str, Any]


class Qmp:
    """One connection to one QEMU. Make it with `connect`."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.events: list[Event] = []
        self._reader = reader
        self._writer = writer
        self._serial = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Condition()
        self._closed: QmpClosed | None = None
        self._task = asyncio.create_task(self._read(), name=f"qmp {name}")

    @classmethod
    async def connect(cls, path: Path, name: str, within: float = 20) -> Qmp:
        """Connect, and leave the negotiation mode. Awaits the socket of a QEMU that still starts.

        Raises QmpClosed when there is no monitor within that many seconds.
        """
        deadline = time.monotonic() + within
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_LIMIT)
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() > deadline:
                    raise QmpClosed(
                        f"{name}: no monitor at {path} within {within:g} s ({error}); see QEMU's log"
                    ) from error
                await asyncio.sleep(0.02)
        try:
            greeting = await asyncio.wait_for(reader.readline(), within)
            if b'"QMP"' not in greeting:
                raise QmpClosed(f"{name}: {path} greeted with {greeting[:80]!r}, which is not QMP")
        except BaseException:
            writer.close()
            raise
        self = cls(name, reader, writer)
        try:
            await self.execute("qmp_capabilities", within=within)
        except BaseException:
            await self.close()
            raise
        return self

    async def _read(self) -> None:
        reason = "QEMU closed it"
        try:
            while line := await self._reader.readline():
                at = time.monotonic()
                message = json.loads(line)
                if "event" in message:
                    self.events.append(Event(at, message["event"], message.get("data", {})))
                    async with self._changed:
                        self._changed.notify_all()
                elif (answer := self._answers.get(message.get("id", -1))) and not answer.done():
                    answer.set_result(message)
        except (OSError, ValueError) as error:
            reason = str(error)
        finally:
            self._closed = QmpClosed(f"{self.name}: monitor connection lost: {reason}; see QEMU's log")
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(self._closed)
            self._answers.clear()
            async with self._changed:
                self._changed.notify_all()

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, within: float = 30) -> Any:
        """Run a command and return its value.

        Raises QmpError when QEMU refuses it, QmpClosed when QEMU is gone, TimeoutError.
        """
        if self._closed:
            raise self._closed
        self._serial += 1
        serial = self._serial
        answer = self._answers[serial] = asyncio.get_running_loop().create_future()
        call = {"execute": command, "arguments": arguments or {}, "id": serial}
        try:
            self._writer.write(json.dumps(call).encode() + b"\n")
            message = await asyncio.wait_for(answer, within)
        except TimeoutError as error:
            raise TimeoutError(f"{self.name}: no answer to {command} within {within:g} s") from error
        finally:
            self._answers.pop(serial, None)
        if "error" in message:
            raise QmpError(f"{self.name}: {command} {arguments or ''} refused: {message['error'].get('desc')}")
        return message["return"]

    async def event(self, wanted: Callable[[Event], bool], within: float, what: str, since: int = 0) -> Event:
        """The first event, of those from index `since` on, that is wanted; waits for it.

        Raises TimeoutError that names `what`, QmpClosed.
        """
        seen = since
        try:
            async with asyncio.timeout(within), self._changed:
                while True:
                    while seen < len(self.events):
                        event = self.events[seen]
                        seen += 1
                        if wanted(event):
                            return event
                    if self._closed:
                        raise self._closed
                    await self._changed.wait()
        except TimeoutError as error:
            raise TimeoutError(f"{self.name}: {what} did not come within {within:g} s") from error

    async def close(self) -> None:
        """End the connection; QEMU goes on. Safe to call twice."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
