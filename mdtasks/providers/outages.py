"""Outages on a schedule, for the simulator: which faults hold when, counted from one moment for all processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from mdtasks.domain.errors import ConfigurationError
from mdtasks.providers.faults import Faults

_ENV: Final = "MDTASKS_SIMULATOR_SCHEDULE"
_SPELL: Final = re.compile(r"(\d+)-(\d+)\s+(\S+)")


@dataclass(frozen=True, slots=True)
class Spell:
    """Faults from ``since_s`` until before ``until_s``, seconds from the schedule's beginning."""

    since_s: float
    until_s: float
    faults: Faults


@dataclass(frozen=True, slots=True)
class Schedule:
    """Spells of faults since ``epoch``; at all other times ``otherwise`` holds."""

    otherwise: Faults = field(default_factory=Faults)
    spells: Sequence[Spell] = ()
    epoch: datetime | None = None

    @classmethod
    def parse(cls, text: str, epoch: datetime | None, otherwise: Faults) -> Schedule:
        """From ``60-120 latency_s=3; 120-180 error=1``; the first that fits a moment holds.

        Raises ConfigurationError naming what is wrong.
        """
        spells = [_spell(part.strip()) for part in text.split(";") if part.strip()]
        if spells and epoch is None:
            raise ConfigurationError(
                f"{_ENV} counts from MDTASKS_SIMULATOR_EPOCH, which is not set",
                name="MDTASKS_SIMULATOR_EPOCH",
                hint="`mdtasks up` sets it to the moment of its start",
            )
        return cls(otherwise, spells, epoch)

    def __str__(self) -> str:
        """What is ordered, in words."""
        told = f"faults {self.otherwise}" if str(self.otherwise) else "no faults"
        return f"{told}, and others on a schedule from {self.epoch.isoformat()}" if self.epoch else told

    @property
    def ends_at(self) -> datetime | None:
        """When the last spell is over; None without one."""
        if self.epoch is None or not self.spells:
            return None
        return self.epoch + timedelta(seconds=max(spell.until_s for spell in self.spells))

    def at(self, now: datetime) -> Faults:
        """The faults that hold at ``now``."""
        if self.epoch is None:
            return self.otherwise
        elapsed_s = (now - self.epoch).total_seconds()
        fitting = (spell.faults for spell in self.spells if spell.since_s <= elapsed_s < spell.until_s)
        return next(fitting, self.otherwise)


def _spell(text: str) -> Spell:
    found = _SPELL.fullmatch(text)
    if found is None or int(found[1]) >= int(found[2]):
        raise ConfigurationError(
            f"{_ENV}: {text!r} is not FROM-UNTIL FAULTS, such as 60-120 latency_s=3",
            name=_ENV,
            hint="docs/providers.md has an example",
        )
    return Spell(float(found[1]), float(found[2]), Faults.parse(found[3]))
