"""What is made from the model: ``config/policy.yaml`` and the table in docs/policy.md.

``python -m mdtasks.domain.policy.pages config/policy.yaml docs/policy.md`` writes both (``make docs``).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from mdtasks.domain.policy.leaves import Leaf, leaves
from mdtasks.domain.policy.model import Policy, Tiers, Universe
from mdtasks.domain.policy.variables import VARIABLES

_HEAD: Final = """\
# The policy of mdtasks: all that may change while it runs. Every value here is its default, so an empty file means the
# same. Made by `make docs` from mdtasks/domain/policy/model.py; docs/policy.md has the bounds and the variables.
#
#   mdtasks policy validate FILE     what is wrong with it, what would change, what that would do
#   mdtasks policy apply FILE        make it the policy; every process follows within about a second
#   mdtasks policy rollback VERSION  make an earlier one the policy again
"""
_BEGIN: Final = "<!-- fields: made by `make docs` -->\n"
_END: Final = "<!-- end of fields -->\n"
_WIDTH: Final = 34
_TIER: Final = re.compile(r"^tiers\.T\d\.")


def yaml_of(policy: BaseModel, *, comments: bool = True) -> str:
    """The policy as YAML that reads back as itself; with what each field means beside it, or plain."""
    return (_HEAD if comments else "") + "".join(_lines(policy, "", comments=comments))


def _lines(section: BaseModel, indent: str, *, comments: bool) -> Iterator[str]:
    plain = section.model_dump(mode="json")
    for name, about in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            title = (type(value).__doc__ or "").partition("\n")[0]
            yield (f"\n# {title}\n" if comments and not indent else "") + f"{indent}{name}:\n"
            told = comments and not (isinstance(section, Tiers) and name != "T0")  # T0 says it for all of them
            yield from _lines(value, f"{indent}  ", comments=told)
            continue
        line = f"{indent}{name}: {json.dumps(plain[name])}"
        gap = "\n" if comments and not indent else ""
        yield gap + (f"{line:<{_WIDTH}}  # {_meaning(Leaf(name, None, about))}\n" if comments else f"{line}\n")


def _meaning(leaf: Leaf) -> str:
    unit = f" ({leaf.unit})" if leaf.unit else ""
    return f"{leaf.about.description}{unit}" + (". Needs a restart" if leaf.restart else "")


def table() -> str:
    """The table of docs/policy.md: every field with its default, meaning, unit, bounds and variables.

    The fields of the three tiers are one row each, with three defaults.
    """
    limits = Leaf("limits.<provider>", None, Policy.model_fields["limits"])
    pins = Leaf("universe.pins.<symbol>", None, Universe.model_fields["pins"])
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves(Policy()):
        found.setdefault(_TIER.sub("tiers.T*.", leaf.path), []).append(leaf)
        if leaf.path == "orders.source_override":
            found[limits.path] = [limits]
        if leaf.path == "universe.margin":
            found[pins.path] = [pins]
    names: dict[str, list[str]] = {}
    for variable in VARIABLES.values():
        for path in variable.paths:
            row = limits.path if path == "limits" else _TIER.sub("tiers.T*.", path)
            names.setdefault(row, []).append(f"`{variable.name}`")
    head = "| field | default | what | bounds | variable |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(_row(path, same, names.get(path, [])) for path, same in found.items())


def _row(path: str, same: list[Leaf], names: list[str]) -> str:
    values = [json.dumps(leaf.value).replace('"', "") for leaf in same]
    defaults = values[:1] if len(set(values)) == 1 else values
    default = "" if defaults == ["null"] else " ".join(f"`{each}`" for each in defaults)
    return f"| `{path}` | {default} | {_meaning(same[0])} | {_bounds(same[0])} | {' '.join(dict.fromkeys(names))} |\n"


def _bounds(leaf: Leaf) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found: dict[str, Any] = {}
    for rule in _rules(leaf.about.annotation, leaf.about.metadata):
        found |= {sign: getattr(rule, sign) for sign in signs if getattr(rule, sign, None) is not None}
    return ", ".join(f"{signs[sign]} {found[sign]:,}" for sign in signs if sign in found)


def _rules(annotation: Any, metadata: list[Any]) -> Iterator[Any]:
    """The bounds of a field, also those that its type bears inside an optional one."""
    yield from metadata
    for inner in getattr(annotation, "__args__", ()):
        yield from (each for rule in getattr(inner, "__metadata__", ()) for each in getattr(rule, "metadata", [rule]))


def page(text: str) -> str:
    """The page with its table made anew; all else as it is."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, "the page has no place for the table"
    assert end, "the table of the page has no end"
    return f"{before}{begin}{table()}{end}{after}"


def _write(config: Path, document: Path) -> None:
    config.write_text(yaml_of(Policy()))
    document.write_text(page(document.read_text()))


if __name__ == "__main__":
    _write(*map(Path, sys.argv[1:]))
