"""What is made from the policy's model is what lies in the checkout."""

from __future__ import annotations

from pathlib import Path

from mdtasks.domain.policy import Policy, canonical, examine, leaves
from mdtasks.domain.policy.pages import page, yaml_of

_CHECKOUT = Path(__file__).parents[2]
_MAKE = "run `make docs`"


def test_the_shipped_file_is_the_defaults() -> None:
    text = (_CHECKOUT / "config" / "policy.yaml").read_text()
    assert text == yaml_of(Policy()), _MAKE
    found = examine(text)
    assert found.policy is not None
    assert canonical(found.policy) == canonical(Policy())


def test_the_page_has_every_field() -> None:
    text = (_CHECKOUT / "docs" / "policy.md").read_text()
    assert text == page(text), _MAKE


def test_every_field_says_what_it_is() -> None:
    for leaf in leaves(Policy.model_validate({"limits": {"alpaca": "5/min"}})):
        assert leaf.about.description, leaf.path
        assert leaf.unit == "s" or not leaf.path.endswith("_s"), leaf.path
