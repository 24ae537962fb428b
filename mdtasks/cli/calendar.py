"""``mdtasks calendar``: when exchanges trade, and telling them what calendars do not know."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mdtasks.cli.frame import Commands, print_json, say, settings_of
from mdtasks.cli.inputs import actor, explain, symbols_of, time_of
from mdtasks.domain.errors import InvalidRequestError, StackNotRunningError, UnavailableError

if TYPE_CHECKING:
    from mdtasks.domain.sessions import Calendars
    from mdtasks.flows.overrides import ShownSession
    from mdtasks.store.overrides import Override

_EXAMPLES: Final = """
examples:
  mdtasks calendar show XHKG --start 2023-08-28 --end 2023-09-12
  mdtasks calendar close XHKG 2023-09-01 --reason "typhoon Saola"
  mdtasks calendar late-open XNYS 2026-11-02 10:30 --reason "outage"
  mdtasks calendar early-close XNYS 2026-11-02 2026-11-02T19:00Z --reason "outage"
  mdtasks calendar halt GME --start 2021-01-28T15:00Z --end 2021-01-28T15:05Z --reason "limit down"
  mdtasks calendar undo 3 --reason "the exchange opened after all"

DAY is the session's date. A time of day alone is on the exchange's own clock. What is told holds in every process
within about a second: that time is expected of nobody, and is late for nobody, until it is undone.
"""


def add_parser(commands: Commands) -> None:
    """Add ``calendar ...``."""
    below = commands.group("calendar", "When exchanges trade: show, close, late-open, early-close, halt, list, undo")
    look = below.add("show", show, "Show the sessions of an exchange, with what was told of them", json=True)
    look.add_argument("mic", metavar="MIC", help="the exchange, such as XNYS or XLON, or 24/7")
    look.add_argument("--start", metavar="TIME", help="first moment (default: 14 days ago)")
    look.add_argument("--end", metavar="TIME", help="the moment after the last (default: in 7 days)")
    parsers = [look]
    for name, summary in (
        ("close", "Tell that a session did not take place"),
        ("late-open", "Tell that a session began late"),
        ("early-close", "Tell that a session ended early"),
    ):
        parser = below.add(name, change, summary, json=True)
        parser.set_defaults(kind={"close": "closed"}.get(name, name.replace("-", "_")), at=None)
        parser.add_argument("mic", metavar="MIC", help="the exchange, such as XNYS or XLON, or 24/7")
        parser.add_argument("day", metavar="DAY", help="date of the session, such as 2026-11-02")
        if name != "close":
            parser.add_argument("at", metavar="TIME", help="10:30 on the exchange's clock, or a time with its zone")
        parsers.append(parser)
    stop = below.add("halt", halt, "Tell that one symbol was halted", json=True)
    stop.add_argument("symbol", metavar="SYMBOL")
    stop.add_argument("--start", metavar="TIME", required=True, help="first moment that did not trade")
    stop.add_argument("--end", metavar="TIME", required=True, help="the moment after the last")
    back = below.add("undo", undo, "Let what was told no longer hold", json=True)
    back.add_argument("id", metavar="ID", help="of the override, as `mdtasks calendar list` shows it")
    for parser in (*parsers[1:], stop, back):
        parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the record")
    told = below.add("list", list_overrides, "List what was told of calendars", json=True)
    told.add_argument("name", nargs="?", metavar="MIC|SYMBOL", help="of one exchange or one symbol only")
    told.add_argument("--all", action="store_true", help="what was undone too")
    for parser in (*parsers, stop, back, told):
        explain(parser, _EXAMPLES)


def change(args: argparse.Namespace) -> int:
    """Tell of one session."""
    document = {"kind": args.kind, "mic": args.mic, "day": args.day, "reason": args.reason}
    return _tell(args, document if args.at is None else {**document, "time": args.at})


def halt(args: argparse.Namespace) -> int:
    """Tell of one symbol."""
    times = {name: time_of(getattr(args, name), name) for name in ("start", "end")}
    symbol = symbols_of([args.symbol])[0]
    return _tell(args, {"kind": "halt", "symbol": symbol, "reason": args.reason, **times})


def _tell(args: argparse.Namespace, document: dict[str, Any]) -> int:
    from mdtasks.cli.opened import calendars_of, opened_database
    from mdtasks.flows.overrides import OverrideRequest, tell

    asked = OverrideRequest.parse(document)
    with opened_database(args) as database:
        made = tell(asked, actor(), database, calendars_of(args, database))
    if args.json:
        print_json(_as_dict(made))
        return 0
    print(f"override {made.id}: {_whom(made)}, {_span(made)} UTC counts as closed")
    say(f'`mdtasks calendar undo {made.id} --reason "…"` takes it back')
    return 0


def undo(args: argparse.Namespace) -> int:
    """Let an override no longer hold."""
    from mdtasks.cli.opened import calendars_of, opened_database
    from mdtasks.flows import overrides

    if not (args.id.isascii() and args.id.isdigit()):
        raise InvalidRequestError(f"id {args.id!r} is not a number", field="id", hint="`mdtasks calendar list`")
    with opened_database(args) as database:
        undone = overrides.undo(int(args.id), args.reason, actor(), database, calendars_of(args, database))
    if args.json:
        print_json(_as_dict(undone))
    else:
        print(f"override {undone.id} undone: {_whom(undone)}, {_span(undone)} UTC is as the calendar has it")
    return 0


def list_overrides(args: argparse.Namespace) -> int:
    """List overrides, the newest time first."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.cli.output import show_table
    from mdtasks.store import overrides

    with opened_database(args) as database, database.transaction() as connection:
        found = overrides.matching(connection, undone=args.all, **_of(args, connection))
    if args.json:
        print_json([_as_dict(each) for each in found])
    elif found:
        headers = ("id", "kind", "of", "session", "from (UTC)", "to (UTC)", "reason", "told by", "told (UTC)", "undone")
        show_table(headers, [_cells(each) for each in found])
    else:
        say("nothing was told of calendars" + (" like that" if args.name else ""))
    return 0


