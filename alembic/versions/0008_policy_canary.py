"""A policy may be tried by one tier's workers first; jobs, letters and looks at the objectives bear its version."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table, three columns."""
    op.execute(
        """
        create table policy_canaries (
            version bigint primary key references policy_versions (version),
            tier tier not null,
            watch_s double precision not null,
            began_at timestamptz not null default now(),
            decision text,
            decided_at timestamptz,
            decided_by text,
            why text,
            evidence jsonb
        )
        """
    )
    op.execute(
        "create unique index policy_canaries_open on policy_canaries ((decision is null)) where decision is null"
    )
    op.execute("comment on column policy_canaries.tier is 'whose workers try it'")
    op.execute(
        "comment on column policy_canaries.decision is "
        "'promoted: it holds everywhere; withdrawn: it does not; null: it is being tried'"
    )
    for table in ("backfill_jobs", "dead_letters", "slo_snapshots"):
        op.execute(f"alter table {table} add column policy_version bigint")
    op.execute(
        "comment on column backfill_jobs.policy_version is 'that it was asked for under; each attempt bears its own'"
    )


def downgrade() -> None:
    """Without them."""
    for table in ("backfill_jobs", "dead_letters", "slo_snapshots"):
        op.execute(f"alter table {table} drop column policy_version")
    op.execute("drop table policy_canaries")
