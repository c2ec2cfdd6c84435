"""AWS's error codes in our words. A code that is not here is final when AWS blames the caller (4xx), else retryable."""

from __future__ import annotations

import re
from typing import Any

from clouds import errors

_LATER = "It is tried again; if it stays so, lower calls.parallel or ask AWS for a higher rate."
_QUOTA = "Ask for more in Service Quotas, or remove what is no longer needed."
_PERMISSION = "Give these credentials the action; docs/clouds.md has the whole IAM policy."

_CODES: tuple[tuple[str, type[errors.CloudError], str], ...] = (
    (
        r"RequestLimitExceeded|Throttling(Exception)?|RequestThrottled(Exception)?|ThrottledException|"
        r"TooManyRequestsException|SlowDown|EC2ThrottledException|BandwidthLimitExceeded",
        errors.Throttled,
        _LATER,
    ),
    (r"ConcurrentLimitExceededException|\w*Concurrent\w*LimitExceeded|PendingSnapshotsLimitExceeded", errors.Busy, "Other snapshots are being made."),
    (
        r"ExpiredToken(Exception)?|RequestExpired|TokenRefreshRequired",
        errors.CredentialsExpired,
        "Renew the credentials of this worker (aws sso login, role, instance profile), and see that its clock is right.",
    ),
    (
        r"AuthFailure|InvalidClientTokenId|UnrecognizedClientException|SignatureDoesNotMatch|MissingAuthenticationToken|"
        r"InvalidSignatureException|IncompleteSignature|OptInRequired|NotSignedUp",
        errors.NotAuthenticated,
        "Check the credentials, and that the account uses this service and region.",
    ),
    (r"UnauthorizedOperation|AccessDenied(Exception)?|Blocked|KMSKeyNotAccessibleFault", errors.NotPermitted, _PERMISSION),
    (
        r"\w*LimitExceeded(Exception)?|ServiceQuotaExceededException|InsufficientAddressCapacity|MaxSpotInstance\w*",
        errors.QuotaExceeded,
        _QUOTA,
    ),
    (
        r"Insufficient\w*Capacity|InsufficientFreeAddressesInSubnet",
        errors.Busy,
        "AWS has none of these right now: it is tried again; another zone or size may have.",
    ),
    (r"\w+\.(NotFound|Unknown|Unavailable)|NoSuch\w+|ResourceNotFoundException", errors.NotFound, "Check the id and the region."),
    (r"IncorrectInstanceState|IncorrectState|VolumeInUse|OperationNotPermitted", errors.Conflict, "Look at its state first."),
    (
        r"IdempotentParameterMismatch|IdempotentInstanceTerminated|ConflictException|\w+\.(Duplicate|InUse)|ResourceInUse|"
        r"ResourceAlreadyExistsException",
        errors.Conflict,
        "Something else holds the name or the token: use another, or remove what holds it.",
    ),
    (r"InternalError|InternalServerException|InternalFailure|ServerInternal|Unavailable|ServiceUnavailable", errors.Unavailable, "It is tried again."),
)  # fmt: skip
_STALE = {"INVALID_BLOCK_TOKEN", "INVALID_PAGE_TOKEN"}
"""Tokens of an older list: the next attempt lists anew."""


def translate(error: Exception, what: str) -> Exception:
    """Ours for one of botocore's; any other is a bug and passes unchanged. `what` names the act."""
    from botocore import exceptions as theirs

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
    if isinstance(error, theirs.HTTPClientError | theirs.ConnectionError | theirs.ResponseParserError):
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
    for pattern, kind, remedy in _CODES:
        if re.fullmatch(pattern, code):
            return kind(text, remedy, code)
    if status >= 500:
        return errors.Unavailable(text, "It is tried again.", code)
    return errors.Invalid(text, "See AWS's words.", code)
