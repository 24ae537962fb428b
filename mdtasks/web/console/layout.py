"""What every page of the console has around it: where one can go from there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mdtasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Link:
    """A place that the navigation leads to; ``away``: it is no page of ours."""

    title: str
    path: str
    away: bool = False


#: The console's own pages, in the order of the navigation.
PAGES: Final = (
    Link("Overview", "/"),
    Link("Symbols", "/console/symbols"),
    Link("Backfills", "/console/backfills"),
    Link("Providers", "/console/providers"),
    Link("SLO", "/console/slo"),
    Link("Policy", "/console/policy"),
    Link("Dead letters", "/console/dead-letters"),
    Link("Runbooks", "/runbooks"),
    Link("API", "/console/api"),
)


def navigation(settings: Settings) -> Iterator[Link]:
    """Every page, and the programs beside us whose addresses are known."""
    yield from PAGES
    neighbours = (
        ("Flower", settings.flower_url, ""),
        ("Alerts", settings.prometheus_url, "/alerts"),
        ("Grafana", settings.grafana_url, ""),
    )
    for title, url, path in neighbours:
        if url.startswith(("http://", "https://")):
            yield Link(title, url.rstrip("/") + path, away=True)


def here(path: str) -> str:
    """The path of the navigation's entry that a page belongs to; "" where it belongs to none."""
    return max((each.path for each in PAGES if _within(path, each.path)), key=len, default="")


def _within(path: str, entry: str) -> bool:
    return path == entry or (entry != "/" and path.startswith(f"{entry}/"))
