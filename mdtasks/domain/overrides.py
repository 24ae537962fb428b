"""Overrides: time that a calendar counts as trading and that was none, as people have told. A value, swapped whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from mdtasks.domain.spans import Spans, merge


class Kind(StrEnum):
    """What happened: the session did not take place, began late, ended early; or one instrument alone was halted."""

    CLOSED = "closed"
    LATE_OPEN = "late_open"
    EARLY_CLOSE = "early_close"
    HALT = "halt"


@dataclass(frozen=True, slots=True, eq=False)
class Overrides:
    """All that holds of a version. ``shut``: by exchange; ``halted``: by instrument id. Two of one time are as one."""

    version: int = 0
    shut: Mapping[str, Spans] = field(default_factory=dict)
    halted: Mapping[int, Spans] = field(default_factory=dict)

    @classmethod
    def of(cls, version: int, told: Iterable[tuple[str | int, tuple[int, int]]]) -> Overrides:
        """Overrides from pairs: whom it is about (an exchange by its MIC, an instrument by its id), and the time
        ``[start, end)`` in microseconds.
        """
        shut: dict[str, list[tuple[int, int]]] = {}
        halted: dict[int, list[tuple[int, int]]] = {}
        for whom, span in told:
            if isinstance(whom, str):
                shut.setdefault(whom, []).append(span)
            else:
                halted.setdefault(whom, []).append(span)
        return cls(
            version,
            {mic: _spans(found) for mic, found in shut.items()},
            {instrument: _spans(found) for instrument, found in halted.items()},
        )


def _spans(found: list[tuple[int, int]]) -> Spans:
    spans = merge(np.array(found, dtype=np.int64))
    spans.setflags(write=False)
    return spans


#: Calendars as their library tells them.
NO_OVERRIDES: Final = Overrides()
