"""All that dwcp raises on purpose. A message says what happened, to what, and what to do next."""

from __future__ import annotations


class DwcpError(Exception):
    """Base of every error of this package."""


class ProtocolError(DwcpError):
    """The peer sent what the protocol does not allow, or the bytes were changed on the way. Ends the lane."""


class DigestMismatch(DwcpError):
    """Bytes that passed every checksum are not the bytes that were read. Ends the session; none of them is written."""


class Refused(DwcpError):
    """The peer answered `hello` with REFUSE. Trying again cannot help."""


class WrongProtection(DwcpError):
    """One end speaks TLS and the other does not. Before the first welcome trying again cannot help."""


class NoRdma(DwcpError):
    """This lane cannot go over RDMA; the message is the reason. It stays on TCP."""


class StartFailed(DwcpError):
    """A data path process could not start; the message quotes why."""


class ControlFailed(DwcpError):
    """The control socket gave no usable answer."""


class NotRunning(ControlFailed):
    """No data path process owns this folder."""


class StoreFailed(DwcpError):
    """The content store cannot do what was asked. No move depends on it: it is logged, and pages go whole."""


class StoreDamaged(StoreFailed):
    """A file of the content store is not what was written. What it held is never used again."""


class Incomplete(DwcpError):
    """A file cannot be rebuilt yet: `missing` are the pieces of its recipe that nobody had. What came is kept."""

    def __init__(self, message: str, missing: list[int]) -> None:
        super().__init__(message)
        self.missing = missing


class TransferFailed(DwcpError):
    """A file could not be read, sent or taken. Trying again goes on where it ended."""
