"""``mdtasks providers``: how well each provider is and why, and leaving one aside."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import actor, explain, time_of
from mdtasks.domain.errors import PROVIDER_SETTINGS

if TYPE_CHECKING:
    from mdtasks.flows.provider_past import Past
    from mdtasks.flows.provider_reports import Report
    from mdtasks.flows.providers import Change

_EXAMPLES: Final = """
examples:
  mdtasks providers
  mdtasks providers alpaca
  mdtasks providers --as-of 2026-11-24T09:31Z
  mdtasks providers pause alpaca --reason "wrong splits since Monday"
  mdtasks providers resume alpaca

The score is 0.45 breaker + 0.25 latency + 0.20 errors + 0.10 completeness, each from 0 to 1. The row of blocks is the
score over the last ten minutes, the lowest where several looks share a block. A paused provider is asked by nobody, for
as long as it is paused; a demoted one is probed by itself and promoted when it answers.
"""
#: States in the words of the tables; JSON has those of the breaker.
_STATES: Final = {"closed": "ok", "open": "demoted", "half_open": "half-open", "paused": "paused"}
#: Blocks of the table's row of looks: with all else it stays within 80 columns.
_BLOCKS: Final = 20


def add_parser(commands: Commands) -> None:
    """Add ``providers``, ``providers pause`` and ``providers resume``."""
    look = commands.add("providers", providers, "Show how well each provider is, and why one is left aside", json=True)
    look.add_argument("name", nargs="?", metavar="NAME", help="one of them: its score's parts and its case files")
    look.add_argument("--as-of", metavar="TIME", help="as it was on record at this time, of the last 7 days")
    stop = commands.add("providers pause", pause, "Leave a provider aside until it is resumed", json=True)
    stop.add_argument("--reason", required=True, metavar="TEXT", help="why, for the record")
    go = commands.add("providers resume", resume, "Let a paused provider be asked again", json=True)
    go.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
    for parser in (stop, go):
        parser.add_argument("name", metavar="NAME")
    for parser in (look, stop, go):
        explain(parser, _EXAMPLES)


def providers(args: argparse.Namespace) -> int:
    """Show all providers, or one with everything that is known of it."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.cli.output import json_tree
    from mdtasks.flows.provider_reports import report, report_of

    if args.as_of is not None:
        return _then(args)
    with opened_deps(args) as deps:
        found = report(deps) if args.name is None else [report_of(args.name, deps)]
    if args.json:
        documents: list[Any] = [json_tree(each.as_dict()) for each in found]
        print_json(documents if args.name is None else documents[0])
    elif args.name is not None:
        from mdtasks.cli.provider_page import show_page

        show_page(found[0], _STATES[found[0].standing.state])
    elif found:
        _show_table(found)
    else:
        say(f"no provider is configured: set {PROVIDER_SETTINGS}")
    return 0


def _then(args: argparse.Namespace) -> int:
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import json_tree
    from mdtasks.flows import provider_past as past

    as_of = time_of(args.as_of, "as_of")
    with opened_database(args) as database:
        if args.name is None:
            found = past.stood(database, as_of)
        else:
            found = past.Past(as_of, [past.stood_one(database, as_of, args.name)])
    if args.json:
        one = {"as_of": as_of, **found.providers[0].as_dict()} if args.name is not None else found.as_dict()
        print_json(json_tree(one))
    elif args.name is not None:
        from mdtasks.cli.provider_page import show_page_then

        show_page_then(found.providers[0], _STATES.get(found.providers[0].state or ""))
    else:
        _show_then(found)
    return 0


def _show_then(found: Past) -> None:
    from mdtasks.cli.output import show_table, sparkline, text_of

    if not found.providers:
        say("no provider was looked at within ten minutes before then, and none was paused")
        return
    rows = [
        (
            each.name,
            _STATES.get(each.state or ""),
            None if each.measured is None else f"{each.measured[1]:.2f}",
            sparkline([look.score for look in each.looks], _BLOCKS) or None,
            each.looks[-1].policy_version if each.looks else None,
        )
        for each in found.providers
    ]
    show_table(("provider", "state", "score", "10 min until then", "policy"), rows)
    for each in found.providers:
        if each.why_aside:
            say(f"{each.name}: {text_of(each.why_aside)}")


def _show_table(found: list[Report]) -> None:
    from mdtasks.cli.output import show_table, text_of

    show_table(
        ("provider", "state", "score", "last 10 min", "latency", "errors", "budget"), [_row(each) for each in found]
    )
    for each in found:
        if each.standing.why_aside:
            say(f"{each.standing.name}: {text_of(each.standing.why_aside)}")
    aside = next((each.standing.name for each in found if each.standing.why_aside), None)
    if aside is not None:
        say(f"`mdtasks providers {aside}` shows the case")
    for each in found:
        if each.failing and not each.standing.why_aside:
            say(f"{each.standing.name}: {each.failing}: `mdtasks doctor` looks at its key and plan")


def _row(each: Report) -> tuple[object, ...]:
    from mdtasks.cli.output import sparkline
    from mdtasks.cli.provider_page import took_words

    errors, requests = sum(each.errors.values()), each.sampled_requests
    return (
        each.standing.name,
        _STATES[each.standing.state],
        f"{each.standing.score:.2f}",
        sparkline([look["health_score"] for look in each.history], _BLOCKS) or None,
        took_words(median(each.latencies_s)) if each.latencies_s else None,
        f"{errors} of {requests}" if requests else None,
        each.standing.budget,
    )


def pause(args: argparse.Namespace) -> int:
    """Leave a provider aside in every process."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.providers import pause as paused

    with opened_deps(args) as deps:
        made = paused(args.name, args.reason, actor(), deps, datetime.now(UTC))
        others = [name for name in deps.registry.names() if name != args.name]
    _told(args, made, f"{made.provider} is paused: nobody asks it until `mdtasks providers resume {made.provider}`")
    if not args.json and not others:
        say("there is no other provider: nothing is fetched until then")
    return 0


def resume(args: argparse.Namespace) -> int:
    """Let a paused provider be asked again."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.providers import resume as resumed

    with opened_deps(args) as deps:
        made = resumed(args.name, args.reason, actor(), deps, datetime.now(UTC))
    _told(args, made, f"{made.provider} is asked again; what waited for it goes out now")
    return 0


def _told(args: argparse.Namespace, made: Change, words: str) -> None:
    if args.json:
        from mdtasks.cli.output import json_row

        print_json(json_row(made.as_dict()))
        return
    print(words)
    if not made.in_force:
        say("it is on record; Redis is away, and it takes force within 10 s of its return")
