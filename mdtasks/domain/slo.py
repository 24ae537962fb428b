"""Service level objectives: which series are looked at, and what share of them may be late. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mdtasks.domain.jobs import Interval, Tier

#: Share of a tier's series that may be late, averaged over a month of trading time.
TARGETS: Final[Mapping[Tier, float]] = {Tier.T0: 0.005, Tier.T1: 0.02, Tier.T2: 0.05}
#: The interval whose lateness is a tier's objective.
WATCHED: Final[Mapping[Tier, Interval]] = {Tier.T0: Interval.M1, Tier.T1: Interval.M1, Tier.T2: Interval.D1}
