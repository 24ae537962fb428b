"""The policy: wrong candidates refused by their place, differences that lead on, one hash for one content."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.policy import (
    Facts,
    Offer,
    Policy,
    canonical,
    diff,
    digest,
    effective,
    examine,
)
from mdtasks.domain.policy.leaves import ABSENT
from mdtasks.domain.policy.pages import yaml_of
from tests.wrong_policies import ALONE, HERE, Wrong

SIMULATOR = Offer("simulator", frozenset({"1m", "5m", "15m", "1h", "1d"}), quotes=True, max_symbols=1000)
FACTS = Facts(
    known=("alpaca", "lean", "files", "simulator"),
    offers={"simulator": SIMULATOR},
    default_order=("simulator",),
    broker_bytes=1_000_000_000,
)


@pytest.mark.parametrize("wrong", ALONE, ids=lambda wrong: wrong.name)
def test_a_wrong_candidate_is_refused_by_its_place(wrong: Wrong) -> None:
    found = examine(wrong.data)
    assert found.policy is None
    (error,) = [each for each in found.wrongs if each.path == wrong.path and wrong.rule in each.rule]
    assert wrong.line in (None, error.line)
    assert len(str(error)) < 400
    assert "hush" not in str(found.wrongs)


@pytest.mark.parametrize("wrong", HERE, ids=lambda wrong: wrong.name)
def test_a_candidate_that_does_not_suit_the_place_is_refused(wrong: Wrong) -> None:
    (error,) = examine(wrong.data, FACTS).wrongs
    assert error.path == wrong.path
    assert wrong.rule in error.rule
    assert wrong.line in (None, error.line)


def test_every_error_is_told_at_once_in_the_order_of_the_lines() -> None:
    data = b"""\
breaker:
  demote: 0.8
  promot: 0.9
retry: {attempts: many, base_s: 400}
orders:
  eod: [alpca]
limits: {alpaca: fast}
"""
    assert [(each.path, each.line) for each in examine(data, FACTS).wrongs] == [
        ("breaker.promot", 3),
        ("retry.attempts", 4),
        ("limits.alpaca", 7),
        ("breaker.demote", 2),
        ("retry.base_s", 4),
        ("orders.eod[0]", 6),
    ]


def test_a_field_that_cannot_be_read_is_not_compared_too() -> None:
    assert [each.path for each in examine(b"breaker: {promote: high, demote: 0.9}").wrongs] == ["breaker.promote"]


def test_what_looks_like_a_secret_is_not_shown() -> None:
    for data in (b"massive_key: hush", b"limits: {alpaca: 'https://me:hush@proxy'}", b"slo: {api_token: [hush]}"):
        (error,) = examine(data).wrongs
        assert error.value == "***"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    found = examine(data)
    assert (found.policy is None) == bool(found.wrongs)


@given(
    st.lists(
        st.sampled_from(["{", "}", "[", "]", ":", ",", '"', "&a", "*a", "!!x", "\n", " ", "- ", "? ", "|", "x", "1"])
    )
)
def test_no_yaml_breaks_the_reader(parts: list[str]) -> None:
    found = examine("".join(parts))
    assert (found.policy is None) == bool(found.wrongs)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "data",
    [
        b"{" + b'\\"' * 120_000,
        b'{"' + b'\\"' * 120_000,
        ("{" + ",".join(f'"k{number}":1' for number in range(20_000)) + ',"k1":2}').encode(),
        "\n".join(f"tier{number}: 1" for number in range(20_000)).encode(),
        ("orders: {eod: [" + ",".join(f"p{number}" for number in range(30_000)) + "]}").encode(),
        ("limits: {" + ",".join(f"p{number}: 5/min" for number in range(15_000)) + "}").encode(),
        b"tiers: {T0: {keep: [" + b"1m," * 80_000 + b"]}}",
        b"retry: {attempts: '" + b"x" * 250_000 + b"'}",
        b"a" * 250_000 + b": 1",
        b"a: " + b"- " * 100_000,
        b"? " * 100_000,
        b"a: |\n" + b" x\n" * 80_000,
        b"a:" + b" " * 250_000,
        b"'" * 250_000,
        b"{a: " * 60_000,
        b"limits: {" + b"x: '" + b"://" * 80_000 + b"'}",
    ],
    ids=lambda data: data[:12].decode(errors="replace"),
)
def test_no_candidate_takes_long_or_tells_without_end(data: bytes) -> None:
    found = examine(data, FACTS)
    assert found.policy is None
    assert 1 <= len(found.wrongs) <= 100
    assert all(len(str(wrong)) < 1000 for wrong in found.wrongs)


def _document(seed: int) -> dict[str, Any]:
    """A right policy, drawn."""
    draw = random.Random(seed)
    document = Policy().model_dump(mode="json")
    for tier in document["tiers"].values():
        tier["max_queue"] = draw.randint(1, 50_000)
        tier["cadence"]["bars_1m"] = draw.choice([None, 5, 60.5])
    document["limits"] = {name: "5/min" for name in ("alpaca", "massive", "finnhub") if draw.random() < 0.5}
    document["orders"]["eod"] = draw.choice([None, ["lean"], ["files", "lean"]])
    document["breaker"] = {"demote": draw.uniform(0, 0.5), "promote": draw.uniform(0.6, 1)}
    document["slo"]["every_s"] = draw.choice([None, 10])
    return document


def _shuffled(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    names = list(value)
    draw.shuffle(names)
    return {name: _shuffled(value[name], draw) for name in names}


seeds = st.integers(0, 2**32)


@given(seeds, seeds)
def test_a_difference_leads_from_one_policy_to_the_other(one: int, other: int) -> None:
    old, new = (Policy.model_validate(_document(seed)) for seed in (one, other))
    changes = diff(old, new)
    document = old.model_dump(mode="json")
    for change in changes:
        *above, name = change.path.split(".")
        at = document
        for part in above:
            at = at[part]
        assert at.get(name, ABSENT) == change.before
        if change.after == ABSENT:
            del at[name]
        else:
            at[name] = change.after
    assert Policy.model_validate(document) == new
    assert bool(changes) == (digest(old) != digest(new))


@given(seeds)
@settings(deadline=None)
def test_the_hash_does_not_depend_on_how_it_was_written(seed: int) -> None:
    document = _document(seed)
    policy = Policy.model_validate(document)
    again = _shuffled(document, random.Random(seed))
    for text in (json.dumps(again), json.dumps(again, indent=1), yaml_of(policy), yaml_of(policy, comments=False)):
        found = examine(text)
        assert found.policy is not None, found.wrongs
        assert canonical(found.policy) == canonical(policy)
        assert digest(found.policy) == digest(policy)


@given(seeds)
def test_without_variables_a_policy_is_followed_as_it_is(seed: int) -> None:
    policy = Policy.model_validate(_document(seed))
    found = effective(policy, {"HOME": "/", "BACKFILL_MAX_QUEUE_T0": ""})
    assert found.policy is policy
    assert not found.overridden


def test_a_policy_cannot_be_changed_in_place() -> None:
    policy = Policy.model_validate({"limits": {"alpaca": "5/min"}})
    with pytest.raises(TypeError):
        policy.limits["alpaca"] = "none"  # type: ignore[index]
    with pytest.raises(ValueError, match="frozen"):
        policy.breaker.demote = 0.1


def test_no_depth_of_nesting_is_too_much_to_refuse() -> None:
    for depth in (11, 200, 5_000, 60_000):
        found = examine(b"breaker: " + b"[" * depth, Facts(), None, {})
        assert any("at most 10 levels" in str(wrong) for wrong in found.wrongs), depth
