"""What is wrong with a candidate: where, with which value, against which rule. Nothing secret is ever shown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

#: A value is shown up to so many characters.
_SHOWN: Final = 60
#: Most errors of one candidate that are told.
MOST: Final = 100
_SECRET: Final = re.compile(r"key|secret|token|passw|credential|auth|url|dsn", re.IGNORECASE)
_WITH_PASSWORD: Final = re.compile(r"://[^/\s]*@")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Wrong:
    """One error. ``path``: "" when it is about the whole document. ``value``: short, masked if it may be secret.
    ``line``: of the document, where known. ``about``: all paths that the rule compares.
    """

    path: str
    value: str
    rule: str
    line: int | None = None
    about: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "value": self.value, "rule": self.rule, "line": self.line}

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return where + " ".join(part for part in (self.path and f"{self.path}:", self.value, self.rule) if part)


def text_of(path: Sequence[str | int]) -> str:
    """``("orders", "eod", 1)`` as ``orders.eod[1]``."""
    found = ""
    for part in path:
        found += f"[{part}]" if isinstance(part, int) else f".{_short(part)}" if found else _short(part)
    return found


def _short(text: str) -> str:
    plain = "".join(each if each.isprintable() else "?" for each in text)
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 1] + "…"


def shown(value: Any, path: Sequence[str | int] = ()) -> str:
    """The value as JSON, short, on one line; *** where it, or its name, looks like a secret."""
    if any(isinstance(part, str) and _SECRET.search(part) for part in path):
        return "***"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}" if value else "{}"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return "***" if _WITH_PASSWORD.search(text) else _short(text)


def wrongs_of(exc: ValidationError, document: object, model: type[BaseModel], lines: Mapping[Path, int]) -> list[Wrong]:
    """What a model says of a document, one error a place, in the order of the document's lines; MOST of them."""
    found: dict[str, Wrong] = {}
    for error in exc.errors(include_url=False)[:MOST]:
        path = tuple(part for part in error["loc"] if part != "[key]")
        text = text_of(path)
        value = _at(document, path)
        rule = _rule(error, path, model)
        told = "" if error["type"] == "missing" else shown(value, path)
        found.setdefault(text, Wrong(text, told, rule, _line(lines, path), (text,)))
    return sorted(found.values(), key=lambda wrong: wrong.line or 0)


def _line(lines: Mapping[Path, int], path: Path) -> int | None:
    """Where the place is, or what holds it."""
    return next((lines[path[:length]] for length in range(len(path), -1, -1) if path[:length] in lines), None)


def _at(document: object, path: Path) -> Any:
    for part in path:
        try:
            document = document[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return document


#: By pydantic's name of the rule; what stands in braces comes from the rule itself.
_RULES: Final = {
    "missing": "is missing: every tier says its cadence and its max_queue, and none is left out",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "enum": "must be one of {expected}",
    "too_long": "must have at most {max_length}",
    "too_short": "must name at least one provider; null: the default order",
    "string_pattern_mismatch": "must be a provider's name in small letters, such as files",
}


def _rule(error: Mapping[str, Any], path: Path, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(path, model)
    known = _RULES.get(error["type"])
    if known is None:
        return str(error["msg"]).removeprefix("Value error, ")
    rule = known.format_map(error.get("ctx", {}))
    bound = error["type"] in ("greater_than", "float_type") and "cadence" in path
    return f"{rule}; null: never" if bound else rule


def _unknown(path: Path, model: type[BaseModel]) -> str:
    siblings = _names_under(path[:-1], model)
    name = str(path[-1])
    near = nearest(name, siblings)
    if not near and _SECRET.search(name):
        return "is an unknown key, and no secret belongs here: keys are settings (docs/settings.md)"
    elsewhere = "" if near else _elsewhere(name, model)
    known = near or elsewhere
    return "is an unknown key" + (f"; did you mean {known}?" if known else f"; known: {', '.join(siblings)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one looks like; "" when none does."""
    by_fold = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_fold, n=3)
    # Of those that look alike the one that begins alike: `retries` is `retry`, not `tiers`.
    return by_fold[max(near, key=lambda each: _alike(each, name.lower()))] if near else ""


def _alike(one: str, other: str) -> int:
    """How many letters two names have in common at their beginning."""
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))


def _elsewhere(name: str, model: type[BaseModel]) -> str:
    """The path of a field of that very name in another section."""
    for section, about in model.model_fields.items():
        inner = about.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and name in inner.model_fields:
            return f"{section}.{name}"
    return ""


def _names_under(path: Path, model: type[BaseModel]) -> list[str]:
    for part in path:
        inner = model.model_fields[str(part)].annotation
        models = [each for each in (inner, *get_args(inner)) if isinstance(each, type) and issubclass(each, BaseModel)]
        model = models[0]
    return list(model.model_fields)
