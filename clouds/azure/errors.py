"""Azure's error codes in our words. What is not here goes by its HTTP status. Addresses with a signature never get into
a text: whoever reads it could read the disk.
"""

from __future__ import annotations

import re

from clouds import errors

_LATER = "It is tried again; if it stays so, lower calls.parallel."
_QUOTA = "Ask for more under Quotas in the Azure portal, or remove what is no longer needed."
_PERMISSION = "Give these credentials the action; docs/clouds.md has the whole role."
_AGAIN = "It is tried again."
_RENEW = "Renew the credentials of this worker (az login, managed identity, client secret), and check its clock."
_CREDENTIALS = "Give this worker credentials as azure-identity finds them: environment, managed identity, az login."

_CODES: tuple[tuple[type[errors.CloudError], str, str], ...] = (
    (errors.Throttled, r"TooManyRequests|\w*RequestsThrottled|ServerBusy|SnapshotOperationRateExceeded", _LATER),
    (
        errors.Busy,
        r"(Zonal|Overconstrained|OverconstrainedZonal)?Allocation(Failed|Request)|AllocationFailed",
        "Azure has none of these right now: it is tried again; another zone or size may have.",
    ),
    (
        errors.Busy,
        r"AnotherOperationInProgress|OperationPreempted|RetryableError|ConcurrentRequestConflict|"
        r"DiskIsBeingProcessed|PendingCopyOperation|Conflict",
        "Another operation on it is under way.",
    ),
    (
        errors.CredentialsExpired,
        r"ExpiredAuthenticationToken",
        _RENEW,
    ),
    (errors.NotAuthenticated, r"InvalidAuthenticationToken\w*|AuthenticationFailedInvalidHeader", _CREDENTIALS),
    (
        errors.NotPermitted,
        r"(Linked)?AuthorizationFailed|AuthorizationFailure|Authorization(Permission|Protocol|Service|SourceIP)\w*|"
        r"RequestDisallowedByPolicy|LinkedAccessCheckFailed|SubscriptionNotRegistered",
        _PERMISSION,
    ),
    (errors.QuotaExceeded, r"\w*Quota\w*|SnapshotCountExceeded|ResourceCountExceeds\w*", _QUOTA),
    (errors.NotFound, r"\w*NotFound", "Check the id and the region."),
    (errors.Damaged, r"Md5Mismatch|Crc64Mismatch", "It is sent again."),
    (
        errors.Conflict,
        r"OperationNotAllowed|PropertyChangeNotAllowed|\w*InUse\w*|CannotDelete\w*|\w*AlreadyExists\w*|"
        r"ResourceGroupBeingDeleted|ScopeLocked|DiskAccess\w*|\w*SharedAccessSignature\w*",
        "Look at its state first.",
    ),
    (
        errors.Unavailable,
        r"InternalServerError|InternalError|ServiceUnavailable|ServerTimeout|GatewayTimeout|OperationTimedOut",
        _AGAIN,
    ),
)
"""(our error, Azure's codes, remedy); the first that fits the whole code."""
_STATUS: dict[int, tuple[type[errors.CloudError], str]] = {
    401: (errors.NotAuthenticated, _CREDENTIALS),
    403: (errors.NotPermitted, _PERMISSION),
    404: (errors.NotFound, "Check the id and the region."),
    408: (errors.Unavailable, _AGAIN),
    409: (errors.Conflict, "Look at its state first."),
    429: (errors.Throttled, _LATER),
}
_OVER_QUOTA = re.compile(r"\bquota\b", re.IGNORECASE)
_NETWORK = "It is tried again; check the network and the endpoint."


def translate(error: Exception, what: str) -> Exception:
    """Ours for one of azure-core's; any other is a bug and passes unchanged. `what` names the act."""
    if isinstance(error, errors.CloudError):
        return error
    from azure.core import exceptions as theirs

    if not isinstance(error, theirs.AzureError):
        return error
    said = plain(error)
    if isinstance(error, theirs.DecodeError | theirs.ServiceRequestError | theirs.ServiceResponseError):
        return errors.Unavailable(f"cannot {what}: {said}", _NETWORK)
    if isinstance(error, theirs.HttpResponseError) and error.response is not None:
        return _of_answer(error, what)
    if isinstance(error, theirs.ClientAuthenticationError):
        return errors.NotAuthenticated(f"cannot {what}: {said}", _CREDENTIALS)
    if said.startswith("MD5 mismatch"):
        return errors.Damaged(f"cannot {what}: {said}", "It is read again.")
    return errors.Final(f"cannot {what}: {said}", "See the words of the SDK.")


def plain(error: Exception) -> str:
    """Its words without signatures."""
    return re.sub(r"\bsig=[^&\s'\")]*", "sig=***", str(error))[:1000]


def _of_answer(error: Exception, what: str) -> errors.CloudError:
    code = _code(error)
    status = int(getattr(error, "status_code", 0) or 0)
    text = f"cannot {what}: Azure says {code or status}: {_message(error)}"
    if code == "OperationNotAllowed" and _OVER_QUOTA.search(text):  # Azure has one code for both
        return errors.QuotaExceeded(text, _QUOTA, code)
    if (code, status) == ("AuthenticationFailed", 403):  # storage, of an address whose time is over
        return errors.CredentialsExpired(text, _RENEW, code)
    for kind, pattern, remedy in _CODES:
        if re.fullmatch(pattern, code):
            return kind(text, remedy, code)
    if status < 400:  # the answer came well, and tells of a long operation that did not end well
        return errors.OperationFailed(text, "See Azure's words.", code)
    if status in _STATUS:
        kind, remedy = _STATUS[status]
        return kind(text, remedy, code)
    if status >= 500:
        return errors.Unavailable(text, _AGAIN, code)
    return errors.Invalid(text, "See Azure's words.", code)


def _code(error: Exception) -> str:
    """The resource manager tells it in `error.code`, storage in `error_code`."""
    inner = getattr(error, "error", None)
    told = getattr(inner, "code", None) or getattr(error, "error_code", None) or ""
    return str(getattr(told, "value", told))


def _message(error: Exception) -> str:
    told = getattr(getattr(error, "error", None), "message", None) or plain(error)
    return plain(Exception(told)).split("\n")[0]
