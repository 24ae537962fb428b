"""Bars and quotes, and what is known of how complete they are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSTZMULTIRANGE, TSTZRANGE

from mdtasks.store.tables.types import bar_interval, bar_status, metadata, tier, utc


def _bar_table(name: str, *extra: Column[Any], key: tuple[str, ...], **options: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("instrument_id", Integer, primary_key=True, autoincrement=False),
        Column("interval", bar_interval, primary_key=True),
        Column("ts", utc, primary_key=True, comment="start of the interval; daily: the session's label at 00:00"),
        *[Column(column, Double, nullable=False) for column in ("open", "high", "low", "close", "volume")],
        Column("provider", Text, nullable=False),
        Column("status", bar_status, nullable=False),
        Column(
            "attempt_id",
            BigInteger,
            nullable=False,
            comment="job_attempts.id: which job, worker and policy made it",
        ),
        Column("known_at", utc, nullable=False, primary_key="known_at" in key),
        *extra,
        Column(
            "final_at",
            utc,
            comment="when a bar that was provisional first became final; null: final since known_at, or provisional",
        ),
        **options,
    )


bars = _bar_table("bars", key=("instrument_id", "interval", "ts"), postgresql_partition_by="RANGE (ts)")
bar_revisions = _bar_table(
    "bar_revisions",
    Column("superseded_at", utc, nullable=False),
    key=("instrument_id", "interval", "ts", "known_at"),
)
# Rows come in the order of this column and are never updated: a few pages tell where the oldest lie.
Index("bar_revisions_superseded", bar_revisions.c.superseded_at, postgresql_using="brin")

bar_quarantine = Table(
    "bar_quarantine",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column("ts", utc, nullable=False),
    Column("reason", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("attempt_id", BigInteger, nullable=False),
    Column("bar", JSONB, nullable=False, comment="the values as they came"),
    Column("seen_at", utc, nullable=False, server_default=func.now()),
    # A retry that meets the same bad bar again adds nothing; readers look by instrument and time.
    Index("bar_quarantine_once", "instrument_id", "interval", "ts", "reason", "provider", unique=True),
)

bar_outbox = Table(
    "bar_outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column("bars", ARRAY(utc), nullable=False, comment="starts of the bars that are new, revised or final now"),
    Column("silent", ARRAY(utc), nullable=False, comment="starts of intervals that are complete without a bar"),
    Column("written_at", utc, nullable=False, server_default=func.clock_timestamp()),
    Index("bar_outbox_series", "instrument_id", "interval", "id"),
    comment="what the replay buffer has not heard of yet; ids of a series are in the order of its commits",
    # Rows live for milliseconds: what is left of them is cleared away early.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 2000},
)

coverage = Table(
    "coverage",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("interval", bar_interval, primary_key=True),
    Column("covered", TSTZMULTIRANGE, nullable=False, comment="what a provider has answered for"),
    Column("updated_at", utc, nullable=False, server_default=func.now()),
    Column(
        "fresh_until",
        utc,
        nullable=False,
        comment="end of the newest interval that has a bar, final or not, or is covered: lateness counts from here",
    ),
    # Every job extends its row in place: room in the page keeps those updates off the index (HOT).
    postgresql_with={"fillfactor": 70},
)

coverage_changes = Table(
    "coverage_changes",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("interval", bar_interval, primary_key=True),
    Column("starts_at", utc, nullable=False, comment="of what it tells of, the first moment"),
    Column("ends_at", utc, primary_key=True, comment="of what it tells of, the end"),
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", utc, nullable=False),
    Column("covered", TSTZMULTIRANGE, nullable=False, comment="what was answered for just before"),
    Column("uncovered", TSTZMULTIRANGE, nullable=False, comment="what was not, and is since"),
    Index("coverage_changes_at", "at", postgresql_using="brin"),
    comment="what coverage was before each change that no bar tells of by turning final",
)

minute_changes = Table(
    "minute_changes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("starts_at", utc, nullable=False),
    Column("ends_at", utc, nullable=False),
    Column("noted_at", utc, nullable=False, server_default=func.now()),
    Index("minute_changes_series", "instrument_id"),
    comment="where minutes, or what is known of them, changed: longer bars that are made of them are still to be made",
)

silences = Table(
    "silences",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("interval", bar_interval, primary_key=True),
    Column("starts_at", utc, primary_key=True),
    Column("provider", Text, primary_key=True, comment="who said so; person:NAME for somebody who accepted it by hand"),
    Column("ends_at", utc, nullable=False, comment="end of the last interval of the run, exclusive"),
    Column(
        "believed",
        Boolean,
        nullable=False,
        comment="whether it became coverage: no_trade; if not, the run is still missing",
    ),
    Column("attempt_id", BigInteger, comment="job_attempts.id; null for a person"),
    Column("answered_at", utc, nullable=False, server_default=func.now()),
    comment="runs of expected intervals for which a provider was asked and had no bar",
)

silence_revisions = Table(
    "silence_revisions",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("interval", bar_interval, primary_key=True),
    Column("starts_at", utc, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("ends_at", utc, nullable=False),
    Column("believed", Boolean, nullable=False),
    Column("attempt_id", BigInteger),
    Column("answered_at", utc, primary_key=True),
    Column("superseded_at", utc, nullable=False),
    Index("silence_revisions_superseded", "superseded_at", postgresql_using="brin"),
    comment="what was said of silence before the same voice said otherwise",
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
    Column("found_at", utc, nullable=False, server_default=func.now()),
    Column("found_by", Text, nullable=False, comment="scan or live"),
    Column("closed_at", utc),
    Column(
        "outcome",
        Text,
        comment="repaired: answered for; accepted: by a person; withdrawn: not expected any more; null: open",
    ),
    Index("gaps_open", "instrument_id", "interval", postgresql_where=text("closed_at is null")),
    Index("gaps_series", "instrument_id", "interval", "id"),
    comment="the ledger: each stretch found missing, and what became of it",
)

gap_revisions = Table(
    "gap_revisions",
    metadata,
    Column("gap_id", BigInteger, ForeignKey("gaps.id", ondelete="CASCADE"), primary_key=True),
    Column("superseded_at", utc, primary_key=True),
    Column("window", TSTZRANGE, nullable=False),
    Column("missing", Integer, nullable=False),
    Index("gap_revisions_superseded", "superseded_at", postgresql_using="brin"),
    comment="what gaps of the ledger were before they grew",
)

reconciliations = Table(
    "reconciliations",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", utc, nullable=False, server_default=func.now()),
    Column(
        "kind",
        Text,
        nullable=False,
        comment="minutes: a daily bar and its minutes; provider: a stored bar and another provider's",
    ),
    Column("instrument_id", Integer, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column("ts", utc, nullable=False),
    Column("provider", Text, nullable=False),
    Column(
        "bar",
        ARRAY(Double),
        nullable=False,
        comment="open, high, low, close, volume, as stored; the other's likewise",
    ),
    Column("known_at", utc, nullable=False),
    Column("other_provider", Text, nullable=False),
    Column("other_bar", ARRAY(Double), nullable=False),
    Column("other_known_at", utc, nullable=False),
    Column(
        "apart_bp",
        ARRAY(Double),
        nullable=False,
        comment="how far apart, basis points of the larger, in the order of the bar",
    ),
    Column("beyond", ARRAY(Text), nullable=False, comment="fields beyond their tolerance; {}: the sources agree"),
    Column(
        "wrong",
        Text,
        comment="the provider whom a third source, or its own other bars, contradict; null: nobody knows",
    ),
    Column("policy_version", BigInteger),
    Index("reconciliations_at", "at"),
    Index("reconciliations_series", "instrument_id", "interval", "ts"),
    comment="bars held against another source, never overwritten",
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
    Column("at", utc, primary_key=True),
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
    Column("policy_version", BigInteger),
    Column("worst", JSONB, nullable=False, comment="the latest series, with evidence"),
)

quotes = Table(
    "quotes",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("ts", utc, primary_key=True),
    Column("bid", Double),
    Column("bid_size", Double),
    Column("ask", Double),
    Column("ask_size", Double),
    Column("provider", Text, nullable=False),
    Column("known_at", utc, nullable=False, server_default=func.now()),
    postgresql_partition_by="RANGE (ts)",
)
