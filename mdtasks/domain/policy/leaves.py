"""A policy as its fields: each with its path and value; the text that its hash is of; and what differs between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mdtasks.domain.policy.model import Policy
from mdtasks.domain.policy.sections import RESTART, UNIT

#: What stands where a field is in one of two policies only: a limit of a provider that the other does not name.
ABSENT: Final = "(none)"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One field with its value, as JSON has it."""

    path: str
    value: Any
    about: FieldInfo

    @property
    def unit(self) -> str:
        return str(_extra(self.about).get(UNIT, ""))

    @property
    def restart(self) -> bool:
        """Whether those who follow it must be started anew."""
        return bool(_extra(self.about).get(RESTART, False))


@dataclass(frozen=True, slots=True)
class Change:
    """A field that differs. ``restart``: it takes effect only in processes that are started after it."""

    path: str
    before: Any
    after: Any
    restart: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "before": self.before, "after": self.after, "restart": self.restart}


def _extra(about: FieldInfo) -> Mapping[str, Any]:
    extra = about.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def leaves(policy: BaseModel, above: str = "") -> Iterator[Leaf]:
    """Every field, in the order of the model. The limits of providers are a field each."""
    plain = policy.model_dump(mode="json")
    for name, about in type(policy).model_fields.items():
        value = getattr(policy, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{above}{name}.")
        elif isinstance(value, Mapping):
            yield from (Leaf(f"{above}{name}.{key}", each, about) for key, each in plain[name].items())
        else:
            yield Leaf(f"{above}{name}", plain[name], about)


def canonical(policy: Policy) -> str:
    """The policy as one line of JSON: equal for equal policies, whatever the order in which their keys were written."""
    return json.dumps(policy.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(policy: Policy) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(policy).encode()).hexdigest()


def diff(old: Policy, new: Policy) -> list[Change]:
    """What differs, in the order of the model; [] for equal policies. Values are as JSON has them."""
    before = {leaf.path: leaf for leaf in leaves(old)}
    after = {leaf.path: leaf for leaf in leaves(new)}
    found = []
    for path in [*before, *(path for path in after if path not in before)]:
        was, now = before.get(path), after.get(path)
        if was is None or now is None or was.value != now.value:
            any_of = was or now
            assert any_of is not None
            values = (was.value if was else ABSENT, now.value if now else ABSENT)
            found.append(Change(path, *values, any_of.restart))
    return found


def needs_restart(changes: list[Change]) -> list[Change]:
    """Those of the changes that a running process cannot follow."""
    return [change for change in changes if change.restart]
