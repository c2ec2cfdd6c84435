"""What the two ends of the data path recorded, set side by side: proof that what left is what arrived.

The gate verified every batch before QEMU got it; this compares the digests of the whole memory stream once more, after
the fact. A missing report proves nothing either way and is said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.datapath import DataPathStatus, FlowStatus

MEMORY = "ram"
"""Name of the service that carries QEMU's memory stream."""


@dataclass(frozen=True)
class Evidence:
    digest: str = ""
    verified: bool = False
    raw_bytes: int = 0
    wire_bytes: int = 0
    redials: int = 0
    notes: tuple[str, ...] = ()


def join(parts: Sequence[Evidence]) -> Evidence:
    """Of a move over several data paths, one after the other: what broke off cannot be compared as a whole."""
    if len(parts) == 1:
        return parts[0]
    note = (
        f"the memory crossed over {len(parts)} data paths, one after the other: each part was verified as it arrived, "
        f"the digest is of the last"
    )
    return Evidence(
        digest=parts[-1].digest,
        verified=False,
        raw_bytes=sum(part.raw_bytes for part in parts),
        wire_bytes=sum(part.wire_bytes for part in parts),
        redials=sum(part.redials for part in parts),
        notes=(note,),
    )


def compare(source: DataPathStatus | None, destination: DataPathStatus | None) -> Evidence:
    """Both ways of the link count: what either end sent."""
    ends = [end for end in (source, destination) if end is not None]
    digest, verified, note = _memory(source, destination)
    return Evidence(
        digest=digest,
        verified=verified,
        raw_bytes=sum(end.raw_out for end in ends),
        wire_bytes=sum(end.wire_out for end in ends),
        redials=max((end.redials for end in ends), default=0),
        notes=(note,) if note else (),
    )


def _memory(source: DataPathStatus | None, destination: DataPathStatus | None) -> tuple[str, bool, str]:
    missing = [name for name, end in (("source", source), ("destination", destination)) if end is None]
    if source is None or destination is None:
        return "", False, f"memory digest not compared: no data path report from the {' and the '.join(missing)}"
    sent, got = _flows(source), _flows(destination)
    if not sent or sent.keys() != got.keys():
        return "", False, f"memory digest not compared: {len(sent)} memory streams left, {len(got)} arrived"
    for ordinal, flow in sent.items():
        peer = got[ordinal]
        if not flow.digest_out or (flow.digest_out, flow.raw_out) != (peer.digest_in, peer.raw_in):
            return (
                flow.digest_out,
                False,
                f"memory digest differs: {flow.raw_out} bytes {flow.digest_out or 'without digest'} left the source, "
                f"{peer.raw_in} bytes {peer.digest_in or 'without digest'} reached the destination",
            )
    return " ".join(sent[ordinal].digest_out for ordinal in sorted(sent)), True, ""


def _flows(end: DataPathStatus) -> dict[int, FlowStatus]:
    return {flow.ordinal: flow for flow in end.flows if flow.service == MEMORY}
