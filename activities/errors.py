"""The one place where errors of the floors below become Temporal's: a type a face can act on, final or retryable.

| below | type | retried |
| --- | --- | --- |
| clouds.kvm NotFound | NotFound | no |
| clouds.kvm Refused, any other Final | Refused | no |
| clouds.kvm MoveFailed | MigrationFailed | no |
| clouds.kvm Ambiguous | Ambiguous | no |
| clouds.kvm HostUnavailable | HostUnavailable | yes |
| clouds NotFound | NotFound | no |
| clouds SourceChanged | SourceChanged | no |
| clouds, any other Final | Refused | no |
| clouds, any other Retryable | CloudUnavailable | yes |
| dwcp StartFailed, ControlFailed | DataPathFailed | yes |
| dwcp, any other | DataPathFailed | no |
| a disk of the host that takes no more | HostUnavailable | yes |

Anything else is a bug: it passes as it is, and Temporal retries it with its trace in the history.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from temporalio.exceptions import ApplicationError

from clouds import errors as clouds
from clouds.kvm import errors as kvm
from dwcp import errors as dwcp
from models import failures

P = ParamSpec("P")
R = TypeVar("R")


_TYPES: tuple[tuple[type[Exception], str, bool], ...] = (
    (kvm.NotFound, failures.NOT_FOUND, True),
    (kvm.MoveFailed, failures.MIGRATION_FAILED, True),
    (kvm.Ambiguous, failures.AMBIGUOUS, True),
    (kvm.Final, failures.REFUSED, True),
    (kvm.Retryable, failures.HOST_UNAVAILABLE, False),
    (clouds.NotFound, failures.NOT_FOUND, True),
    (clouds.SourceChanged, failures.SOURCE_CHANGED, True),
    (clouds.Final, failures.REFUSED, True),
    (clouds.Retryable, failures.CLOUD_UNAVAILABLE, False),
    (dwcp.StartFailed, failures.DATA_PATH_FAILED, False),
    (dwcp.ControlFailed, failures.DATA_PATH_FAILED, False),
    (dwcp.DwcpError, failures.DATA_PATH_FAILED, True),
)
"""(error below, type, final); the first that fits."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def final(kind: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=kind, non_retryable=True)


def retryable(kind: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=kind)


def of(error: Exception) -> Exception:
    """Temporal's error for one of the floors below; any other unchanged."""
    for below, kind, is_final in _TYPES:
        if isinstance(error, below):
            return ApplicationError(str(error), type=kind, non_retryable=is_final)
    if isinstance(error, OSError) and error.errno in _FULL:
        return retryable(
            failures.HOST_UNAVAILABLE,
            f"a disk of this host takes no more: {error}. Make room where its settings put state_dir, the store and "
            f"the images of VMs, and start again",
        )
    return error


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """An activity whose errors are told in Temporal's types."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            told = of(error)
            if told is error:
                raise
            raise told from error

    return wrapper
