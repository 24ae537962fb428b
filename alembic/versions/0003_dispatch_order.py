"""Dispatch in an order that an index has: what waits newest window first, what pauses by when its pause is over."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two partial indexes in place of one in which nothing was in order."""
    op.execute("drop index backfill_jobs_deferred")
    op.execute(
        'create index backfill_jobs_waiting on backfill_jobs (tier, upper("window") desc, id)'
        " where status = 'deferred' and not_before is null"
    )
    op.execute(
        "create index backfill_jobs_pausing on backfill_jobs (tier, not_before)"
        " where status = 'deferred' and not_before is not null"
    )


def downgrade() -> None:
    """The one index again."""
    op.execute("drop index backfill_jobs_pausing")
    op.execute("drop index backfill_jobs_waiting")
    op.execute("create index backfill_jobs_deferred on backfill_jobs (tier, not_before) where status = 'deferred'")
