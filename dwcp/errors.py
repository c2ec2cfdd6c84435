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


class StartFailed(DwcpError):
    """A data path process could not start; the message quotes why."""


class ControlFailed(DwcpError):
    """The control socket gave no usable answer."""


class NotRunning(ControlFailed):
    """No data path process owns this folder."""
