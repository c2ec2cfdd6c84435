"""Contract between a host worker and the data path process it starts: configuration in, status out.

The configuration is a JSON file; the status is one line of JSON read from the process's control socket.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.base import AbsolutePath, Address, Count, MigrationId, Model, Name, Port, Seconds, SocketPath, Text
from models.store import StoreUse

Role = Literal["source", "destination"]
Codec = Literal["auto", "raw", "none", "lz4", "zstd"]
"""raw: bytes as they are, not even looked at. none: pages that the far side has are not sent, nothing is compressed."""
Protection = Literal["tls", "none"]
Rdma = Literal["never", "auto"]
PathState = Literal["waiting", "connected", "link-lost", "closed", "failed"]


class TlsFiles(Model):
    """PEM files of one host: its certificate chain, its key, and the authority that signs its peers."""

    certificate: AbsolutePath
    key: AbsolutePath
    authority: AbsolutePath


class Service(Model):
    """One kind of connection that is carried. `path` is listened on at the source and dialled at the destination."""

    name: Name
    path: SocketPath


class DataPathConfig(Model):
    """All that one data path process needs to know."""

    role: Role
    migration_id: MigrationId
    peer_name: Name
    """Host name that the peer's certificate must carry (DNS subject alternative name)."""
    address: Address
    """Source: the destination's address to dial. Destination: the address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Source: the port to dial. Destination: 0 takes the first free port of `port_range`."""
    port_range: tuple[Port, Port] = (49152, 49407)
    services: Annotated[tuple[Service, ...], Field(min_length=1, max_length=8)]
    tls: TlsFiles
    more_addresses: Annotated[tuple[Address, ...], Field(max_length=7)] = ()
    """Further addresses of the destination, on other networks, same port: lanes spread over all of them."""
    lanes: Annotated[int, Field(ge=1, le=16)] = 2
    """TCP streams from source to destination at the start; one more carries the way back."""
    max_lanes: Annotated[int, Field(ge=1, le=16)] = 8
    """Streams it may grow to when the measured rate, round trip and loss say that more would carry more."""
    rate_limit: Count = 0
    """Bytes a second on the link, all lanes together; 0 is no bound. Changeable while it runs."""
    protection: Protection = "tls"
    """none: frames in the clear, for a network that the site trusts. Both ends must say so."""
    rdma: Rdma = "auto"
    """auto: lanes over RDMA where both ends have a usable device and `protection` is none (RDMA is not encrypted)."""
    queue_pairs: Annotated[int, Field(ge=1, le=512)] = 32
    """RDMA queue pairs over all lanes."""
    codec: Codec = "auto"
    page_memory_mib: Annotated[int, Field(ge=0, le=1 << 24)] = 1024
    """Pages remembered at each end for copies and deltas. Beyond it pages go whole. 0 turns the page stage off."""
    store: StoreUse | None = None
    """The host's content store; None: nothing is known from before, and nothing is kept."""
    window_seconds: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Unacknowledged data allowed, as time at the measured link rate (plus the round trip)."""
    batch_bytes: Annotated[int, Field(ge=4096, le=4 << 20)] = 1 << 20
    owner_token: Count = 0
    """Fencing token of the move. A destination takes only a source with the same one."""
    vm: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")] | None = None
    """UUID of the VM that is carried: by it the path is found when its move is dead."""
    resume_within: Seconds = 300
    """How long a lost link may stay lost before the session fails and its sockets close."""
    open_within: Seconds = 120
    """How long to wait for the peer's first hello before giving up."""
    linger: Seconds = 300
    """How long to stay, for status, after every flow has closed."""
    lifetime: Seconds = 86400 * 2
    """Hard end of the process: an orphan nobody stops ends by itself."""

    @model_validator(mode="after")
    def _source_needs_a_port(self) -> DataPathConfig:
        if self.role == "source" and self.port == 0:
            raise ValueError("port: a source needs the destination's port, got 0")
        if self.port_range[0] > self.port_range[1]:
            raise ValueError(f"port_range: first {self.port_range[0]} is above last {self.port_range[1]}")
        return self


class PageCounts(Model):
    """What became of the guest's pages and disk blocks. Equal at both ends once everything is delivered."""

    records: Count = 0
    """Page records seen: zero + same + copied + known + delta + base + fresh."""
    zero: Count = 0
    """Zero pages, whether QEMU wrote nine bytes for them or all of it."""
    same: Count = 0
    """Unchanged since this address was sent before."""
    copied: Count = 0
    """Equal to a page sent before for another address."""
    known: Count = 0
    """In the destination's store."""
    base: Count = 0
    """Unchanged since the VM's last visit."""
    delta: Count = 0
    """Sent as a difference, to what was sent before or to the last visit."""
    fresh: Count = 0
    """Sent whole."""
    literal_bytes: Count = 0
    """Everything that is no page: headers, device state, doubtful bytes."""
    resent: Count = 0
    """Pages the store could not deliver after all."""
    lost_sync: bool = False
    """The stream was not understood at some point: from there on bytes are passed through."""


class FlowStatus(Model):
    """One carried connection. Bytes are raw: as read from or written to the local UNIX socket."""

    service: Name
    ordinal: Count
    """Accept order at the source, from 0, over all services."""
    raw_out: Count = 0
    raw_in: Count = 0
    digest_out: str = ""
    """XXH3 (hex, 128 bits) of all bytes read locally; equals the peer's `digest_in` once all are delivered."""
    digest_in: str = ""
    """XXH3 of all bytes verified and written locally."""
    open: bool = True
    error: Text = ""


class DataPathStatus(Model):
    """Counters of one data path process, since its start."""

    role: Role
    migration_id: MigrationId
    pid: Count
    state: PathState
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    error: Text = ""
    elapsed: Seconds = 0
    flows: Annotated[tuple[FlowStatus, ...], Field(max_length=256)] = ()
    raw_out: Count = 0
    raw_in: Count = 0
    wire_out: Count = 0
    """Frame bytes handed to TLS, first transmission and re-sends."""
    wire_in: Count = 0
    resent: Count = 0
    """Frame bytes sent again after a lost lane."""
    redials: Count = 0
    lanes_alive: Count = 0
    raw_rate: float = 0.0
    """Bytes a second, smoothed over about a second."""
    wire_rate: float = 0.0
    round_trip: Seconds = 0
    window_bytes: Count = 0
    unacked_bytes: Count = 0
    codec: str = ""
    """Codec of the newest batch."""
    lanes: Count = 0
    """Lanes from source to destination that are wanted now."""
    carrier: str = ""
    """What carries the lanes: tls, tcp or rdma; and why not a better one."""
    rate_limit: Count = 0
    pages: PageCounts = PageCounts()
    stores: Literal["off", "talking", "ready"] = "off"
    """Whether the hosts' content stores have told each other what they have."""
    cpu_seconds: float = 0.0
