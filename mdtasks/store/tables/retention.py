"""How far what is too old was deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text, func

from mdtasks.store.tables.types import metadata, utc

retention_marks = Table(
    "retention_marks",
    metadata,
    Column("subject", Text, primary_key=True),
    Column(
        "lost_before",
        utc,
        nullable=False,
        comment="what is older may be gone; never goes back, whatever the policy says later",
    ),
    Column("done_before", utc, comment="the newest round that came to its end left nothing older"),
    Column(
        "reached", BigInteger, nullable=False, server_default="0", comment="of attempts: the last id that was looked at"
    ),
    Column("policy_version", BigInteger),
    Column("updated_at", utc, nullable=False, server_default=func.now()),
    comment="how far what is too old was deleted, by the policy's rule for it",
)
