"""From bytes that anybody may have sent to a plain document: YAML or JSON, with limits and without any magic."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from mdtasks.domain.policy.documents import MAX_DEPTH, Document, UnreadableError, refuse
from mdtasks.domain.policy.wrongs import Path, shown

#: Most bytes of a candidate.
MAX_BYTES: Final = 256 * 1024


def read(data: bytes | str) -> Document:
    """The document that YAML or JSON text describes. Raises UnreadableError with place, value and rule."""
    text = _decoded(data.encode(errors="surrogatepass") if isinstance(data, str) else data)
    document = _from_json(text) if text.lstrip()[:1] == "{" else _from_yaml(text)
    content: object = document.content
    if not isinstance(content, dict):
        value = "the document is empty:" if content is None else f"the document {shown(content)}"
        refuse(value, "must be a mapping, such as `breaker: {demote: 0.5}`")
    return document


def _decoded(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        refuse(f"{len(data):,} bytes", f"must be at most {MAX_BYTES:,}: a whole policy has some six thousand")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        refuse(f"byte {exc.start:,}", "is not UTF-8: a policy is a text, YAML or JSON", line)
    control = next((i for i, each in enumerate(text) if each < " " and each not in "\t\n\r"), None)
    if control is not None:
        refuse(
            f"a control character (U+{ord(text[control]):04X})", "must not be in it", text.count("\n", 0, control) + 1
        )
    return text


def _from_json(text: str) -> Document:
    """The document where the text is JSON; else as YAML, which may begin with a brace too."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, value in found:
            if name in named:
                refuse(shown(name), "is a key that is given twice")
            named[name] = value
        return named

    def constant(name: str) -> NoReturn:
        refuse(name, "must be a finite number")

    if _depth(text) > MAX_DEPTH:
        refuse("", f"the document must have at most {MAX_DEPTH} levels")
    try:
        content = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=_finite)
    except UnreadableError as error:
        raise _found_again(text) or error from None
    except ValueError:
        return _from_yaml(text)
    return Document(content, _lines_of(text, content))


def _found_again(text: str) -> UnreadableError | None:
    """What YAML's reader has against the text, for JSON's says no place."""
    try:
        _from_yaml(text)
    except UnreadableError as error:
        return error if error.wrong.path else None
    return None


def _lines_of(text: str, content: Any) -> dict[Path, int]:
    """The lines of a JSON text, which is YAML as well, tabs aside."""
    try:
        document = _from_yaml(text)
    except UnreadableError:
        return {}
    return document.lines if document.content == content else {}


def _from_yaml(text: str) -> Document:
    from mdtasks.domain.policy.yaml_events import Reader  # most processes never read a policy's text

    return Reader().read(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        refuse(shown(text), "must be a finite number")
    return number


def _depth(text: str) -> int:
    """The most brackets that are open at once, outside texts: json's own parser goes down until the stack ends."""
    deepest = depth = 0
    quoted = escaped = False
    for each in text:
        if quoted:
            quoted = escaped or each != '"'
            escaped = each == "\\" and not escaped
        elif each == '"':
            quoted = True
        elif each in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif each in "]}":
            depth -= 1
    return deepest
