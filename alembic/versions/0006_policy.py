"""The policy on record: every version with its content, its hash, who made it, why, and from which one."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COMMENTS = {
    "hash": "SHA-256 of the canonical JSON",
    "parent": "the version that it took the place of; 0: the defaults",
    "restores": "the version that it brought back, where it is a rollback",
}


def upgrade() -> None:
    """One table."""
    op.execute(
        """
        create table policy_versions (
            version bigint generated always as identity primary key,
            hash text not null,
            body jsonb not null,
            author text not null,
            reason text not null,
            parent bigint not null,
            restores bigint,
            created_at timestamptz not null default now()
        )
        """
    )
    for column, comment in _COMMENTS.items():
        op.execute(f"comment on column policy_versions.{column} is '{comment}'")


def downgrade() -> None:
    """Without it."""
    op.execute("drop table policy_versions")
