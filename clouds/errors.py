"""What can go wrong with a cloud, as data: a kind, what happened, and what to do next.

Two families, and adapters raise nothing else: `Retryable` (the same call may succeed later) and `Final` (it gives the
same answer until somebody changes something). A caller's retry policy follows from the type alone. A provider's own
code is kept in `code`, for logs and for people who search for it.
"""

from __future__ import annotations


class CloudError(Exception):
    """Base. `str(error)` is `<what happened>. <what to do next>`."""

    def __init__(self, what: str, remedy: str, code: str = "") -> None:
        super().__init__(f"{what.rstrip('.')}. {remedy}")
        self.what = what
        self.remedy = remedy
        self.code = code


class Retryable(CloudError):
    """The same call may succeed later."""


class Final(CloudError):
    """The same call gives the same answer until someone changes something."""


class Throttled(Retryable):
    """The provider asks for fewer calls; its SDK's own retries are used up."""


class Unavailable(Retryable):
    """No answer, half an answer, or an error of the provider's own. Whether the call had an effect is not known: that
    is what tokens are for."""


class Busy(Retryable):
    """The thing is in a state that passes by itself."""


class CredentialsExpired(Retryable):
    """Retryable, because credentials are renewed from outside while the call waits."""


class Damaged(Retryable):
    """Bytes that came do not fit their checksum. Nothing was written from them."""


class NotFound(Final):
    """There is no such thing, or these credentials may not see it."""


class NotPermitted(Final):
    """The credentials are good, and may not do this."""


class NotAuthenticated(Final):
    """No credentials were found, or the provider does not know them."""


class QuotaExceeded(Final):
    """A limit of the account stands in the way."""


class Conflict(Final):
    """Something else holds the name or the token, or the thing is in a state that does not allow this."""


class SourceChanged(Conflict):
    """The disk that is being sent is not the one that the first part was sent of."""


class Invalid(Final):
    """The provider refuses the request as it is."""


class NotOffered(Final):
    """The cloud, or this adapter, has no such capability; `clouds.capabilities` has the reason."""


class OperationFailed(Final):
    """A long operation ended, and not well."""


class BadDisk(Final):
    """The image cannot be read, or is not what it is said to be."""


class MissingPackage(Final):
    """The provider's SDK, or a tool, is not installed."""
