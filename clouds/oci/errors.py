"""Oracle's error codes in our words.

One code means two things there: 404 NotAuthorizedOrNotFound. It is NotFound of a thing; of a whole compartment, which
is there, the caller makes NotPermitted of it.
"""

from __future__ import annotations

import re
from typing import Any

from clouds import errors

_AGAIN = "It is tried again."
_LATER = "It is tried again; if it stays so, ask Oracle for a higher rate."
PERMISSION = "Give this user's group the verbs in the compartment's IAM policy; docs/clouds.md has the whole of it."
NETWORK = "It is tried again; check the network and the endpoint."
_CODES: tuple[tuple[type[errors.CloudError], str, str], ...] = (
    (errors.Throttled, r"TooManyRequests", _LATER),
    (errors.QuotaExceeded, r"LimitExceeded|QuotaExceeded", "Ask for more under Limits, Quotas and Usage."),
    (errors.CredentialsExpired, r"NotAuthenticated|SignUpRequired", "Renew the credentials of this worker, and check "
     "its key, fingerprint and clock."),
    (errors.NotPermitted, r"NotAuthorized|NotAllowed|Forbidden", PERMISSION),
    (errors.NotFound, r"NotAuthorizedOrNotFound|NotFound|\w+NotFound",
     "Check the id and the region, and that the IAM policy lets these credentials see it."),
    (errors.Busy, r"NoEtagMatch|IfMatchFailed|IfNoneMatchFailed|OutOfHostCapacity", _AGAIN),
    (errors.Conflict, r"IncorrectState|InvalidatedRetryToken|Conflict|\w*AlreadyExists",
     "Look at its state first, and use another step's token for another thing."),
)  # fmt: skip
_STATUS: dict[int, tuple[type[errors.CloudError], str]] = {
    401: (errors.CredentialsExpired, "Renew the credentials of this worker, and check its key, fingerprint and clock."),
    403: (errors.NotPermitted, PERMISSION),
    404: (errors.NotFound, "Check the id and the region."),
    409: (errors.Conflict, "Look at its state first."),
    412: (errors.Busy, _AGAIN),
    429: (errors.Throttled, _LATER),
}


def translate(error: Exception, what: str) -> Exception:
    """Ours for one of Oracle's; any other is a bug and passes unchanged. `what` names the act."""
    from oci import exceptions as theirs

    if isinstance(error, theirs.ServiceError):
        return _judged(what, str(error.code or ""), str(error.message or "")[:1000], int(error.status or 0))
    if isinstance(error, theirs.ConfigFileNotFound | theirs.InvalidConfig | theirs.InvalidPrivateKey):
        return errors.NotAuthenticated(
            f"cannot {what}: {error}", "Write ~/.oci/config (oci setup config), or set credentials to instance."
        )
    if isinstance(error, theirs.BaseRequestException):  # also from a body that is cut off
        return errors.Unavailable(f"cannot {what}: {error}", NETWORK)
    if isinstance(error, theirs.ClientError):
        return errors.Final(f"cannot {what}: {error}", "See the words of the SDK.")
    return error


def retry_after(error: Exception) -> float:
    """Seconds that Oracle asks to wait; 0 when it does not say."""
    headers: Any = getattr(error, "headers", None) or {}
    told = str(headers.get("retry-after", ""))
    return float(told) if told.isdecimal() else 0.0


def _judged(what: str, code: str, message: str, status: int) -> errors.CloudError:
    text = f"cannot {what}: Oracle says {status} {code}: {message}"
    if "out of host capacity" in message.lower():  # told as an internal error
        return errors.Busy(text, f"Oracle has none of these now. {_AGAIN}", code)
    for kind, pattern, remedy in _CODES:
        if re.fullmatch(pattern, code):
            return kind(text, remedy, code)
    if status in _STATUS:
        return _STATUS[status][0](text, _STATUS[status][1], code)
    if status >= 500:
        return errors.Unavailable(text, _AGAIN, code)
    return errors.Invalid(text, "See Oracle's words.", code)
