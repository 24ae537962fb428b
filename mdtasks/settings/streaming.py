"""What the clients of the live stream may use of a web process."""

from __future__ import annotations

from mdtasks.settings.declared import declared
from mdtasks.settings.tracing import TracingSettings


class StreamSettings(TracingSettings):
    """Limits of the live stream."""

    ws_max_clients: int = declared(
        "WS_MAX_CLIENTS", 5000, "Clients of the live stream that one web process serves", ge=1, le=100_000
    )
    ws_max_per_address: int = declared(
        "WS_MAX_CLIENTS_PER_ADDRESS", 1000, "Of these, from one address", ge=1, le=100_000
    )
    ws_max_symbols: int = declared(
        "WS_MAX_SYMBOLS", 500, "Symbols that a client of the live stream may follow at the same time", ge=1, le=10_000
    )
    ws_queue_bytes: int = declared(
        "WS_QUEUE_BYTES", 262_144, "Bytes that wait for a slow client before it is dropped behind", ge=4096, le=1 << 30
    )
