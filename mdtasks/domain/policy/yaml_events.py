"""YAML read event by event, so that nothing is built that was not looked at.

No anchors, no aliases and no merge keys (a few lines of them grow to gigabytes), no tags (they may name Python
objects), one document, no key twice, at most ``MAX_DEPTH`` levels. Scalars are JSON's: ``null``, ``true``, ``false``,
decimal numbers; everything else is text, so that ``1:30`` is no number of seconds and ``no`` is no flag.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from mdtasks.domain.policy.documents import MAX_DEPTH, Document, refuse
from mdtasks.domain.policy.wrongs import Path, shown

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT: Final = re.compile(r"[-+]?([0-9]{1,30}\.[0-9]*|\.[0-9]+|[0-9]{1,30})([eE][-+]?[0-9]{1,4})?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(inf|nan|infinity)", re.IGNORECASE)


class Reader:
    """Builds a document from YAML's events, and remembers on which line each place was."""

    def __init__(self) -> None:
        self._lines: dict[Path, int] = {}

    def read(self, text: str) -> Document:
        try:
            content = self._document(iter(yaml.parse(text, Loader=_LOADER)))
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            line = None if mark is None else mark.line + 1
            why = ", ".join(str(part) for part in (exc.context, exc.problem) if part)
            if "exceeded maximum" in why:  # PyYAML itself gives up at some depth, before it tells of any level
                refuse("", f"the document must have at most {MAX_DEPTH} levels", line)
            else:
                refuse("", f"the document is not YAML: {why}", line)
        except yaml.YAMLError as exc:
            refuse("", f"the document is not YAML: {str(exc).splitlines()[0]}")
        return Document(content, self._lines)

    def _document(self, events: Iterator[yaml.Event]) -> Any:
        content: Any = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    refuse("", "a second document begins here: a policy is one", _line(event))
            elif isinstance(event, yaml.NodeEvent):
                content = self._node(event, events, ())
        return content

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        line = _line(event)
        self._lines.setdefault(path, line)
        _refuse_magic(event, line, path)
        if len(path) >= MAX_DEPTH:
            refuse("", f"the document must have at most {MAX_DEPTH} levels", line, path[:3])
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(events, path)
        assert isinstance(event, yaml.ScalarEvent)
        return _scalar(event, line, path)

    def _mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            _refuse_magic(event, line, path)
            if not isinstance(event, yaml.ScalarEvent):
                refuse("a key", "must be a name", line, path)
            name = event.value
            if name == "<<":
                refuse("<<", "is a merge key, which is not taken", line, path)
            if name in found:
                refuse("", "is a key that is given twice", line, (*path, name))
            self._lines[(*path, name)] = line
            found[name] = self._node(next(events), events, (*path, name))
        return found

    def _list(self, events: Iterator[yaml.Event], path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            found.append(self._node(event, events, (*path, len(found))))
        return found


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _refuse_magic(event: yaml.Event, line: int, path: Path) -> None:
    if isinstance(event, yaml.AliasEvent):
        refuse(f"*{event.anchor}", "is an alias, which is not taken: write the value itself", line, path)
    if anchor := getattr(event, "anchor", None):
        refuse(f"&{anchor}", "is an anchor, which is not taken: write the value where it is needed", line, path)
    if tag := getattr(event, "tag", None):
        refuse(shown(tag), "is a tag, which is not taken: write plain values", line, path)


def _scalar(event: yaml.ScalarEvent, line: int, path: Path) -> Any:
    """What a scalar stands for: text where it is quoted, else null, a flag, a number, or text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        refuse(text, "must be a finite number", line, path)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else refuse(text, "must be a finite number", line, path)
    return text
