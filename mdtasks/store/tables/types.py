"""What all tables are made of: the metadata they belong to, and the store's own types."""

from __future__ import annotations

from typing import Final

from sqlalchemy import DateTime, Enum, MetaData

metadata: Final = MetaData()

utc = DateTime(timezone=True)
tier = Enum("T0", "T1", "T2", name="tier", metadata=metadata)
bar_interval = Enum("1m", "5m", "15m", "1h", "1d", name="bar_interval", metadata=metadata)
bar_status = Enum("provisional", "final", name="bar_status", metadata=metadata)
job_status = Enum("deferred", "queued", "running", "done", "failed", "cancelled", name="job_status", metadata=metadata)
