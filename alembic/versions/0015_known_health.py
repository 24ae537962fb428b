"""When looks at providers and their transitions were put on record, for answers as of an instant."""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None

_COMMENTS = {
    "provider_snapshots": "when it was put on record",
    "provider_transitions": "when it was put on record: Redis decides, and PostgreSQL may be away then",
}


def upgrade() -> None:
    """One column each. Of what there is, nothing else is known than when it happened."""
    for table, comment in _COMMENTS.items():
        op.execute(f"alter table {table} add column known_at timestamptz")
        op.execute(f"comment on column {table}.known_at is '{comment}'")
    op.execute("update provider_snapshots set known_at = at")
    op.execute("update provider_transitions set known_at = at")
    for table in _COMMENTS:
        op.execute(f"alter table {table} alter column known_at set default clock_timestamp()")
        op.execute(f"alter table {table} alter column known_at set not null")
    op.execute("create index provider_snapshots_known on provider_snapshots (known_at)")


def downgrade() -> None:
    """Without them."""
    op.execute("drop index provider_snapshots_known")
    for table in _COMMENTS:
        op.execute(f"alter table {table} drop column known_at")
