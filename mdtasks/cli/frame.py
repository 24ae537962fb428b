"""The frame around every command: options they share, one funnel for errors, exit codes."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import itertools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mdtasks.domain.errors import InvalidRequestError, MdtasksError

if TYPE_CHECKING:
    from mdtasks.settings import Settings

#: The modules of this package that bring commands, in the order in which ``mdtasks --help`` shows them.
MODULES: Final = (
    "stack",
    "intake",
    "backfill",
    "bars",
    "why",
    "diff",
    "quotes",
    "replay",
    "gaps",
    "quarantine",
    "retention",
    "reconcile",
    "universe",
    "actions",
    "calendar",
    "policy",
    "slo",
    "providers",
    "jobs",
    "dlq",
    "traces",
    "doctor",
    "runbook",
    "bench",
    "demo",
)

CommandFunction = Callable[[argparse.Namespace], "int | None"]


#: The option or place that argparse names first in what it says of a wrong value.
_NAMED: Final = re.compile(r"argument (?:-\w/)?-{0,2}([\w-]+)")


class _Parser(argparse.ArgumentParser):
    """Refuses wrong arguments the way every other error is refused."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, but each command refuses what it does not know itself: it knows its own options."""
        self._words = tuple(args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        named = _NAMED.match(message)
        near = self._nearest_option()
        raise InvalidRequestError(
            message + (f"; did you mean {near}?" if near else ""),
            field=named[1].lower() if named else "arguments",
            hint=f"see `{self.prog} --help`",
        )

    def _nearest_option(self) -> str:
        """The option of this command that a mistyped one among its words looks like; "" when none does."""
        known = {name.lstrip("-"): name for name in self._option_string_actions if name.startswith("--")}
        below = {name for action in self._actions if isinstance(action.choices, dict) for name in action.choices}
        for word in itertools.takewhile(lambda word: word != "--" and word not in below, self._words):
            name = word.partition("=")[0].removeprefix("--")
            if not word.startswith("--") or any(option.startswith(name) for option in known):
                continue
            if near := difflib.get_close_matches(name, known, n=1):
                return known[near[0]]
        return ""


class Commands:
    """Where a command module puts its commands."""

    def __init__(self, parser: argparse.ArgumentParser, dest: str = "command") -> None:
        self._prog = parser.prog
        self._actions = parser.add_subparsers(metavar="COMMAND", dest=dest, parser_class=_Parser)
        parser.set_defaults(func=lambda _args: _help(parser))

    def add(self, name: str, func: CommandFunction, summary: str, *, json: bool = False) -> argparse.ArgumentParser:
        """Add a command with the options all share; ``json`` gives it ``--json``. Returns its parser for its own."""
        parser = self._actions.add_parser(name, help=summary, description=summary)
        add_shared_options(parser, json=json)
        parser.set_defaults(func=func)
        return parser

    def group(self, name: str, summary: str) -> Commands:
        """Add a command that only groups others, as ``mdtasks dlq list``."""
        return Commands(self._actions.add_parser(name, help=summary, description=summary), dest=f"{name}_command")

    def joined(self, words: Sequence[str]) -> list[str]:
        """The words of a command line, those of a command of two words (``gaps accept``) as one."""
        at = 0
        while at < len(words) and words[at].startswith("-"):
            at += 2 if words[at] == "--home" else 1
        pair = " ".join(words[at : at + 2])
        return [*words[:at], pair, *words[at + 2 :]] if pair in self._actions.choices else list(words)

    def near(self, word: str) -> list[str]:
        """Commands that look like ``word``."""
        return difflib.get_close_matches(word, self._actions.choices, n=1)


def add_shared_options(parser: argparse.ArgumentParser, *, json: bool) -> None:
    """``--home``, ``--traceback`` and, where a script may read the answer, ``--json``."""
    # Suppressed defaults: an option given before the command's name is not overwritten by the command's default.
    shared = parser.add_argument_group("shared options")
    shared.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folder of the stack (default: MDTASKS_HOME, else .mdtasks)",
    )
    shared.add_argument(
        "--traceback", action="store_true", default=argparse.SUPPRESS, help="show where an error came from"
    )
    if json:
        shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")


