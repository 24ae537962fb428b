"""What a process keeps of provider calls that are slow."""

from __future__ import annotations

from mdtasks.settings.declared import declared
from mdtasks.settings.vendors import VendorSettings


class TracingSettings(VendorSettings):
    """Settings of the recorder of slow provider calls."""

    viztracer_enabled: bool = declared(
        "VIZTRACER_ENABLED", True, "Record slow provider calls, with a trace of where their time went"
    )
    viztracer_slow_s: float = declared(
        "VIZTRACER_SLOW_S", 2.0, "A provider call is slow when it takes longer than this, seconds", gt=0, le=3600
    )
    viztracer_slow_p95: float = declared(
        "VIZTRACER_SLOW_P95", 3.0, "Or longer than so many times the provider's p95; 0: only the seconds count", ge=0
    )
    viztracer_sample: float = declared(
        "VIZTRACER_SAMPLE", 1.0, "Share of the slow calls that get a trace; all get a record", ge=0, le=1
    )
    viztracer_keep: int = declared(
        "VIZTRACER_KEEP", 200, "Traces that are kept, the newest; 0: records alone", ge=0, le=100_000
    )
    viztracer_keep_mb: int = declared(
        "VIZTRACER_KEEP_MB", 100, "Megabytes that they may take in all, compressed", ge=1, le=100_000
    )
