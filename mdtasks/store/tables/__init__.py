"""The tables of the store, as simple statements and Alembic read them. Partitions and functions: the migrations."""

from mdtasks.store.tables import bars, jobs, policies, providers, reference, retention, traces
from mdtasks.store.tables.types import metadata

__all__ = ["bars", "jobs", "metadata", "policies", "providers", "reference", "retention", "traces"]
