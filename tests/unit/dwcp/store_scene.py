"""What the store's tests share: stores, visits with known pages, and processes that die at a chosen point."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from blake3 import blake3

from dwcp.encoding.store import Store
from models.store import Scope, StoreSettings, StoreUse

PAGE = 4096
KEY = 16
MIB = 1 << 20


def settings(folder: Path, **more: Any) -> StoreSettings:
    return StoreSettings(folder=str(folder), **{"leave_free_mib": 0, **more})


def use(store: Store, vm: str = "vm-1", tenant: str = "default", scope: Scope = "vm") -> StoreUse:
    return StoreUse(settings=store.settings, vm=vm, tenant=tenant, scope=scope)


def page(seed: object) -> bytes:
    return random.Random(str(seed)).randbytes(PAGE)


def key(data: bytes) -> bytes:
    return blake3(data).digest(KEY)


def keep(
    store: Store, pages: list[bytes], vm: str = "vm-1", contents: bytes = b"map", spare: int = 3, **more: Any
) -> bytes | None:
    """Store a visit as the page stage would."""
    draft = store.begin(use(store, vm, **more), len(pages) + spare)
    if draft is None:
        return None
    for slot, data in enumerate(pages):
        os.pwrite(draft.fd, data, slot * PAGE)
    return draft.commit(contents, b"".join(map(key, pages)), len(pages))


def some_pages(count: int, seed: object = 0) -> list[bytes]:
    return [page(f"{seed}/{number}") for number in range(count)]


STEPS = (
    "mkdir", "open", "write", "ftruncate", "posix_fallocate", "fsync", "rename", "unlink", "rmdir", "close",
)  # fmt: skip
"""The calls between which a process may be killed."""


@contextmanager
def killed_before(step: int) -> Iterator[None]:
    """This process dies as by `kill -9` just before its `step`-th call of STEPS."""
    left = step

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        return call

    with ExitStack() as patches:
        for name in STEPS:
            patches.enter_context(mock.patch.object(os, name, wrap(getattr(os, name))))
        yield


def in_a_child(work: Callable[[], object], step: int | None = None) -> bool:
    """Do `work` in a process of its own; whether it lived to the end."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if step is None:
                work()
            else:
                with killed_before(step):
                    work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed by itself"
    return True
