"""Slow provider calls at rest, with the traces of some: the newest, bounded in number and in bytes over the fleet."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.connections import load_statements
from mdtasks.domain.errors import NotFoundError
from mdtasks.observe.traces import MOST_SYMBOLS, SlowCall

_SQL: Final = load_statements("mdtasks.store.sql", "traces.sql")

#: Days that a record stays, its trace long gone, and how many records there may be at most.
KEEP_DAYS: Final = 30
MOST_RECORDS: Final = 50_000
#: Milliseconds that storing a record may hold up its fetch, a statement.
HURRY_MS: Final = 3000
#: Bytes of one trace's JSON: what is larger was not made by us.
_MOST_JSON: Final = 100_000_000
#: The highest id that PostgreSQL can hold.
_MOST_ID: Final = 2**63 - 1
_HINT: Final = "`mdtasks traces` lists them"


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which slow calls; None: any. ``since``: begun then or later; ``min_latency_s``: that took so long or longer."""

    provider: str | None = None
    capability: str | None = None
    job_id: str | None = None
    since: datetime | None = None
    min_latency_s: float | None = None


def keep(connection: Connection, call: SlowCall, *, most: int, most_bytes: int) -> int:
    """Record a slow call and let go of traces beyond ``most`` and ``most_bytes``, in the caller's transaction, which
    should hold nothing else: it waits for others that do the same, HURRY_MS at most. Returns the record's id. Not
    idempotent. Raises what PostgreSQL raises when it would take longer.
    """
    asked, window = call.context, call.context.window
    connection.execute(_SQL["hurry"], {"most_ms": HURRY_MS})
    if call.trace is not None:
        connection.execute(_SQL["lock"])
    row = connection.execute(
        _SQL["insert"],
        {
            "at": call.started_at,
            "provider": asked.provider,
            "capability": asked.capability,
            "symbols": list(asked.symbols[:MOST_SYMBOLS]),
            "symbol_count": len(asked.symbols),
            "start": None if window is None else window.start,
            "end": None if window is None else window.end,
            **asdict(asked.asker),
            "policy_version": asked.policy_version,
            "latency_s": call.latency_s,
            "threshold_s": call.threshold_s,
            "error_class": call.error_class,
            "trace": call.trace,
        },
    )
    kept = int(row.scalar_one())
    if call.trace is not None:
        connection.execute(_SQL["let_go"], {"keep": most, "keep_bytes": most_bytes})
    return kept


def forget(connection: Connection, before: datetime, *, most: int, most_bytes: int) -> int:
    """Delete records older than ``before`` and beyond MOST_RECORDS, and let go of traces as ``keep`` does, by bounds
    that may have become tighter. Returns how many records went. Idempotent.
    """
    connection.execute(_SQL["lock"])
    connection.execute(_SQL["let_go"], {"keep": most, "keep_bytes": most_bytes})
    return connection.execute(_SQL["forget"], {"before": before, "most": MOST_RECORDS}).rowcount


def matching(connection: Connection, which: TraceFilter, limit: int) -> list[dict[str, Any]]:
    """Slow calls as plain rows without their traces, newest first; ``bytes`` is None where there is no trace."""
    return [dict(row._mapping) for row in connection.execute(_SQL["list"], {**asdict(which), "limit": limit})]


def one(connection: Connection, call_id: int) -> dict[str, Any]:
    """A slow call as a plain row without its trace. Raises NotFoundError."""
    row = connection.execute(_SQL["one"], {"id": call_id}).one_or_none() if 0 <= call_id <= _MOST_ID else None
    if row is None:
        raise NotFoundError(f"no slow call {call_id}", hint=_HINT)
    return dict(row._mapping)


def trace_of(connection: Connection, call_id: int) -> bytes:
    """The trace of a slow call: VizTracer's JSON. Raises NotFoundError when there is no such call or no trace of it."""
    one(connection, call_id)
    packed = connection.execute(_SQL["trace"], {"id": call_id}).scalar_one_or_none()
    if packed is None:
        raise NotFoundError(
            f"no trace of slow call {call_id}: it was not sampled, or newer ones took its place",
            hint="VIZTRACER_SAMPLE, VIZTRACER_KEEP and VIZTRACER_KEEP_MB say how many are kept",
        )
    return zlib.decompressobj(wbits=31).decompress(packed, _MOST_JSON)
