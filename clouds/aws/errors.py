"""AWS's error codes in our words. A code that is not here is final when AWS blames the caller (4xx), else retryable."""

from __future__ import annotations

import re
from typing import Any

from clouds import errors

_LATER = "It is tried again; if it stays so, lower calls.parallel or ask AWS for a higher rate."
_QUOTA = "Ask for more in Service Quotas, or remove what is no longer needed."
_PERMISSION = "Give these credentials the action; docs/clouds.md has the whole IAM policy."

_CODES: tuple[tuple[type[errors.CloudError], str, str], ...] = (
    (
        errors.Throttled,
        r"RequestLimitExceeded|Throttling(Exception)?|RequestThrottled(Exception)?|ThrottledException|SlowDown|"
        r"TooManyRequestsException|EC2ThrottledException|BandwidthLimitExceeded",
        _LATER,
    ),
    (
        errors.Busy,
        r"ConcurrentLimitExceededException|\w*Concurrent\w*LimitExceeded|PendingSnapshotsLimitExceeded",
        "Other snapshots are being made.",
    ),
    (
        errors.Busy,
        r"Insufficient\w*Capacity|InsufficientFreeAddressesInSubnet",
        "AWS has none of these right now: it is tried again; another zone or size may have.",
    ),
    (
        errors.CredentialsExpired,
        r"ExpiredToken(Exception)?|RequestExpired|TokenRefreshRequired",
        "Renew the credentials of this worker (aws sso login, role, instance profile), and check its clock.",
    ),
    (
        errors.NotAuthenticated,
        r"AuthFailure|InvalidClientTokenId|UnrecognizedClientException|SignatureDoesNotMatch|MissingAuthenticationToken|"
        r"InvalidSignatureException|IncompleteSignature|OptInRequired|NotSignedUp",
        "Check the credentials, and that the account uses this service and region.",
    ),
    (
        errors.NotPermitted,
        r"UnauthorizedOperation|AccessDenied(Exception)?|Blocked|KMSKeyNotAccessibleFault",
        _PERMISSION,
    ),
    (errors.QuotaExceeded, r"\w*LimitExceeded(Exception)?|ServiceQuotaExceededException", _QUOTA),
    (
        errors.NotFound,
        r"\w+\.(NotFound|Unknown|Unavailable)|NoSuch\w+|ResourceNotFoundException",
        "Check the id and the region.",
    ),
    (
        errors.Conflict,
        r"IncorrectInstanceState|IncorrectState|VolumeInUse|OperationNotPermitted",
        "Look at its state first.",
    ),
    (
        errors.Conflict,
        r"Idempotent(ParameterMismatch|InstanceTerminated)|ConflictException|\w+\.(Duplicate|InUse)|ResourceInUse|"
        r"ResourceAlreadyExistsException",
        "Something else holds the name or the token: use another, or remove what holds it.",
    ),
    (
        errors.Unavailable,
        r"InternalError|InternalServerException|InternalFailure|ServerInternal|Unavailable|ServiceUnavailable",
        "It is tried again.",
    ),
)
"""(our error, AWS's codes, remedy); the first that fits the whole code."""
_STALE = {"INVALID_BLOCK_TOKEN", "INVALID_PAGE_TOKEN"}
"""Tokens of an older list: the next attempt lists anew."""


def translate(error: Exception, what: str) -> Exception:
    """Ours for one of botocore's; any other is a bug and passes unchanged. `what` names the act."""
    from botocore import exceptions as theirs
    from botocore.parsers import ResponseParserError

    if isinstance(error, theirs.ClientError):
        return _of_answer(error.response, what)
    if isinstance(error, theirs.NoCredentialsError | theirs.PartialCredentialsError | theirs.CredentialRetrievalError):
        return errors.NotAuthenticated(
            f"cannot {what}: {error}", "Give this worker credentials as boto3 finds them: role, profile or environment."
        )
    if isinstance(error, theirs.ProfileNotFound | theirs.NoRegionError | theirs.UnknownRegionError):
        return errors.Invalid(f"cannot {what}: {error}", "Mend the profile or region in the settings.")
    if isinstance(error, theirs.ParamValidationError):
        return errors.Invalid(f"cannot {what}: {error}", "This SDK refuses the request before it is sent.")
    if isinstance(error, theirs.HTTPClientError | theirs.ConnectionError | ResponseParserError):
        return errors.Unavailable(f"cannot {what}: {error}", "It is tried again; check the network and the endpoint.")
    if isinstance(error, theirs.BotoCoreError):
        return errors.Final(f"cannot {what}: {error}", "See the words of the SDK.")
    return error


def _of_answer(answer: dict[str, Any], what: str) -> errors.CloudError:
    said = answer.get("Error", {})
    code, message = str(said.get("Code", "")), str(said.get("Message", ""))[:1000]
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"cannot {what}: AWS says {code}: {message}"
    if answer.get("Reason") in _STALE:
        return errors.Busy(text, "The list is read anew.", code)
    for kind, pattern, remedy in _CODES:
        if re.fullmatch(pattern, code):
            return kind(text, remedy, code)
    if status >= 500:
        return errors.Unavailable(text, "It is tried again.", code)
    return errors.Invalid(text, "See AWS's words.", code)
