"""What is said of whom an attempt asked."""

from __future__ import annotations

from typing import Any

import pytest

from mdtasks.cli.jobs import route_words

FAILED = {"provider": "simulator", "answered": 0, "errors": {"vendor_error": "simulator: 500"}}
SERVED = {"provider": "simulator_2", "answered": 1}
ASIDE = {"provider": "simulator_3", "why": "paused by ann: audit"}


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ([SERVED], "asked simulator_2 (answered)"),
        (
            [FAILED, SERVED, ASIDE],
            "asked simulator (vendor_error: 500), then simulator_2 (answered);"
            " not asked: simulator_3, paused by ann: audit",
        ),
        ([{**SERVED, "answered": 3, "why": "a probe"}], "asked simulator_2 (a probe, answered 3 calls)"),
        (
            [{**FAILED, "answered": 2, "errors": {"timeout": "simulator: no answer", "no_data": "simulator: no X"}}],
            "asked simulator (answered 2 calls, timeout: no answer, no_data: no X)",
        ),
        ([ASIDE], "asked nobody; not asked: simulator_3, paused by ann: audit"),
    ],
)
def test_a_route_in_words(route: list[dict[str, Any]], words: str) -> None:
    assert route_words(route) == words
