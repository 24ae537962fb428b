"""The policy as fields to be read: by section, each with its meaning, its default and who sets it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdtasks.domain.policy import Policy, leaves
from mdtasks.domain.policy.variables import Effective
from mdtasks.flows.policy_watch import Running


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it holds here. ``usual``: its default, where it has another value. ``variable``: that sets it here, in
    place of what was ``applied``. ``name``: its path within its section.
    """

    path: str
    name: str
    value: str
    unit: str
    meaning: str
    restart: bool
    usual: str | None
    variable: str
    applied: str


@dataclass(frozen=True, slots=True)
class Section:
    """Fields that belong together."""

    name: str
    fields: Sequence[Field]

    @property
    def changed(self) -> int:
        """How many have another value than their default."""
        return sum(each.usual is not None for each in self.fields)


@dataclass(frozen=True, slots=True)
class Override:
    """A value that a variable of the environment sets in place of what was applied."""

    path: str
    variable: str
    here: str
    applied: str


def sections(running: Running) -> list[Section]:
    """The policy as it holds here, in the order of the model."""
    usual = _values(Policy())
    stored = _values(running.stored)
    here = Effective(running.policy, running.overridden)
    found: dict[str, list[Field]] = {}
    for leaf in leaves(running.policy):
        default = usual.get(leaf.path)
        field = Field(
            leaf.path,
            leaf.path.removeprefix(f"{_section(leaf.path)}."),
            text_of(leaf.value),
            leaf.unit,
            leaf.about.description or "",
            leaf.restart,
            None if leaf.path in usual and default == leaf.value else text_of(default),
            here.variable_of(leaf.path),
            text_of(stored.get(leaf.path)),
        )
        found.setdefault(_section(leaf.path), []).append(field)
    return [Section(name, fields) for name, fields in found.items()]


def overrides(running: Running) -> list[Override]:
    """What the environment sets here."""
    here, stored = _values(running.policy), _values(running.stored)
    return [
        Override(path, variable, text_of(here.get(path)), text_of(stored.get(path)))
        for path, variable in running.overridden.items()
    ]


def text_of(value: Any) -> str:
    """A value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _section(path: str) -> str:
    parts = path.split(".")
    return "general" if len(parts) == 1 else ".".join(parts[:2]) if parts[0] == "tiers" else parts[0]


def _values(policy: Policy) -> Mapping[str, Any]:
    """Every field by its path; the providers' limits also as one."""
    return {leaf.path: leaf.value for leaf in leaves(policy)} | {"limits": dict(policy.limits)}
