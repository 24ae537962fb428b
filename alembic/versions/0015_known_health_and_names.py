"""Since when health is on record, who told of names and lives; indexes of names' actions and of requests by time."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_COMMENTS = {
    "provider_snapshots": "when it was put on record",
    "provider_transitions": "when it was put on record: Redis decides, and PostgreSQL may be away then",
}


def upgrade() -> None:
    """A column each. Of what there is, nothing else is known than when it happened, and not who told of it."""
    for table, comment in _COMMENTS.items():
        op.execute(f"alter table {table} add column known_at timestamptz")
        op.execute(f"comment on column {table}.known_at is '{comment}'")
    op.execute("update provider_snapshots set known_at = at")
    op.execute("update provider_transitions set known_at = at")
    for table in _COMMENTS:
        op.execute(f"alter table {table} alter column known_at set default clock_timestamp()")
        op.execute(f"alter table {table} alter column known_at set not null")
    op.execute("create index provider_snapshots_known on provider_snapshots (known_at)")
    op.execute("alter table symbols add column source text")
    op.execute(
        "comment on column symbols.source is 'who told that it bears it from then on: a listing, person or actions'"
    )
    op.execute("alter table instruments add column delisted_source text")
    op.execute(
        "comment on column instruments.delisted_source is"
        " 'who told last when it ended, or that it lives: a listing, person or actions'"
    )
    op.execute(
        "create index corporate_actions_names on corporate_actions (ex_date) where kind in ('rename', 'delisting')"
    )
    op.execute("create index requests_created on requests (created_at)")


def downgrade() -> None:
    """Without them."""
    op.execute("drop index requests_created")
    op.execute("drop index corporate_actions_names")
    op.execute("alter table instruments drop column delisted_source")
    op.execute("alter table symbols drop column source")
    op.execute("drop index provider_snapshots_known")
    for table in _COMMENTS:
        op.execute(f"alter table {table} drop column known_at")
