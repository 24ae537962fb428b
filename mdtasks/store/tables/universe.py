"""Universe versions: listings as they came, whom their rows mean, what was made of them, which version held when."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from mdtasks.store.tables.types import metadata, tier, utc

listing_snapshots = Table(
    "listing_snapshots",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False, comment="csv, lean, a provider; keys and traded are made here"),
    Column("as_of", Date, nullable=False, comment="the day that it tells of"),
    Column("sha256", Text, nullable=False, comment="of the bytes as they came"),
    Column("row_count", Integer, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="the bytes, compressed by zlib"),
    Column("fetched_at", utc, nullable=False, server_default=func.clock_timestamp()),
    Index("listing_snapshots_content", "source", "as_of", "sha256", unique=True),
    comment="what versions of the universe are made of, as it came",
)

listing_keys = Table(
    "listing_keys",
    metadata,
    Column("source", Text, primary_key=True),
    Column("key", Text, primary_key=True, comment="the source's own id of the instrument, else symbol@exchange"),
    Column("valid_from", Date, primary_key=True, comment="from this day's listing on"),
    Column("instrument_id", Integer, nullable=False),
    comment="whom the rows of a source mean",
)

universe_versions = Table(
    "universe_versions",
    metadata,
    Column("version", BigInteger, Identity(always=True), primary_key=True),
    Column("version_tag", Text, nullable=False),
    Column("hash", Text, nullable=False, comment="SHA-256 of the header: inputs, rules and their parameters"),
    Column("source_meta", JSONB, nullable=False, comment="where it came from, and what was left out and why"),
    Column("header", Text, nullable=False, comment="canonical JSON"),
    Column("members", Integer, nullable=False),
    Column("members_sha256", Text, nullable=False, comment="of the canonical lines of its members"),
    Column(
        "parent", BigInteger, ForeignKey("universe_versions.version"), comment="the version that held when it was made"
    ),
    Column("policy_version", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", utc, nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("version_tag", name="universe_versions_tag"),
    UniqueConstraint("hash", name="universe_versions_hash"),
)

universe_members = Table(
    "universe_members",
    metadata,
    Column("version", BigInteger, ForeignKey("universe_versions.version", ondelete="CASCADE"), primary_key=True),
    Column("instrument", Integer, primary_key=True),
    Column("symbol", Text, nullable=False, comment="what it bore then"),
    Column("tier", tier, nullable=False),
    Column("rank", Integer, nullable=False, comment="from 1, by dollar volume"),
    Column("score", BigInteger, nullable=False, comment="dollars traded a day, on average"),
)

universe_activations = Table(
    "universe_activations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("version", BigInteger, ForeignKey("universe_versions.version"), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("activated_at", utc, nullable=False, server_default=func.universe_instant()),
    Column("counts", JSONB, nullable=False),
    Index("universe_activations_at", "activated_at"),
    comment="which version held from when on; only ever added to",
)
