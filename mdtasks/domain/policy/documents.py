"""What was read of a candidate, with its lines; and how what cannot be read is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from mdtasks.domain.policy.wrongs import Path, Wrong, text_of

#: Most levels of mappings and lists in each other; the policy itself has five.
MAX_DEPTH: Final = 10


class UnreadableError(Exception):
    """A text that is no document, and why."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(str(wrong))
        self.wrong = wrong


@dataclass(frozen=True, slots=True)
class Document:
    """What was read, and the line of each place where it is known."""

    content: Any
    lines: dict[Path, int] = field(default_factory=dict)


def refuse(value: str, rule: str, line: int | None = None, path: Path = ()) -> NoReturn:
    """Raise UnreadableError: where, what stands there, and the rule that it breaks."""
    raise UnreadableError(Wrong(text_of(path), value, rule, line))
