"""What the policy's sections are made of: how a field is said, and the kinds of values that fields have."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, Strict

#: Keys of a field's ``json_schema_extra``.
UNIT: Final = "unit"
RESTART: Final = "restart"

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Flag = Annotated[bool, Strict()]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]
Share = Annotated[Number, Field(gt=0, lt=1)]


def said(default: Any, description: str, *, unit: str = "", restart: bool = False, **rules: Any) -> Any:
    """A field of the policy; ``restart``: who follows it must be started anew."""
    return Field(default, description=description, json_schema_extra={UNIT: unit, RESTART: restart}, **rules)


class Section(BaseModel):
    """Frozen; refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
