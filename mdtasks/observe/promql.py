"""The queries that rules and dashboards share, each written once. Pure text.

Counters only grow while an exchange trades, so a window without trading holds no events: there a rate has no value
instead of 0 / 0, which would make every average over it not a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: The scrape job of the web app's /metrics.
JOB: Final = "mdtasks"
#: Windows whose rate is recorded, by name, with their length in seconds.
WINDOWS: Final = {
    "5m": 300,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "6h": 21_600,
    "1d": 86_400,
    "3d": 259_200,
    "30d": 2_592_000,
}
#: Minutes of trading that the largest minimum of events stands for: no session is required to be longer.
_MOST_MINUTES: Final = 360

_BY: Final = "sum by (tier, interval)"
_EXPECTED: Final = "slo_gap_expected_total"
_VIOLATIONS: Final = "slo_gap_violations_total"


def window_name(length_s: int) -> str:
    """The name of a recorded window of this length."""
    return next(name for name, known_s in WINDOWS.items() if known_s == length_s)


def recorded(window: str, selector: str = "") -> str:
    """The recorded share of late series in a window: what alerts and panels ask for."""
    return f"tier_interval:slo_gap_violations:ratio_{window}{selector}"


def series_of(tier: str, interval: str) -> str:
    """Selects a tier's series of an interval."""
    return f'{{tier="{tier}", interval="{interval}"}}'


def least_events(window: str) -> int:
    """Events below which a window says nothing: one series looked at for half of it (a look every 30 s).

    Without it the first look after the open would be the whole hour's rate.
    """
    return min(WINDOWS[window] // 60, _MOST_MINUTES)


def violation_ratio(window: str) -> str:
    """The share of late series in a window, of tiers and intervals with enough events in it; no others have a value.

    A counter that nobody has counted into yet has no series: then none was late.
    """
    expected = f"{_BY} (increase({_EXPECTED}[{window}]))"
    violations = f"{_BY} (increase({_VIOLATIONS}[{window}]))"
    return f"({violations} or 0 * {expected})\n/ ({expected} > {least_events(window)})"


def growth(metric: str, by: Sequence[str], window: str) -> str:
    """By how much a counter grew in a window.

    Unlike increase() it sees the first count of a new set of labels, which begins at more than 0. Nothing is told while
    Prometheus has watched for less than the window: then all that was ever counted would look new.
    """
    total = f"sum by ({', '.join(by)})"
    before = f"({total} ({metric} offset {window}) or 0 * {total} ({metric}))"
    return f'({total} ({metric}) - {before} and on () (max(up{{job="{JOB}"}} offset {window}) == 1))'


def scraped() -> str:
    """Holds while the web app's metrics are read: what is absent then is absent indeed."""
    return f'(max(up{{job="{JOB}"}}) == 1)'


def a_market_is_open() -> str:
    """Holds while any exchange of the universe trades."""
    return "(max(market_open) == 1)"


def silent_for(timestamp: str, most_s: int, *, by: str = "") -> str:
    """How long ago a timestamp was, seconds, where that is longer than ``most_s``."""
    newest = f"max by ({by}) ({timestamp})" if by else f"max({timestamp})"
    return f"time() - {newest} > {most_s}"


def drain_s() -> str:
    """How long each tier's backlog takes at the pace of the last 15 minutes, seconds: infinite when nothing moves."""
    waiting = "(max by (tier) (backfill_queue_depth) + max by (tier) (backfill_deferred))"
    done = 'sum by (tier) (rate(backfill_jobs_completed_total{status="done"}[15m]))'
    return f"{waiting}\n/ ({done} or 0 * max by (tier) (backfill_queue_depth))"


#: Errors that say nothing of a provider's health: backpressure, silence, a question it never answers or was not asked.
_NOT_ILL: Final = "rate_limited|no_data|unsupported|circuit_open|rate_spent|not_yet|refused"


def provider_error_share(window: str, *, least_calls: int, selector: str = "") -> str:
    """The share of a provider's calls that failed in a window, where there were enough of them."""
    errors = f'sum by (provider) (increase(provider_errors_total{{code!~"{_NOT_ILL}"{selector}}}[{window}]))'
    only = f"{{{selector.removeprefix(', ')}}}" if selector else ""
    calls = f"sum by (provider) (increase(provider_selected_total{only}[{window}]))"
    return f"{errors}\n/ ({calls} > {least_calls})"


def publish_latency_s(share: float) -> str:
    """A quantile of the time from a bar's commit to a client's socket, over 5 minutes."""
    return f"histogram_quantile({share}, sum by (le) (rate(ws_publish_latency_seconds_bucket[5m])))"
