"""From bytes that anybody may have sent to a plain document: YAML or JSON, with limits and without any magic.

YAML is read event by event, so nothing is built that was not looked at: no anchors, no aliases and no merge keys (a few
lines of them grow to gigabytes), no tags (they may name Python objects), one document, no key twice, at most
``MAX_DEPTH`` levels. Scalars are JSON's: ``null``, ``true``, ``false``, decimal numbers; everything else is text, so
that ``1:30`` is no number of seconds and ``no`` is no flag.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from mdtasks.domain.policy.wrongs import Path, Wrong, shown, text_of

#: Most bytes of a candidate.
MAX_BYTES: Final = 256 * 1024
#: Most levels of mappings and lists in each other; the policy itself has five.
MAX_DEPTH: Final = 10

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT: Final = re.compile(r"[-+]?([0-9]{1,30}\.[0-9]*|\.[0-9]+|[0-9]{1,30})([eE][-+]?[0-9]{1,4})?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(inf|nan|infinity)", re.IGNORECASE)


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


def read(data: bytes | str) -> Document:
    """The document that YAML or JSON text describes. Raises UnreadableError with place, value and rule."""
    text = _decoded(data.encode(errors="surrogatepass") if isinstance(data, str) else data)
    document = _from_json(text) if text.lstrip()[:1] == "{" else _Reader().read(text)
    content: object = document.content
    if not isinstance(content, dict):
        value = "the document is empty:" if content is None else f"the document {shown(content)}"
        _refuse(value, "must be a mapping, such as `breaker: {demote: 0.5}`")
    return document


def _refuse(value: str, rule: str, line: int | None = None, path: Path = ()) -> NoReturn:
    raise UnreadableError(Wrong(text_of(path), value, rule, line))


def _decoded(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        _refuse(f"{len(data):,} bytes", f"must be at most {MAX_BYTES:,}: a policy has some four thousand")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        _refuse(f"byte {exc.start:,}", "is not UTF-8: a policy is a text, YAML or JSON", line)
    control = next((i for i, each in enumerate(text) if each < " " and each not in "\t\n\r"), None)
    if control is not None:
        _refuse(
            f"a control character (U+{ord(text[control]):04X})", "must not be in it", text.count("\n", 0, control) + 1
        )
    return text


def _from_json(text: str) -> Document:
    """The document where the text is JSON; else as YAML, which may begin with a brace too."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        named = dict(found)
        if len(named) < len(found):
            names = [name for name, _ in found]
            _refuse(shown(next(name for name in named if names.count(name) > 1)), "is a key that is given twice")
        return named

    def constant(name: str) -> NoReturn:
        _refuse(name, "must be a finite number")

    if _depth(text) > MAX_DEPTH:
        _refuse("", f"the document must have at most {MAX_DEPTH} levels")
    try:
        content = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=_finite)
    except UnreadableError as error:
        raise _found_again(text) or error from None
    except ValueError:
        return _Reader().read(text)
    return Document(content, _lines_of(text, content))


def _found_again(text: str) -> UnreadableError | None:
    """What YAML's reader has against the text, for JSON's says no place."""
    try:
        _Reader().read(text)
    except UnreadableError as error:
        return error if error.wrong.path else None
    return None


def _lines_of(text: str, content: Any) -> dict[Path, int]:
    """The lines of a JSON text, which is YAML as well, tabs aside."""
    try:
        document = _Reader().read(text)
    except UnreadableError:
        return {}
    return document.lines if document.content == content else {}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse(shown(text), "must be a finite number")
    return number


def _depth(text: str) -> int:
    """The most brackets that are open at once, outside texts: json's own parser goes down until the stack ends."""
    deepest = depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[][{}]', text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(bracket, 0)
        deepest = max(deepest, depth)
    return deepest


class _Reader:
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
            _refuse("", f"the document is not YAML: {why}", line)
        except yaml.YAMLError as exc:
            _refuse("", f"the document is not YAML: {str(exc).splitlines()[0]}")
        return Document(content, self._lines)

    def _document(self, events: Iterator[yaml.Event]) -> Any:
        content: Any = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse("", "a second document begins here: a policy is one", _line(event))
            elif isinstance(event, yaml.NodeEvent):
                content = self._node(event, events, ())
        return content

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        line = _line(event)
        self._lines.setdefault(path, line)
        _refuse_magic(event, line, path)
        if len(path) >= MAX_DEPTH:
            _refuse("", f"the document must have at most {MAX_DEPTH} levels", line, path[:3])
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
                _refuse("a key", "must be a name", line, path)
            name = event.value
            if name == "<<":
                _refuse("<<", "is a merge key, which is not taken", line, path)
            if name in found:
                _refuse("", "is a key that is given twice", line, (*path, name))
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
        _refuse(f"*{event.anchor}", "is an alias, which is not taken: write the value itself", line, path)
    if anchor := getattr(event, "anchor", None):
        _refuse(f"&{anchor}", "is an anchor, which is not taken: write the value where it is needed", line, path)
    if tag := getattr(event, "tag", None):
        _refuse(shown(tag), "is a tag, which is not taken: write plain values", line, path)


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
        _refuse(text, "must be a finite number", line, path)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else _refuse(text, "must be a finite number", line, path)
    return text
