"""What is kept of providers' health: how each stood, when it was demoted or promoted and why, and who paused it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Identity, Index, Table, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB

from mdtasks.store.tables.types import metadata, utc

provider_snapshots = Table(
    "provider_snapshots",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("at", utc, primary_key=True),
    Column("score", Double, nullable=False),
    Column("state", Text, nullable=False, comment="closed, half_open, open or paused"),
    Column("latency", Double, nullable=False),
    Column("errors", Double, nullable=False),
    Column("completeness", Double, nullable=False),
    Column("requests", BigInteger, nullable=False, comment="made so far; Redis may have begun anew"),
    Column("policy_version", BigInteger),
    Column("known_at", utc, nullable=False, server_default=func.clock_timestamp(), comment="when it was put on record"),
    Index("provider_snapshots_at", "at"),
    Index("provider_snapshots_known", "known_at"),
)

provider_transitions = Table(
    "provider_transitions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("provider", Text, nullable=False),
    Column("at", utc, nullable=False),
    Column("kind", Text, nullable=False, comment="demoted, promoted, paused, resumed"),
    Column("score", Double, nullable=False, comment="after it"),
    Column("case", JSONB, nullable=False, comment="what it was decided by; or who and why"),
    Column("policy_version", BigInteger),
    Column(
        "known_at",
        utc,
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="when it was put on record: Redis decides, and PostgreSQL may be away then",
    ),
    UniqueConstraint("provider", "at", "kind"),
)

provider_pauses = Table(
    "provider_pauses",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("paused_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", utc, nullable=False, server_default=func.now()),
)
