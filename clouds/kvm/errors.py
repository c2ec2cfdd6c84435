"""What can go wrong with a host or a VM, as data: a kind, what happened, and what to do next.

Two families, and nothing else is raised by this package: `Retryable` (the host did not answer; the same question may
succeed later and nothing is known to have changed) and `Final` (asking again gives the same answer). A caller's retry
policy follows from the type alone.
"""

from __future__ import annotations

from clouds import errors


class KvmError(errors.CloudError):
    """Base. `str(error)` is `<what happened>. <what to do next>`."""


class Retryable(KvmError, errors.Retryable):
    """The same call may succeed later."""


class Final(KvmError, errors.Final):
    """The same call gives the same answer until someone changes something."""


class HostUnavailable(Retryable):
    """libvirtd does not answer, or stopped answering half-way. Says nothing about the VMs, which run on."""


class NotFound(Final, errors.NotFound):
    """The VM is not on this host."""


class Refused(Final):
    """Would be unsafe or is not allowed; nothing was changed."""


class MoveFailed(Final):
    """The move ended and the VM is still on this host."""


class Ambiguous(Final):
    """Where the VM may run cannot be told from here; nothing was destroyed or resumed."""