def _of(args: argparse.Namespace, connection: Any) -> dict[str, Any]:
    """The filter that the name stands for: a symbol of the universe, else an exchange."""
    from mdtasks.cli.opened import calendars_of
    from mdtasks.store import reference

    if args.name is None:
        return {}
    member = reference.current(connection, [args.name]).get(args.name)
    if member is not None:
        return {"instrument_id": member.id}
    try:
        return {"mic": calendars_of(args).plain(args.name).mic}
    except InvalidRequestError as error:
        raise InvalidRequestError(f"no symbol of the universe, and {error.message}", field="name") from error


def _cells(each: Override) -> tuple[object, ...]:
    undone = f"{each.undone_at:%Y-%m-%d %H:%M} {each.undone_by}: {each.undone_reason}" if each.undone_at else None
    whom = each.mic or each.symbol or f"instrument {each.instrument_id}"
    about = (str(each.id), each.kind, whom, each.session, each.start, each.end)
    return (*about, each.reason, each.actor, each.created_at, undone)


def show(args: argparse.Namespace) -> int:
    """Show the sessions of an exchange."""
    from mdtasks.cli.opened import calendars_of
    from mdtasks.cli.output import json_tree
    from mdtasks.domain.jobs import TimeWindow
    from mdtasks.flows.overrides import shown

    settings, now = settings_of(args), datetime.now(UTC)
    calendars = calendars_of(args)
    calendar = calendars.get(args.mic)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    start = today - timedelta(days=settings.calendar_back_days) if args.start is None else time_of(args.start, "start")
    ahead = today + timedelta(days=settings.calendar_forward_days + 1)
    end = min(ahead, calendar.horizon) if args.end is None else time_of(args.end, "end")
    if start >= end:
        raise InvalidRequestError(f"end {end.isoformat()} is not after start {start.isoformat()}", field="end")
    found = shown(args.mic, TimeWindow(start=start, end=end), _told(args, calendar.mic), calendars)
    if args.json:
        about = {"mic": calendar.mic, "zone": calendar.zone, "version": calendars.overrides.version}
        print_json(json_tree({**about, "horizon": calendar.horizon, "sessions": [each.as_dict() for each in found]}))
    else:
        _show_sessions(found, calendar.mic, calendars)
    return 0


def _told(args: argparse.Namespace, mic: str) -> list[Override]:
    """What was told of an exchange; nothing where there is no store, and that is said where one should be."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.store import overrides

    try:
        with opened_database(args) as database, database.transaction() as connection:
            return overrides.matching(connection, mic=mic)
    except StackNotRunningError:
        return []
    except UnavailableError as error:
        say(f"without what people told: {error.message}")
        return []


def _show_sessions(found: list[ShownSession], mic: str, calendars: Calendars) -> None:
    from mdtasks.cli.output import plural, show_table

    rows = []
    for each in found:
        held = each.session
        breaks = ", ".join(f"{pause.start:%H:%M}-{pause.end:%H:%M}" for pause in held.breaks) if held else ""
        told = "; ".join(f"{told.kind} ({told.id}): {told.reason}" for told in each.told)
        hours = (held.open, held.close) if held else ("closed", None)
        rows.append((each.label, *hours, breaks, each.minutes, told))
    if rows:
        show_table(("session", "open (UTC)", "close (UTC)", "breaks", "minutes", "told"), rows)
    calendar = calendars.get(mic)
    known = f"known until {calendar.horizon:%Y-%m-%d}"
    say(f"{plural(len(rows), 'session')} of {mic} ({calendar.zone}), {known}")


def _as_dict(each: Override) -> dict[str, object]:
    from mdtasks.cli.output import json_row

    return json_row(each.as_dict())


def _whom(each: Override) -> str:
    return f"{each.mic} {each.session}" if each.mic is not None else f"{each.symbol}"


def _span(each: Override) -> str:
    return f"{each.start:%Y-%m-%d %H:%M} to {each.end:%Y-%m-%d %H:%M}"
