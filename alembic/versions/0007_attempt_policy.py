"""Each attempt bears the version of the policy that it was made under."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One column."""
    op.execute("alter table job_attempts add column policy_version bigint")
    op.execute("comment on column job_attempts.policy_version is '0: none was applied yet'")


def downgrade() -> None:
    """Without it."""
    op.execute("alter table job_attempts drop column policy_version")
