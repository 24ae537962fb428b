"""``mdtasks slo``: how late each tier is, against target and budget, and which series are to blame."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import add_tier, count_of, explain, since_of
from mdtasks.cli.slo_rules import add_rules

if TYPE_CHECKING:
    from mdtasks.flows.objectives import Drain, Report, Standing

_STATES: Final = {
    "ok": "OK",
    "late": "LATE",
    "new": "new",
    "no_session": "no session",
    "no_series": "no series",
    "not_watched": "NOT WATCHED",
}
#: What an objective is about, in the words of somebody who was just woken.
_NAMES: Final = {"gap": "on time", "coverage": "last session whole"}

_EXAMPLES = """
examples:
  mdtasks slo
  mdtasks slo --tier T0 --worst 20
  mdtasks slo --check || mdtasks doctor
  mdtasks slo history --tier T0 --since 2d

A series is late when its newest data lags by more than it may, in time in which its exchange traded. The budget of a
month is its target's share of the month's session minutes; burn is how many times too fast it was used over the last
hour of trading.
"""


def add_parser(commands: Commands) -> None:
    """Add ``slo``, ``slo history`` and ``slo rules``."""
    look = commands.add("slo", slo, "Show what is late, against targets and this month's budget", json=True)
    add_tier(look, "of one tier only")
    look.add_argument(
        "--worst", type=count_of("series", 20, least=0), default=5, metavar="N", help="name N late series a tier (5)"
    )
    look.add_argument("--check", action="store_true", help="exit with 1 when something is late or not watched")
    explain(look, _EXAMPLES)
    below = Commands(look, dest="slo_command")
    look.set_defaults(func=slo)
    past = below.add("history", history, "Show how an objective stood", json=True)
    add_tier(past, "of this tier", required=True)
    past.add_argument("--since", default="1d", metavar="TIME", help="a time, or how long ago: 6h, 2d (default: 1d)")
    past.add_argument(
        "--objective", choices=tuple(_NAMES), default="gap", metavar="O", help="gap or coverage (default: gap)"
    )
    add_rules(below)


def slo(args: argparse.Namespace) -> int:
    """Show how the objectives stand. With --check exit code 1 when one of them is late or not watched."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree
    from mdtasks.domain.jobs import Tier
    from mdtasks.flows.objectives import report

    with opened_deps(args) as deps:
        found = report(deps, datetime.now(UTC), None if args.tier is None else Tier(args.tier))
    if args.json:
        print_json(json_tree(found.as_dict()))
    else:
        _show(found, args.worst)
    states = [*(each.state for each in found.standings), *(each.state for each in found.drains)]
    return 1 if args.check and {"late", "not_watched"} & set(states) else 0


def _show(found: Report, worst: int) -> None:
    from mdtasks.cli.output import show_table

    headers = ("objective", "tier", "int", "state", "late", "of", "rate", "target", "lag", "burn", "budget left")
    show_table(headers, [_standing(each) for each in found.standings])
    print()
    backlog = ("backlog", "state", "waiting", "oldest", "jobs/min", "drained in")
    show_table(backlog, [_drain(each) for each in found.drains])
    for each in found.standings:
        _show_worst(each, worst)
    _say_what_else(found)


def _standing(each: Standing) -> tuple[object, ...]:
    seen, left = each.snapshot, each.budget
    return (
        _NAMES[each.series.objective],
        each.series.tier.value,
        each.series.interval.value,
        _STATES[each.state],
        seen and seen.violations,
        seen and seen.expected,
        seen and f"{seen.rate:.2%}",
        f"{each.target:.2%}",
        _length(seen.lag_s) if seen and seen.lag_s is not None else None,
        None if each.burn is None else f"{each.burn:.1f}x",
        f"{left.left_share:.0%} ({left.left:,.1f} of {left.allowed:,.1f} min)" if left.allowed else None,
    )


def _drain(each: Drain) -> tuple[object, ...]:
    drained = "never at this pace" if each.drained_in_s is None else _length(each.drained_in_s)
    oldest = _length(each.oldest_age_s) if each.waiting else None
    pace = f"{each.jobs_per_minute:,.1f}"
    return (each.tier.value, _STATES[each.state], each.waiting, oldest, pace, drained if each.waiting else None)


def _show_worst(each: Standing, most: int) -> None:
    from mdtasks.cli.output import show_table

    if not each.snapshot or not each.snapshot.worst or not most:
        return
    shown = list(each.snapshot.worst)[:most]
    print(f"\n{_NAMES[each.series.objective]}, {each.series.tier} {each.series.interval}: {_counted(each, len(shown))}")
    headers = ("symbol", "exchange", "lags", "last covered (UTC)", "provider", "why")
    show_table(headers, [_evidence(one) for one in shown])


def _counted(each: Standing, shown: int) -> str:
    violations = each.snapshot.violations if each.snapshot else 0
    return f"the {shown} worst of {violations:,}" if violations > shown else f"all {violations:,}"


def _evidence(one: Mapping[str, Any]) -> tuple[object, ...]:
    from mdtasks.flows.objectives import cause_of

    lag = None if one["lag_s"] is None else _length(one["lag_s"])
    covered = one["fresh_until"] and one["fresh_until"].replace("T", " ").removesuffix("Z")
    return (one["symbol"], one["mic"], lag, covered, one["provider"], cause_of(one))


def _say_what_else(found: Report) -> None:
    from mdtasks.cli.output import text_of

    if found.trouble:
        trouble = found.trouble
        who = f"{trouble['provider']}: " if trouble["provider"] else ""
        what = ": ".join(part for part in (trouble["error_class"], trouble["message"]) if part)
        say(f"last trouble of a live fetch, at {trouble['at']:%H:%M:%S}: {who}{text_of(what)}")
    if not found.every_s:
        say("nothing is watched: SLO_EVERY_S is 0")
    elif found.last_run is None:
        say("the monitor has never run: is beat alive, and a worker on the queue `control`? `mdtasks doctor`")
    else:
        say(f"last look {_length((found.at - found.last_run).total_seconds())} ago, one every {found.every_s:g} s")


def _length(seconds: float) -> str:
    """A length of time in its largest whole unit: ``4 s``, ``3 min``, ``2 h``, ``5 d``."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def history(args: argparse.Namespace) -> None:
    """Show how an objective of a tier stood, the newest stretch first."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree, show_table
    from mdtasks.domain.jobs import Tier
    from mdtasks.flows import objectives

    now = datetime.now(UTC)
    since = since_of(args.since, now)
    with opened_deps(args) as deps:
        found = objectives.history(deps, Tier(args.tier), args.objective, since=since, now=now)
    if args.json:
        print_json(json_tree(found.as_dict()))
    elif found.rows:
        headers = (
            "from (UTC)",
            "looks",
            "of",
            "late at most",
            "rate",
            "greatest lag",
            "session min",
            "budget used, min",
        )
        show_table(headers, [_stretch(row) for row in found.rows])
        say(f"stretches of {_length(found.step_s)}, target {found.target:.2%}")
    else:
        say("nothing was looked at in that time: no session, or no monitor (`mdtasks slo` tells)")


def _stretch(row: Mapping[str, Any]) -> tuple[object, ...]:
    lag = None if row["lag_s"] is None else _length(row["lag_s"])
    minutes = (f"{row['session_minutes']:.1f}", f"{row['consumed']:.2f}")
    return (row["from"], row["looks"], row["expected"], row["most_late"], f"{row['rate']:.2%}", lag, *minutes)