def settings_of(args: argparse.Namespace, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from environment, ``--home`` and the stack that runs there. Raises ConfigurationError."""
    from mdtasks.settings import load_settings

    return load_settings(environ, home=args.home)


def say(text: str) -> None:
    """Talk to the person at the terminal: standard error, so that data on standard output stays clean."""
    print(text, file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters: messages of vendors and files may hold anything."""
    return "".join(each if each.isprintable() else " " for each in text)


def print_json(value: Any) -> None:
    """Print data for a script: JSON on standard output. Times and paths become text."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, the error's own, 2 for wrong arguments, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    wants_json = "--json" in words
    wants_traceback = "--traceback" in words
    try:
        code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader has enough (`mdtasks bars ... | head`). Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as exc:  # the last funnel: nothing may reach the user as a bare stack of frames
        if wants_traceback:
            traceback.print_exc()
        # A standard output that is full takes no JSON either.
        full = isinstance(exc, OSError) and exc.errno == errno.ENOSPC
        return _show_error(_as_ours(exc), wants_json=wants_json and not full)
    return code


def _as_ours(exc: Exception) -> MdtasksError:
    """What went wrong as an error of ours."""
    match exc:
        case MdtasksError():
            return exc
        case OSError():
            where = f" {exc.filename}" if exc.filename else ""
            full = exc.errno == errno.ENOSPC
            hint = "free some space and try again" if full else "the system refused this; --traceback shows where"
            return MdtasksError(f"{exc.strerror or exc}{where}", hint=hint)
        case UnicodeEncodeError():
            hint = "arguments and output must be UTF-8"
            return InvalidRequestError(f"{exc.object!r} is not valid text", field="arguments", hint=hint)
    said = str(exc).strip().partition("\n")[0]  # SQLAlchemy's go on with the whole statement
    return MdtasksError(
        f"unexpected {type(exc).__name__}: {said}", hint="this is a bug of mdtasks; --traceback shows where"
    )


def every_command() -> tuple[argparse.ArgumentParser, Commands]:
    """The whole command line: its parser, and the commands of all modules."""
    parser = _Parser(prog="mdtasks", description="Keeps a market-data store complete.")
    parser.add_argument("--version", action="store_true", help="show the version")
    add_shared_options(parser, json=False)
    parser.set_defaults(home=None, json=False, traceback=False)
    commands = Commands(parser)
    for module in MODULES:
        importlib.import_module(f"mdtasks.cli.{module}").add_parser(commands)
    return parser, commands


def _run(words: list[str]) -> int:
    parser, commands = every_command()
    words = commands.joined(words)
    _refuse_unknown_command(commands, parser, words)
    args = parser.parse_args(words)
    if args.version:
        return _version()
    func: CommandFunction = args.func
    return func(args) or 0


def _refuse_unknown_command(commands: Commands, parser: argparse.ArgumentParser, words: list[str]) -> None:
    word = words[0] if words else "-"
    if word.startswith("-") or word in commands._actions.choices:
        return
    near = commands.near(word)
    raise InvalidRequestError(
        f"unknown command {word!r}" + (f"; did you mean `mdtasks {near[0]}`?" if near else ""),
        field="command",
        hint=f"see `{parser.prog} --help`",
    )


def _show_error(error: MdtasksError, *, wants_json: bool) -> int:
    if wants_json:
        print_json(error.as_dict())
    else:
        say(f"error: {one_line(error.message)}")
        if error.hint:
            say(f"hint: {one_line(error.hint)}")
    return error.exit_code


def _version() -> int:
    from importlib.metadata import version

    print(f"mdtasks {version('mdtasks')}")
    return 0


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0
