"""Idempotency tokens: the same step of the same workflow always gives the same token, in any process, at any time.

A token has the form of a UUID, because the strictest provider (Google, `requestId`) takes nothing else; it fits AWS's
ClientToken (64 characters) and Oracle's opc-retry-token (64) as well. Where a provider has no tokens, a name made
from one does their work: a second attempt meets the first one's thing under the same name.
"""

from __future__ import annotations

import hashlib
import uuid

TAG = "novacron-token"
"""Everything an adapter makes carries its token under this key: so it is found again, and cleaned up."""


def token(workflow_id: str, step: str) -> str:
    """Lower-case UUID of (workflow id, step). Steps that make several things number them: `import-disk/0`.

    Raises ValueError when either is empty: two such steps would be taken for one.
    """
    if not workflow_id or not step:
        raise ValueError(f"a token needs a workflow id and a step, not {workflow_id!r} and {step!r}")
    parts = [part.encode() for part in (workflow_id, step)]
    digest = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts))
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


def name(prefix: str, token: str) -> str:
    """A name that only this token gives: `<prefix>-<32 hex digits>`."""
    return f"{prefix}-{token.replace('-', '')}"
