"""The two ends of the stores' talk (dwcp/encoding/messages.py): a thread each, beside the flow that carries it.

Their flow is internal: at each end it leads to one half of a socket pair instead of a program, so it is ordered,
acknowledged and resumed like any other, and goes before bulk because it is small.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

from dwcp.encoding import messages
from dwcp.encoding.messages import (
    KEY,
    KEYS_AT_ONCE,
    NO_ROOT,
    PAGES_AT_ONCE,
    WANT_AT_ONCE,
    BaseIs,
    Done,
    Feed,
    Keys,
    Message,
    Pages,
    Roots,
    Same,
    Want,
)
from dwcp.encoding.pages import Have
from dwcp.errors import DwcpError, ProtocolError
from dwcp.known import Known

log = logging.getLogger(__name__)

SERVICE: Final = "store"

Fetch = Callable[[int, int, tuple[int, ...]], list[bytes] | None]
"""(flow, batch, ordinals) -> those pages of a batch that is not acknowledged yet, None when it is."""


class Talk:
    """What both ends share: the socket, and a thread that takes messages in."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.near, self.far = socket.socketpair()
        """`far` is what the flow reads and writes."""
        self._sending = threading.Lock()
        self.over = False
        self.ready = False
        """Everything has been said, or heard."""

    def start(self) -> None:
        threading.Thread(target=self._run, name="stores", daemon=True).start()

    def close(self) -> None:
        """Idempotent; whoever waits for an answer stops waiting."""
        self.over = True
        try:
            self.near.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # closed before

    def _say(self, message: Message) -> None:
        with self._sending:
            self.near.sendall(messages.encode(message))

    def _run(self) -> None:
        feed = Feed()
        try:
            self._begin()
            while data := self.near.recv(1 << 18):
                for message in feed.add(data):
                    self._hear(message)
        except (OSError, DwcpError) as error:  # costs what the stores would have saved
            if not self.over:
                log.warning("the stores no longer talk: %s", error)
        except Exception:
            log.exception("the stores no longer talk")
        finally:
            self.over = True
            self._ended()
            self.near.close()

    def _begin(self) -> None: ...

    def _hear(self, message: Message) -> None:
        raise NotImplementedError

    def _ended(self) -> None: ...


class SourceTalk(Talk):
    """Says what this host has, hears what the other has, and hands out what that one lost."""

    def __init__(self, known: Known, fetch: Fetch) -> None:
        super().__init__(known)
        self._fetch = fetch
        self._keys = bytearray()

    def _begin(self) -> None:
        visits, images = self._known.visit_roots(), self._known.image_roots()
        self._say(Roots(visits[: messages.MAX_ROOTS], images[: messages.MAX_ROOTS]))

    def _hear(self, message: Message) -> None:
        match message:
            case BaseIs():
                if message.root != NO_ROOT:
                    self._known.use_base(message.root)
            case Same():
                own = self._known.keys_of(message.root)
                self._add(own[: message.count * KEY].ljust(message.count * KEY, b"\0"))
            case Keys():
                self._add(message.keys)
            case Done():
                if message.count * KEY != len(self._keys):
                    raise ProtocolError(f"DONE says {message.count} keys, {len(self._keys) // KEY} came")
                if message.count:
                    self._known.have = Have(bytes(self._keys))
                    log.info("the destination has %d pages that may be ours", message.count)
                self._keys.clear()
                self.ready = True
            case Want():
                self._answer(message)
            case _:
                raise ProtocolError(f"{type(message).__name__} is not for a source")

    def _add(self, keys: bytes) -> None:
        self._keys += keys
        if len(self._keys) > messages.MAX_KEYS * KEY:
            raise ProtocolError(f"more than {messages.MAX_KEYS} keys")

    def _answer(self, want: Want) -> None:
        pages = self._fetch(want.flow, want.batch, want.ordinals)
        if pages is None:
            self._say(Pages(want.flow, want.batch, ()))
            return
        log.warning("the destination's store lost %d pages; they are sent again", len(pages))
        for at in range(0, len(pages), PAGES_AT_ONCE):
            self._say(Pages(want.flow, want.batch, tuple(pages[at : at + PAGES_AT_ONCE])))


class DestinationTalk(Talk):
    """Says what this host has, and asks for what it lost."""

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._came = threading.Condition()
        self._pages: list[bytes] | None = []

    def _hear(self, message: Message) -> None:
        match message:
            case Roots():
                self._tell(message)
            case Pages():
                with self._came:
                    if self._pages is not None:
                        self._pages = [*self._pages, *message.pages] if message.pages else None
                    self._came.notify_all()
            case _:
                raise ProtocolError(f"{type(message).__name__} is not for a destination")

    def _tell(self, theirs: Roots) -> None:
        common = [root for root in self._known.visit_roots() if root in theirs.visits]
        base = next((root for root in common if self._known.use_base(root)), None)
        self._say(BaseIs(base or NO_ROOT))
        total = 0
        for root, keys in self._known.sets(base, frozenset(theirs.images)):
            count = len(keys) // KEY
            total += count
            if root is not None:
                self._say(Same(root, count))
                continue
            for at in range(0, len(keys), KEYS_AT_ONCE * KEY):
                self._say(Keys(keys[at : at + KEYS_AT_ONCE * KEY]))
        self._say(Done(total))
        self.ready = True

    def want(self, flow: int, batch: int, ordinals: tuple[int, ...]) -> list[bytes]:
        """Ask the source for pages of a batch, and wait. Raises DwcpError when they do not come."""
        found: list[bytes] = []
        for at in range(0, len(ordinals), WANT_AT_ONCE):
            part = ordinals[at : at + WANT_AT_ONCE]
            with self._came:
                self._pages = []
            self._say(Want(flow, batch, part))
            with self._came:
                while self._pages is not None and len(self._pages) < len(part) and not self.over:
                    self._came.wait()
                if self._pages is None or len(self._pages) != len(part):
                    raise DwcpError(f"{len(part)} pages that the store lost did not come; start the migration anew")
                found += self._pages
        return found

    def _ended(self) -> None:
        with self._came:
            self._came.notify_all()
