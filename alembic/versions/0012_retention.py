"""What is too old is let go of, and on record is what may be gone: how far each kind was deleted."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table, two indexes by which the oldest is found."""
    op.execute(
        """
        create table retention_marks (
            subject text primary key,
            lost_before timestamptz not null,
            done_before timestamptz,
            reached bigint not null default '0'::bigint,
            policy_version bigint,
            updated_at timestamptz not null default now()
        )
        """
    )
    op.execute(
        "comment on table retention_marks is 'how far what is too old was deleted, by the policy''s rule for it'"
    )
    for column, comment in (
        ("lost_before", "what is older may be gone; never goes back, whatever the policy says later"),
        ("done_before", "the newest round that came to its end left nothing older"),
        ("reached", "of attempts: the last id that was looked at"),
    ):
        op.execute(f"comment on column retention_marks.{column} is '{comment}'")
    op.execute("create index backfill_jobs_over on backfill_jobs (updated_at) where status in ('done', 'cancelled')")
    # Rows come in the order of this column and are never updated: a few pages tell where the oldest lie.
    op.execute("create index bar_revisions_superseded on bar_revisions using brin (superseded_at)")


def downgrade() -> None:
    """Without them."""
    op.execute("drop index bar_revisions_superseded")
    op.execute("drop index backfill_jobs_over")
    op.execute("drop table retention_marks")
