"""The policy on record: one row a version, never changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

from mdtasks.store.tables.types import metadata, utc

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
