"""Google's errors in our words: of calls (HTTP) and of operations that were accepted and then failed.

Google words one thing in several ways (`quotaExceeded`, `QUOTA_EXCEEDED`): a code is compared in small letters, without
underscores. What no code tells, the HTTP status does.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from clouds import errors

_LATER = "It is tried again; if it stays so, ask Google for a higher rate."
_LOOK = "It is tried again, after a fresh look at its state."
_AGAIN = "It is tried again."
_QUOTA = "Ask for more under IAM & Admin, Quotas in Google's console, or remove what is no longer needed."
_PERMISSION = "Give these credentials the role in the project's IAM policy; docs/clouds.md has the whole list."
_EXPIRED = "Renew the credentials of this worker (gcloud auth, service account, metadata server), and check its clock."
_CREDENTIALS = "Give this worker credentials as google.auth finds them: service account file, gcloud, metadata server."
_TAKEN = "Something else holds the name, or needs the thing: use another, or remove what holds it."
_ABSENT = "Check the id and the region, zone and project."
NETWORK = "It is tried again; check the network and the endpoint."

_CODES: tuple[tuple[type[errors.CloudError], str, str], ...] = (
    (
        errors.Throttled,
        r"(user)?ratelimitexceeded|resourceoperationratedexceeded|resourceoperationrateexceeded",
        _LATER,
    ),
    (errors.Busy, r"\w*(resourcepoolexhausted|stockout)\w*", f"Google has none of these now. {_AGAIN}"),
    (errors.Busy, r"resourcenotready|conditionnotmet", _LOOK),
    (errors.QuotaExceeded, r"(daily|quota|storage|resourceusage)?(limit|quota)exceeded|quotaexceeded", _QUOTA),
    (errors.NotAuthenticated, r"required|loginrequired", _CREDENTIALS),
    (errors.CredentialsExpired, r"autherror|expired|unauthenticated", _EXPIRED),
    (errors.NotPermitted, r"forbidden|insufficientpermissions|permissionserror|accessnotconfigured", _PERMISSION),
    (errors.NotFound, r"(resource)?notfound", _ABSENT),
    (errors.Conflict, r"(resource)?(alreadyexists|inuse|inusebyanotherresource)|conflict", _TAKEN),
    (errors.Unavailable, r"internalerror|backenderror|serviceunavailable", _AGAIN),
)
"""(our error, Google's codes, remedy); the first that fits the whole code."""
_STATUS: dict[int, tuple[type[errors.CloudError], str]] = {
    401: (errors.CredentialsExpired, _EXPIRED),
    403: (errors.NotPermitted, _PERMISSION),
    404: (errors.NotFound, _ABSENT),
    408: (errors.Unavailable, _AGAIN),
    409: (errors.Conflict, _TAKEN),
    410: (errors.NotFound, _ABSENT),
    412: (errors.Busy, _LOOK),
    429: (errors.Throttled, _LATER),
}


def translate(error: Exception, what: str) -> Exception:
    """Ours for one of Google's; any other is a bug and passes unchanged. `what` names the act."""
    from google.api_core import exceptions as theirs
    from google.auth import exceptions as auth
    from requests import exceptions as transport

    if isinstance(error, theirs.GoogleAPICallError):
        return _judged(what, _reason(error), error.message, int(error.code or 0))
    if isinstance(error, auth.TransportError | transport.ConnectionError | transport.Timeout):
        return errors.Unavailable(f"cannot {what}: {error}", NETWORK)
    if isinstance(error, auth.RefreshError):
        return errors.CredentialsExpired(f"cannot {what}: {error}", _EXPIRED)
    if isinstance(error, auth.GoogleAuthError):
        return errors.NotAuthenticated(f"cannot {what}: {error}", _CREDENTIALS)
    if isinstance(error, transport.RequestException):
        return errors.Unavailable(f"cannot {what}: {error}", NETWORK)
    return error


def of_operation(operation: Any, what: str) -> errors.CloudError | None:
    """None when it went well. A failure that no code explains is OperationFailed."""
    told = [(str(error.code), str(error.message)) for error in operation.error.errors]
    if not told and not operation.http_error_status_code:
        return None
    code, message = told[0] if told else ("", str(operation.http_error_message))
    kind, remedy = _kind(code) or (
        errors.OperationFailed,
        "See Google's words, and repeat it under another step's token.",
    )
    return kind(f"cannot {what}: Google's operation {operation.name} failed: {code}: {message}", remedy, code)


def retry_after(error: Exception) -> float:
    """Seconds that Google asks to wait; 0 when it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    told = str(headers.get("Retry-After", ""))
    return float(told) if told.isdecimal() else 0.0


def _reason(error: Any) -> str:
    """Google's code; where the SDK has not looked for it (a media upload), the answer has it."""
    told = list(error.errors or ())
    if not told and error.response is not None:
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            told = error.response.json()["error"]["errors"]
    return next((str(item.get("reason", "")) for item in told if isinstance(item, dict)), "")


def _judged(what: str, code: str, message: str, status: int) -> errors.CloudError:
    text = f"cannot {what}: Google says {status} {code}: {message[:1000]}"
    found = _kind(code) or _STATUS.get(status)
    if found:
        return found[0](text, found[1], code or str(status))
    if status >= 500:
        return errors.Unavailable(text, _AGAIN, code or str(status))
    return errors.Invalid(text, "See Google's words.", code or str(status))


def _kind(code: str) -> tuple[type[errors.CloudError], str] | None:
    plain = code.replace("_", "").lower()
    return next(((kind, remedy) for kind, pattern, remedy in _CODES if re.fullmatch(pattern, plain)), None)
