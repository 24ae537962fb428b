"""What to write in place of a wrong value, told by the kind of the value and the rule it broke."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TIME: Final = "write 2026-11-02T14:30:00Z, 2026-11-02T09:30:00-05:00, or a date alone for 00:00 UTC"
_SYMBOL: Final = "a symbol is up to 32 letters, digits and . _ / ^ = : - such as AAPL or BTC-USD"
#: By the last part of the field's path, whatever the rule.
_BY_FIELD: Final = {
    "start": _TIME,
    "end": _TIME,
    "since": _TIME,
    "time_window": 'write {"start": "2026-11-02T14:30:00Z", "end": "2026-11-02T21:00:00Z"}: half-open, aware times',
    "symbol": _SYMBOL,
    "symbols": f"a list of 1 to 1000 symbols; {_SYMBOL}",
    "provider": "a provider's name in small letters, such as files; `mdtasks doctor` shows the configured ones",
    "provider_hint": "a provider's name in small letters, such as files; `mdtasks doctor` shows the configured ones",
    "job_id": "up to 64 letters, digits and . _ : - or leave it out: a new one is made",
    "error_class": "a class that `mdtasks dlq groups` shows, such as no_data",
    "plan": "the id that a dry run gave as `plan`",
}
#: By pydantic's name of the rule; what stands in braces comes from the rule itself.
_BY_RULE: Final = {
    "missing": "it is required; docs/http.md shows an example",
    "extra_forbidden": "leave it out: unknown fields are refused",
    "union_tag_invalid": "known types: {expected_tags}",
    "union_tag_not_found": "say which job it is: type is bars_fetch, quotes_fetch or backfill",
    "enum": "known: {expected}",
    "literal_error": "known: {expected}",
    "int_parsing": "write a whole number, such as 30",
    "int_type": "write a whole number, such as 30",
    "int_from_float": "write a whole number, such as 30",
    "int_parsing_size": "write a whole number, such as 30",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "greater_than_equal": "the least is {ge}",
    "less_than_equal": "the most is {le}",
    "too_short": "give at least {min_length}",
    "too_long": "give at most {max_length}; send the others in another request",
    "json_invalid": "send a JSON object",
}
_ELSE: Final = "docs/http.md says what each field takes"


def hint_for(error: Mapping[str, Any]) -> str:
    """What to write instead, for one finding of pydantic (``loc``, ``type``, ``ctx``); never empty."""
    rule = _BY_RULE.get(error["type"])
    names = [part for part in error["loc"] if isinstance(part, str)]
    # What a rule knows (the values that there are, a bound) says most; then an example of the field.
    if rule is None or error["type"] == "missing":
        return _BY_FIELD.get(names[-1] if names else "", rule or _ELSE)
    return rule.format_map(error.get("ctx", {}))
