"""The base of every contract, and the bounded scalar types they share.

A contract is frozen, refuses unknown fields (a typo is an error that names the field, not a silent default) and is
bounded, so that no payload can grow past what Temporal and our sockets accept.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Model(BaseModel):
    """Frozen and strict about its fields. Add fields only with defaults: histories outlive releases."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Name of a site, host or VM: letters, digits, dot, underscore, dash; 63 characters at most."""

MigrationId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
"""Short, so that a UNIX socket path that holds it stays under the kernel's 107 bytes."""

Labels = Annotated[
    dict[Name, Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,63}$")]], Field(max_length=32)
]
"""What people say of a VM, such as tier=gold: policies and bulk moves choose by it."""

AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]{0,4094}$")]
SocketPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00]{0,106}$")]
Text = Annotated[str, StringConstraints(max_length=4000)]
Address = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z:.\-]{1,253}$")]
"""IP address or host name."""

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, le=86400 * 30, allow_inf_nan=False)]
