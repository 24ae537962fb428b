"""The policy on record: one row a version, never changed; and the versions that one tier tried first."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Identity, Index, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

from mdtasks.store.tables.types import metadata, tier, utc

policy_versions = Table(
    "policy_versions",
    metadata,
    Column("version", BigInteger, Identity(always=True), primary_key=True),
    Column("hash", Text, nullable=False, comment="SHA-256 of the canonical JSON"),
    Column("body", JSONB, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("parent", BigInteger, nullable=False, comment="the version that it took the place of; 0: the defaults"),
    Column("restores", BigInteger, comment="the version that it brought back, where it is a rollback"),
    Column("created_at", utc, nullable=False, server_default=func.now()),
)

policy_canaries = Table(
    "policy_canaries",
    metadata,
    Column("version", BigInteger, ForeignKey("policy_versions.version"), primary_key=True),
    Column("tier", tier, nullable=False, comment="whose workers try it"),
    Column("watch_s", Double, nullable=False),
    Column("began_at", utc, nullable=False, server_default=func.now()),
    Column("decision", Text, comment="promoted: it holds everywhere; withdrawn: it does not; null: it is being tried"),
    Column("decided_at", utc),
    Column("decided_by", Text),
    Column("why", Text),
    Column("evidence", JSONB),
    # One at a time.
    Index("policy_canaries_open", text("(decision is null)"), unique=True, postgresql_where=text("decision is null")),
)
