"""``mdtasks up | down | status | logs``: the stack on this machine."""

from __future__ import annotations

from mdtasks.cli.frame import Commands


def add_parser(commands: Commands) -> None:
    """Add the commands of the stack."""
