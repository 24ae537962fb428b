"""Reference data: which instruments there are, what they are called, and what people have told of calendars."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Sequence,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TSTZRANGE

from mdtasks.store.tables.types import metadata, tier, utc

instruments = Table(
    "instruments",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("mic", Text, nullable=False, comment="exchange MIC as exchange_calendars knows it, or 24/7"),
    Column("kind", Text, nullable=False, server_default="equity"),
    Column("tier", tier, server_default="T1", comment="null: known, and followed by nobody"),
    Column("listed_from", Date),
    Column("delisted_on", Date),
    Column(
        "delisted_source", Text, comment="who told last when it ended, or that it lives: a listing, person or actions"
    ),
    Column("created_at", utc, nullable=False, server_default=func.universe_instant()),
    Column("tier_since", utc, comment="null: since it was made"),
    Column("tier_source", Text, comment="who gave it its tier: version:TAG or person:NAME; null: it was added so"),
)

# What instruments and symbols were is kept by triggers, so that no statement can forget it. All changes of a
# transaction bear one instant, universe_instant(), which takes the lock of the universe: as of any instant there is all
# of a change or nothing.
instrument_revisions = Table(
    "instrument_revisions",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("superseded_at", utc, primary_key=True),
    Column("mic", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tier", tier),
    Column("tier_source", Text),
    Column("listed_from", Date),
    Column("delisted_on", Date),
    comment="how instruments were followed and listed before each change",
)

symbols = Table(
    "symbols",
    metadata,
    Column("instrument_id", Integer, ForeignKey("instruments.id", ondelete="CASCADE"), primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("valid_from", Date, primary_key=True, server_default=text("'-infinity'")),
    Column("valid_to", Date, nullable=False, server_default=text("'infinity'"), comment="exclusive"),
    Column("source", Text, comment="who told that it bears it from then on: a listing, person or actions"),
    Column(
        "known_at",
        utc,
        nullable=False,
        server_default=func.universe_instant(),
        comment="since when it is on record",
    ),
    # One bearer of a symbol at any time now; two companies may bear it one after the other (WM).
    Index("symbols_current", "symbol", unique=True, postgresql_where=text("valid_to = 'infinity'")),
    # What an instrument bears now: joins of whole tiers must not depend on statistics of a table just filled.
    Index("symbols_borne", "instrument_id", postgresql_where=text("valid_to = 'infinity'")),
    # Who bore it when.
    Index("symbols_ever", "symbol", "valid_from"),
)

symbol_revisions = Table(
    "symbol_revisions",
    metadata,
    Column("instrument_id", Integer, primary_key=True, autoincrement=False),
    Column("symbol", Text, primary_key=True),
    Column("valid_from", Date, primary_key=True),
    Column("valid_to", Date, nullable=False),
    Column("known_at", utc, primary_key=True),
    Column("superseded_at", utc, nullable=False),
    Index("symbol_revisions_borne", "symbol", "superseded_at"),
    comment="what was said of symbols before something else was, or nothing",
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
    Column("created_at", utc, nullable=False, server_default=func.now()),
    Column("undone_at", utc),
    Column("undone_by", Text),
    Column("undone_reason", Text),
    Column("undone_version", BigInteger, comment="version from which on it no longer holds"),
    CheckConstraint("(mic is null) <> (instrument_id is null)"),
    Index("calendar_overrides_standing", "mic", "instrument_id", postgresql_where=text("undone_at is null")),
    comment="time that the calendar counts as trading and that was none",
)
