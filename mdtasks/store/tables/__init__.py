"""The tables of the store, as simple statements and Alembic read them. Partitions and functions: the migrations."""

from mdtasks.store.tables import actions, bars, jobs, policies, providers, reference, retention, traces, universe
from mdtasks.store.tables.types import metadata

__all__ = [
    "actions",
    "bars",
    "jobs",
    "metadata",
    "policies",
    "providers",
    "reference",
    "retention",
    "traces",
    "universe",
]
