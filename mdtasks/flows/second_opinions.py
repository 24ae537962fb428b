"""Asking another provider for bars that are stored: whoever is well, has it, and has calls to spare."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mdtasks.domain.bars import Bars, validated
from mdtasks.domain.errors import BrokerUnavailableError, ProviderError
from mdtasks.domain.health import Circuit
from mdtasks.domain.jobs import Interval, TimeWindow
from mdtasks.domain.universe import Listing
from mdtasks.flows.deps import Deps
from mdtasks.flows.fetch import fetch_bars
from mdtasks.flows.judging import Asked, Hole, Subject
from mdtasks.flows.routing import Turn
from mdtasks.providers.base import Provider
from mdtasks.providers.planning import Declaration, Wanted, plan

log = logging.getLogger(__name__)

#: Requests that must be left of a provider's rates: what is asked here takes nothing that fetching may want at once.
_SPARE: Final = 2


@dataclass(frozen=True, slots=True)
class Question:
    """Which bars are asked for, and when."""

    instrument_id: int
    listing: Listing
    interval: Interval
    window: TimeWindow
    now: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """What a provider has there: sound bars in time order, perhaps none."""

    provider: str
    bars: Bars


def opinions(deps: Deps, question: Question, *, beside: str) -> Iterator[Opinion]:
    """What others than ``beside`` have, each asked when the caller wants one more, in default order, by one call.

    One that is not well, has no calls to spare, cannot have all of it, or fails, is left out. None is asked while Redis
    does not tell how they are.
    """
    for provider in _others(deps, question, beside):
        try:
            if _is_free(deps, provider):
                yield Opinion(provider.name, _asked(deps, provider, question))
        except ProviderError as error:
            log.info("no second opinion of %s: %s", provider.name, error)
        except BrokerUnavailableError as error:
            log.warning("no second opinion: the providers' health is not known: %s", error)
            return


def _others(deps: Deps, question: Question, beside: str) -> list[Provider]:
    """Those that have all of the window in one call. Made-up bars are held against made-up ones only."""
    found = [deps.registry.get(name) for name in deps.registry.names() if name != beside]
    wanted = [Wanted(question.listing, question.window)]
    return [
        each
        for each in found
        if deps.registry.is_made_up(each.name) == deps.registry.is_made_up(beside)
        and question.interval in each.capabilities.intervals
        and _in_one_call(each, question, wanted)
    ]


def _in_one_call(provider: Provider, question: Question, wanted: list[Wanted]) -> bool:
    planned = plan(Declaration(provider.name, provider.capabilities), question.interval, wanted, question.now)
    return len(planned.calls) == 1 and not planned.not_asked


def _is_free(deps: Deps, provider: Provider) -> bool:
    (standing,) = deps.health.standings({provider.name: provider.capabilities.rates})
    well = standing.pause is None and standing.circuit is Circuit.CLOSED
    return well and (standing.budget is None or standing.budget >= _SPARE)


def _asked(deps: Deps, provider: Provider, question: Question) -> Bars:
    """Raises ProviderError."""
    asked = Asked(provider, question.interval, question.window, question.now)
    hole = Hole(Subject(question.instrument_id, question.listing), question.window)
    answer = fetch_bars(asked, [hole], Turn(provider, deps.registry.gate(provider.name)))
    if error := answer.errors.get(question.listing.symbol):
        raise error
    return validated(answer.bars[question.listing.symbol], question.window, question.interval)[0]
