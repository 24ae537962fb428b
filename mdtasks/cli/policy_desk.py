"""What ``mdtasks policy`` works with: the stack where one runs, else the settings alone; candidates; versions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mdtasks.cli.frame import settings_of
from mdtasks.domain.errors import InvalidPolicyError

if TYPE_CHECKING:
    from mdtasks.flows.policy_facts import Desk


@contextmanager
def opened_desk(args: argparse.Namespace) -> Iterator[Desk]:
    """Where policies are judged; where no stack runs, without one: what is asked of a store then says so."""
    from mdtasks.cli.opened import opened_deps
    from mdtasks.flows.policy_facts import desk_of, desk_without_servers

    settings = settings_of(args)
    if settings.database_url is None or settings.redis_url is None:
        yield desk_without_servers(settings)
        return
    with opened_deps(args, settings) as deps:
        yield desk_of(deps)


@contextmanager
def errors_shown(args: argparse.Namespace) -> Iterator[None]:
    """Show every error of a refused policy in a row of its own; the command then ends as with any other error."""
    from mdtasks.cli.policy_shown import show_errors

    try:
        yield
    except InvalidPolicyError as error:
        if not args.json:
            show_errors(error.errors)
        raise


def candidate(word: str | None, desk: Desk) -> tuple[bytes, str]:
    """The bytes of a candidate and its name. Raises InvalidRequestError where it cannot be read, NotFoundError."""
    from mdtasks.domain.policy.reading import MAX_BYTES
    from mdtasks.flows.policies import read_own_file
    from mdtasks.flows.policy_facts import read_file

    if word == "-":
        raw = getattr(sys.stdin, "buffer", None)
        return (raw.read(MAX_BYTES + 1) if raw else sys.stdin.read(MAX_BYTES + 1).encode()), "standard input"
    data, path = read_own_file(desk) if word is None else (read_file(Path(word)), Path(word))
    return data, str(path)


def version_of(word: str) -> int | None:
    """The number of a version; None for what is none."""
    return int(word) if word.isascii() and word.isdigit() and len(word) < 19 else None


def version_type(word: str) -> int:
    """An argparse type: the number of a version."""
    found = version_of(word)
    if found is None:
        raise argparse.ArgumentTypeError(f"{word!r} is no version: a whole number that `policy history` shows")
    return found
