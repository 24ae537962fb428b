"""Provider calls that were slow, and traces of where their time went."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Identity, Index, Integer, LargeBinary, Table, Text, desc, func, text
from sqlalchemy.dialects.postgresql import ARRAY, TSTZRANGE

from mdtasks.store.tables.types import metadata, utc

slow_calls = Table(
    "slow_calls",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", utc, nullable=False, server_default=func.now(), comment="when the call began"),
    Column("provider", Text, nullable=False),
    Column("capability", Text, nullable=False, comment="bars_1m ... bars_1d, quotes"),
    Column("symbols", ARRAY(Text), nullable=False, comment="the first of those asked for"),
    Column("symbol_count", Integer, nullable=False, comment="all of them"),
    Column("window", TSTZRANGE, comment="null: quotes have none"),
    Column("job_id", Text),
    Column("attempt_id", BigInteger),
    Column("attempt", Integer),
    Column("policy_version", Integer),
    Column("worker", Text),
    Column("latency_s", Double, nullable=False),
    Column("threshold_s", Double, nullable=False, comment="from when on it was slow"),
    Column("error_class", Text),
    Column("bytes", Integer, comment="of the trace; null: there is none"),
    Column("trace", LargeBinary, comment="gzip of VizTracer's JSON; null: not sampled, or let go"),
    Index("slow_calls_at", desc("at")),
    Index("slow_calls_attempt", "attempt_id", postgresql_where=text("attempt_id is not null")),
    Index("slow_calls_job", "job_id", postgresql_where=text("job_id is not null")),
    Index("slow_calls_traced", desc("at"), desc("id"), postgresql_where=text("bytes is not null")),
)
