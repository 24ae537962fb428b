"""The landing page: the stack's state in one look, and where to go from there. One page, no script, no other file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from mdtasks.domain.health import Standing
from mdtasks.domain.jobs import Tier
from mdtasks.flows.dispatch import Proof
from mdtasks.flows.providers import standings
from mdtasks.queue.app import backfill_queue
from mdtasks.queue.letters import DLQ
from mdtasks.settings import Settings
from mdtasks.store.bar_reports import NewestBar
from mdtasks.web.endpoints import Endpoint, endpoints
from mdtasks.web.looks import Look, Stored, look, proof_age_s, read_depths, read_proof, read_stored
from mdtasks.web.pages import page as shown
from mdtasks.web.parsing import Query, parse_query

_PARTS: Final = {"broker": "Redis", "redis": "Redis", "postgresql": "PostgreSQL"}
_UNKNOWN: Final = "\N{EN DASH}"
#: The reconciler runs every 10 s; a proof older than this says that it does not.
_PROOF_IS_OLD_S: Final = 60.0


async def page(request: Request) -> Response:
    """This page."""
    parse_query(request, Query)
    deps = request.state.deps
    found = await look(deps, broker=read_depths, redis=read_proof, postgresql=read_stored, providers=standings)
    known = list(endpoints(request.app.routes))
    return shown("landing.html", _values(found, deps.settings, known, datetime.now(UTC)))


def _values(found: Look, settings: Settings, known: Sequence[Endpoint], now: datetime) -> dict[str, str]:
    stored: Stored | None = found.of("postgresql")
    depths = found.of("broker")
    away = dict.fromkeys(name for part, name in _PARTS.items() if part in found.errors)
    state = f"{' and '.join(away)} cannot be used" if away else "All parts answer"
    return {
        "title": f"{'✗' if away else '✓'} mdtasks",
        "state": escape(state),
        "state_class": "bad" if away else "good",
        "away": "".join(dict.fromkeys(_away(error) for error in found.errors.values())),
        "tiers": "".join(_tier(tier, depths, stored, settings.cap(tier)) for tier in Tier),
        "safety": _letters(stored, depths) + _proof(found, now),
        "providers": _providers(found.of("providers"), now),
        "newest": _newest(stored, now),
        "endpoints": "".join(_endpoint(each) for each in known if each.path != "/"),
        "links": _links(settings),
        "now": f"{now:%Y-%m-%d %H:%M:%S}",
    }


def _away(error: Any) -> str:
    hint = f'<br><span class="soft">{escape(error.hint)}</span>' if error.hint else ""
    return f'<p class="away">{escape(error.message)}{hint}</p>'


def _tier(tier: Tier, depths: dict[str, int] | None, stored: Stored | None, cap: int) -> str:
    depth = depths[backfill_queue(tier)] if depths is not None else None
    waiting = stored.waiting[tier] if stored else None
    facts = [
        ("running", _count(waiting.running if waiting else None)),
        ("deferred", _count(waiting.deferred if waiting else None)),
        ("oldest waits", _age(waiting.oldest_age_s) if waiting and waiting.oldest_age_s else _UNKNOWN),
    ]
    return _card(str(tier), f"{_count(depth)} <small>of {cap:,} queued</small>", facts, _fill(depth, cap))


def _fill(depth: int | None, cap: int) -> str:
    share = min((depth or 0) / cap, 1.0)
    level = "warn" if share >= 0.8 else ""
    return (
        f'<svg class="fill" role="img" aria-label="{share:.0%} of the cap" preserveAspectRatio="none">'
        f'<rect class="track" width="100%" height="100%"/>'
        f'<rect class="level {level}" width="{share:.2%}" height="100%"/></svg>'
    )


def _letters(stored: Stored | None, depths: dict[str, int] | None) -> str:
    counts = stored.letters if stored else {}
    still_open = counts.get("open")
    facts = [
        ("of them backfills", _count(counts.get("backfills"))),
        ("on their way", _count(depths[DLQ] if depths is not None else None)),
        ("requeued", _count(counts.get("requeued"))),
    ]
    shown = f'<span class="{"warn" if still_open else ""}">{_count(still_open)}</span> <small>open</small>'
    return _card("Dead letters", shown, facts)


def _proof(found: Look, now: datetime) -> str:
    proof: Proof | None = found.of("redis")
    if proof is None:
        word = "not yet" if "redis" in found.answers else _UNKNOWN
        return _card("Reconciler", f"{word} <small>{'no proof so far' if word == 'not yet' else ''}</small>", [])
    age_s = proof_age_s(proof, now)
    level = "warn" if age_s > _PROOF_IS_OLD_S else ""
    facts = [
        ("lost, sent again", _count(proof.lost)),
        ("doubled", _count(proof.doubled)),
        ("orphans", _count(proof.orphans)),
    ]
    return _card("Reconciler", f'<span class="{level}">{_age(age_s)}</span> <small>since its proof</small>', facts)


def _providers(found: Sequence[Standing] | None, now: datetime) -> str:
    if found is None:
        return '<p class="empty soft">Not known while Redis cannot be used.</p>'
    if not found:
        return '<p class="empty soft">None is configured: nothing can be fetched.</p>'
    return "".join(_provider(each, now) for each in found)


def _provider(each: Standing, now: datetime) -> str:
    facts = [("requests so far", _count(each.requests))]
    if each.budget is not None:
        facts.append(("may go at once", _count(each.budget)))
    since = each.pause.at if each.pause else each.since
    if each.why_aside and since is not None:
        facts.append(("aside for", _age((now - since).total_seconds())))
    level = "warn" if each.why_aside else ""
    shown = f'<span class="{level}">{each.score:.2f}</span> <small>{each.state.replace("_", "-")}</small>'
    why = f'<p class="soft">{escape(each.why_aside)}</p>' if each.why_aside else ""
    return _card(each.name, shown, facts, why)


def _card(title: str, shown: str, facts: Iterable[tuple[str, str]], below: str = "") -> str:
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<section class="card"><h3>{escape(title)}</h3><p class="big">{shown}</p>{below}<dl>{listed}</dl></section>'


def _newest(stored: Stored | None, now: datetime) -> str:
    if stored is None:
        return '<p class="empty soft">Not known while PostgreSQL cannot be used.</p>'
    if not stored.newest:
        return (
            '<p class="empty soft">None yet. Ask for some: '
            "<code>mdtasks backfill SYMBOL --interval 1m --sessions 5</code></p>"
        )
    heads = ("Symbol", "Interval", "Bar (UTC)", "Close", "Provider", "Stored")
    head = "".join(f"<th{_number(name == 'Close')}>{name}</th>" for name in heads)
    rows = "".join(_bar(bar, now) for bar in stored.newest)
    return f'<table class="newest"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _bar(bar: NewestBar, now: datetime) -> str:
    provisional = "" if bar.final else ' <span class="soft">provisional</span>'
    cells = [
        f"<strong>{escape(bar.symbol)}</strong>",
        bar.interval,
        f"{bar.ts:%Y-%m-%d}" if bar.interval == "1d" else f"{bar.ts:%Y-%m-%d %H:%M}",
        f"{bar.close:,.8g}",
        escape(bar.provider) + provisional,
        f"{_age((now - bar.known_at).total_seconds())} ago",
    ]
    return f"<tr>{''.join(f'<td{_number(i == 3)}>{cell}</td>' for i, cell in enumerate(cells))}</tr>"


def _number(yes: bool) -> str:
    return ' class="number"' if yes else ""


def _endpoint(each: Endpoint) -> str:
    path = escape(each.path)
    plain = each.method == "GET" and "{" not in path and not path.startswith("/ops")
    shown = f'<a href="{path}">{path}</a>' if plain else path
    return (
        f'<tr><td class="mono soft">{each.method}</td><td class="mono">{shown}</td>'
        f'<td class="wrap">{escape(each.purpose)}</td></tr>'
    )


def _links(settings: Settings) -> str:
    links = [("Objectives", "/slo"), ("Metrics", "/metrics"), ("Parts", "/ready"), ("Providers", "/stats/providers")]
    links += [("Runbooks", "/runbooks")]
    if settings.api_token is None:  # a link cannot bear the token
        links += [("Jobs", "/ops/jobs"), ("Dead letters", "/ops/dlq/stats")]
    if settings.flower_url.startswith(("http://", "https://")):
        links.append(("Flower", settings.flower_url))
    if settings.prometheus_url.startswith(("http://", "https://")):
        links.append(("Alerts", f"{settings.prometheus_url}/alerts"))
    return "".join(f'<a href="{escape(url)}">{name}</a>' for name, url in links)


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _age(seconds: float) -> str:
    """A length of time in its largest whole unit: ``4 s``, ``3 min``, ``2 h``, ``5 d``."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
