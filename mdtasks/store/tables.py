"""The tables of the store, as simple statements and Alembic read them. Partitions and functions: the migrations."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZMULTIRANGE, TSTZRANGE, UUID

metadata: Final = MetaData()

_utc = DateTime(timezone=True)
tier = Enum("T0", "T1", "T2", name="tier", metadata=metadata)
bar_interval = Enum("1m", "5m", "15m", "1h", "1d", name="bar_interval", metadata=metadata)
bar_status = Enum("provisional", "final", name="bar_status", metadata=metadata)
job_status = Enum("deferred", "queued", "running", "done", "failed", "cancelled", name="job_status", metadata=metadata)

instruments = Table(
    "instruments",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("mic", Text, nullable=False, comment="exchange MIC as exchange_calendars knows it, or 24/7"),
    Column("kind", Text, nullable=False, server_default="equity"),
    Column("tier", tier, nullable=False, server_default="T1"),
    Column("listed_from", Date),
    Column("delisted_on", Date),
    Column("created_at", _utc, nullable=False, server_default=func.now()),
)

symbols = Table(
    "symbols",
    metadata,
    Column("instrument_id", Integer, ForeignKey("instruments.id", ondelete="CASCADE"), primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("valid_from", Date, primary_key=True, server_default=text("'-infinity'")),
    Column("valid_to", Date, nullable=False, server_default=text("'infinity'"), comment="exclusive"),
    # One bearer of a symbol at any time now; two companies may bear it one after the other (WM).
    Index("symbols_current", "symbol", unique=True, postgresql_where=text("valid_to = 'infinity'")),
)


def _bar_table(name: str, *extra: Column[Any], key: tuple[str, ...], **options: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("instrument_id", Integer, primary_key=True, autoincrement=False),
        Column("interval", bar_interval, primary_key=True),
        Column("ts", _utc, primary_key=True, comment="start of the interval; daily: the session's label at 00:00"),
        *[Column(column, Double, nullable=False) for column in ("open", "high", "low", "close", "volume")],
        Column("provider", Text, nullable=False),
        Column("status", bar_status, nullable=False),
        Column(
            "attempt_id",
            BigInteger,
            nullable=False,
            comment="job_attempts.id: which job, worker and policy made it",
        ),
        Column("known_at", _utc, nullable=False, primary_key="known_at" in key),
        *extra,
        **options,
    )


bars = _bar_table("bars", key=("instrument_id", "interval", "ts"), postgresql_partition_by="RANGE (ts)")
bar_revisions = _bar_table(
    "bar_revisions",
    Column("superseded_at", _utc, nullable=False),
    key=("instrument_id", "interval", "ts", "known_at"),
)

bar_quarantine = Table(
    "bar_quarantine",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column("ts", _utc, nullable=False),
    Column("reason", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("attempt_id", BigInteger, nullable=False),
    Column("bar", JSONB, nullable=False, comment="the values as they came"),
    Column("seen_at", _utc, nullable=False, server_default=func.now()),
    # A retry that meets the same bad bar again adds nothing; readers look by instrument and time.
    Index("bar_quarantine_once", "instrument_id", "interval", "ts", "reason", "provider", unique=True),
)

coverage = Table(
    "coverage",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("interval", bar_interval, primary_key=True),
    Column("covered", TSTZMULTIRANGE, nullable=False, comment="what a provider has answered for"),
    Column("updated_at", _utc, nullable=False, server_default=func.now()),
    Column(
        "fresh_until",
        _utc,
        nullable=False,
        comment="end of the newest interval that has a bar, final or not, or is covered: lateness counts from here",
    ),
    # Every job extends its row in place: room in the page keeps those updates off the index (HOT).
    postgresql_with={"fillfactor": 70},
)

silences = Table(
    "silences",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("interval", bar_interval, primary_key=True),
    Column("starts_at", _utc, primary_key=True),
    Column("provider", Text, primary_key=True, comment="who said so; person:NAME for somebody who accepted it by hand"),
    Column("ends_at", _utc, nullable=False, comment="end of the last interval of the run, exclusive"),
    Column(
        "believed",
        Boolean,
        nullable=False,
        comment="whether it became coverage: no_trade; if not, the run is still missing",
    ),
    Column("attempt_id", BigInteger, comment="job_attempts.id; null for a person"),
    Column("answered_at", _utc, nullable=False, server_default=func.now()),
    comment="runs of expected intervals for which a provider was asked and had no bar",
)

gaps = Table(
    "gaps",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column(
        "window",
        TSTZRANGE,
        nullable=False,
        comment="from the first missing interval to the end of the last, nights between included",
    ),
    Column("missing", Integer, nullable=False, comment="expected intervals missing when it was found"),
    Column("found_at", _utc, nullable=False, server_default=func.now()),
    Column("found_by", Text, nullable=False, comment="scan or live"),
    Column("closed_at", _utc),
    Column(
        "outcome",
        Text,
        comment="repaired: answered for; accepted: by a person; withdrawn: not expected any more; null: open",
    ),
    Index("gaps_open", "instrument_id", "interval", postgresql_where=text("closed_at is null")),
    Index("gaps_series", "instrument_id", "interval", "id"),
    comment="the ledger: each stretch found missing, and what became of it",
)

calendar_versions = Sequence("calendar_versions", metadata=metadata)

calendar_overrides = Table(
    "calendar_overrides",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("mic", Text, comment="the exchange that was shut"),
    Column(
        "instrument_id",
        Integer,
        ForeignKey("instruments.id", ondelete="CASCADE"),
        comment="the instrument that was halted, where one was alone",
    ),
    Column("kind", Text, nullable=False, comment="closed, late_open, early_close or halt"),
    Column("session", Date, comment="label of the session it is about; null for a halt"),
    Column("window", TSTZRANGE, nullable=False, comment="the time that was no trading"),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("version", BigInteger, nullable=False, comment="version of all calendars from which on it holds"),
    Column("created_at", _utc, nullable=False, server_default=func.now()),
    Column("undone_at", _utc),
    Column("undone_by", Text),
    Column("undone_reason", Text),
    Column("undone_version", BigInteger, comment="version from which on it no longer holds"),
    CheckConstraint("(mic is null) <> (instrument_id is null)"),
    Index("calendar_overrides_standing", "mic", "instrument_id", postgresql_where=text("undone_at is null")),
    comment="time that the calendar counts as trading and that was none",
)

slo_snapshots = Table(
    "slo_snapshots",
    metadata,
    Column(
        "objective",
        Text,
        primary_key=True,
        comment="gap: series that are too late; coverage: series without a complete last session",
    ),
    Column("tier", tier, primary_key=True),
    Column("interval", bar_interval, primary_key=True),
    Column("at", _utc, primary_key=True),
    Column("expected", Integer, nullable=False, comment="series looked at: those whose exchange traded"),
    Column("violations", Integer, nullable=False),
    Column("lag_s", Double, comment="greatest lateness in trading time; null when nothing was looked at"),
    Column(
        "session_s",
        Double,
        nullable=False,
        comment="trading time since the snapshot before it, which this one stands for",
    ),
    Column("calendar_version", BigInteger, nullable=False),
    Column("worst", JSONB, nullable=False, comment="the latest series, with evidence"),
)

quotes = Table(
    "quotes",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("ts", _utc, primary_key=True),
    Column("bid", Double),
    Column("bid_size", Double),
    Column("ask", Double),
    Column("ask_size", Double),
    Column("provider", Text, nullable=False),
    Column("known_at", _utc, nullable=False, server_default=func.now()),
    postgresql_partition_by="RANGE (ts)",
)

requests = Table(
    "requests",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("requested_by", Text, nullable=False),
    Column("spec", JSONB, nullable=False, comment="what was asked for, as it was asked"),
    Column("created_at", _utc, nullable=False, server_default=func.now()),
)

backfill_jobs = Table(
    "backfill_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column("window", TSTZRANGE, nullable=False),
    Column("tier", tier, nullable=False),
    Column("provider_hint", Text),
    Column("request_id", UUID(as_uuid=False), comment="who asked for it first; later ones are in request_jobs"),
    Column("status", job_status, nullable=False),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default="0",
        comment="claims in this life; a requeue starts afresh",
    ),
    Column("max_attempts", Integer, nullable=False),
    Column(
        "fence",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="counts every claim ever: the fencing token",
    ),
    Column("attempt_id", BigInteger, comment="the running attempt"),
    Column("lease_until", _utc),
    Column("not_before", _utc, comment="a deferred job may go out from then on; null: now"),
    Column("queued_at", _utc),
    Column("bars", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("last_error_class", Text),
    Column("created_at", _utc, nullable=False, server_default=func.now()),
    Column("updated_at", _utc, nullable=False, server_default=func.now()),
    # The dispatcher walks the first in its own order; what pauses after a failure joins it when its time has come.
    Index(
        "backfill_jobs_waiting",
        "tier",
        text('upper("window") DESC'),
        "id",
        postgresql_where=text("status = 'deferred' and not_before is null"),
    ),
    Index(
        "backfill_jobs_pausing",
        "tier",
        "not_before",
        postgresql_where=text("status = 'deferred' and not_before is not null"),
    ),
    Index(
        "backfill_jobs_active",
        "instrument_id",
        "interval",
        postgresql_where=text("status in ('deferred', 'queued', 'running')"),
    ),
    Index("backfill_jobs_lease", "lease_until", postgresql_where=text("status = 'running'")),
    Index("backfill_jobs_request", "request_id", postgresql_where=text("request_id is not null")),
    Index("backfill_jobs_queued", "queued_at", postgresql_where=text("status = 'queued'")),
    Index("backfill_jobs_failed", "updated_at", postgresql_where=text("status = 'failed'")),
    Index("backfill_jobs_stuck", "instrument_id", "interval", postgresql_where=text("status = 'failed'")),
)

request_jobs = Table(
    "request_jobs",
    metadata,
    Column("request_id", UUID(as_uuid=False), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("job_id", Text, primary_key=True),
    Index("request_jobs_job", "job_id"),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("job_type", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("worker", Text, nullable=False, comment="node name of the worker process"),
    Column("provider", Text),
    Column("started_at", _utc, nullable=False, server_default=func.now()),
    Column("ended_at", _utc),
    Column("outcome", Text, comment="done, retry, failed, lost, released; null: running"),
    Column("error_class", Text),
    Column("message", Text),
    Column("bars", Integer, nullable=False, server_default="0"),
    Index("job_attempts_job", "job_id", "id"),
    Index("job_attempts_running", "worker", postgresql_where=text("ended_at is null")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, primary_key=True, comment="derived from the envelope: recording twice changes nothing"),
    Column("kind", Text, nullable=False, comment="backfill, bars_fetch, quotes_fetch, or poison"),
    Column("job_id", Text),
    Column("task", Text),
    Column("queue", Text),
    Column("tier", tier),
    Column("symbol", Text),
    Column("interval", bar_interval),
    Column("window", TSTZRANGE),
    Column("provider", Text),
    Column("error_class", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("envelope", Text, nullable=False, comment="the message as it was on the wire"),
    Column(
        "state",
        Text,
        nullable=False,
        server_default="open",
        comment="open, requeued, or resolved: what was missing came by another way",
    ),
    Column("requeued_by", Text),
    Column("died_at", _utc, nullable=False, server_default=func.now()),
    Column("updated_at", _utc, nullable=False, server_default=func.now()),
    Index("dead_letters_open", "died_at", postgresql_where=text("state = 'open'")),
    Index("dead_letters_job", "job_id"),
)

requeue_plans = Table(
    "requeue_plans",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("planned_by", Text, nullable=False),
    Column("filter", JSONB, nullable=False),
    Column("letter_ids", JSONB, nullable=False, comment="the frozen set"),
    Column("created_at", _utc, nullable=False, server_default=func.now()),
    Column("executed_at", _utc),
    Column("result", JSONB),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", _utc, nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("details", JSONB, nullable=False),
)
