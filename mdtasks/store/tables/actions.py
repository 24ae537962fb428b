"""Corporate actions: what was told of them, and who was asked about which days."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
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

from mdtasks.store.tables.types import metadata, utc

corporate_actions = Table(
    "corporate_actions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True, comment="grows with known_at"),
    Column("instrument_id", Integer, ForeignKey("instruments.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False, comment="split, dividend, stock_dividend, spin_off, rename or delisting"),
    Column("ex_date", Date, nullable=False, comment="the session from which on prices are without it"),
    Column(
        "value",
        Double,
        comment="new shares for one old; cash for a share; new shares for each held; the part of the worth that stays",
    ),
    Column("currency", Text, comment="of a dividend; null: that of the prices"),
    Column("symbol", Text, comment="borne from then on, or of the company spun off"),
    Column("reference", Double, comment="raw close of the session before, as the source has it"),
    Column("declared_on", Date),
    Column("record_on", Date),
    Column("pay_on", Date),
    Column("source", Text, nullable=False, comment="who told it: a provider, file, or person"),
    Column("withdrawn", Boolean, nullable=False, server_default="false", comment="told that there is no such action"),
    Column("supersedes", BigInteger, comment="the statement of the same source that this one takes the place of"),
    Column("actor", Text, comment="who did it, where a person did"),
    Column("reason", Text),
    Column("known_at", utc, nullable=False, comment="never before that of a row with a lower id"),
    Index("corporate_actions_told", "instrument_id", "id"),
    Index("corporate_actions_known", "known_at"),
    # What names and lives follow: few among many dividends.
    Index("corporate_actions_names", "ex_date", postgresql_where=text("kind in ('rename', 'delisting')")),
    comment="statements about corporate actions; never changed: corrections and withdrawals are later rows",
)

action_answers = Table(
    "action_answers",
    metadata,
    Column("instrument_id", Integer, ForeignKey("instruments.id", ondelete="CASCADE"), primary_key=True),
    Column("source", Text, primary_key=True),
    Column("first_day", Date, comment="the earliest ex-date that it ever answered for; null: it never did"),
    Column("last_day", Date),
    Column("error", Text, comment="why it did not answer when it was asked last, and would not again; null: it did"),
    Column("asked_at", utc, nullable=False, server_default=func.now()),
    comment="which days' corporate actions a provider has answered for, and when it last did",
)
