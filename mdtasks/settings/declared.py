"""How a setting is declared: its variable, its default, what it means."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

#: Key of a field's ``json_schema_extra``: the variable that sets it.
ENV: Final = "env"


def declared(env: str, default: Any, description: str, **rules: Any) -> Any:
    """A field of the settings that the variable ``env`` sets."""
    return Field(default, description=description, json_schema_extra={ENV: env}, **rules)
