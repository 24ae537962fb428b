"""Policies that are wrong, each in one way, by mistake or in malice; and which place their refusal must name."""

# ruff: noqa: E501 - a row of these tables is one line

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from mdtasks.domain.policy import Policy, canonical
from mdtasks.domain.policy.pages import yaml_of


class Wrong(NamedTuple):
    """A candidate, the path and a part of the rule that its refusal must tell, and the line where it is known."""

    name: str
    data: bytes
    path: str
    rule: str
    line: int | None = None


def tiers(old: str, new: str) -> bytes:
    """The default policy's tiers with one text in the place of another."""
    whole = yaml_of(Policy(), comments=False).partition("orders:")[0]
    assert old in whole
    return whole.replace(old, new, 1).encode()


_NAMES: Final = "abcdefghi"
#: Nine lines that grow to 387 million texts when aliases are followed.
BOMB: Final = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n".encode() for before, name in pairwise(_NAMES)
)

#: Wrong by itself, whatever surrounds it.
ALONE: Final = (
    # not a document
    Wrong("empty", b"", "", "must be a mapping"),
    Wrong("only a comment", b"# nothing\n", "", "must be a mapping"),
    Wrong("a list", b"- breaker\n", "", "must be a mapping"),
    Wrong("a text", b"breaker", "", "must be a mapping"),
    Wrong("a number", b"7", "", "must be a mapping"),
    Wrong("binary", bytes(range(256)), "", "is not UTF-8", 2),
    Wrong("UTF-16", "breaker: {}".encode("utf-16"), "", "is not UTF-8", 1),
    Wrong("a NUL", b"breaker: {}\n\x00", "", "must not be in it", 2),
    Wrong("ten megabytes", b"#" * 10_000_000, "", "must be at most 262,144"),
    Wrong("just too large", b"#" * (256 * 1024 + 1), "", "must be at most 262,144"),
    Wrong("an alias bomb", BOMB, "a", "is an anchor", 1),
    Wrong("an alias of nothing", b"breaker: *b\n", "breaker", "is an alias", 1),
    Wrong("a merge key", b"breaker:\n  <<: {demote: 0.5}\n", "breaker", "is a merge key", 2),
    Wrong("a Python object", b"breaker: !!python/object/apply:os.system ['true']\n", "breaker", "is a tag", 1),
    Wrong("a tag of the core", b"retry: {attempts: !!int '5'}\n", "retry.attempts", "is a tag", 1),
    Wrong("too deep", b"breaker: " + b"[" * 40, "breaker[0][0]", "at most 10 levels", 1),
    Wrong("too deep in JSON", b'{"a":' * 40_000, "", "at most 10 levels"),
    Wrong("two documents", b"---\nretry: {}\n---\nretry: {}\n", "", "a second document", 3),
    Wrong("a key twice", b"retry:\n  attempts: 3\n  attempts: 4\n", "retry.attempts", "given twice", 3),
    Wrong("a section twice", b"retry: {}\nslo: {}\nretry: {}\n", "retry", "given twice", 3),
    Wrong("a key twice in JSON", b'{"retry": {"attempts": 3, "attempts": 4}}', "retry.attempts", "given twice", 1),
    Wrong("a list as a key", b"? [a]\n: 1\n", "", "must be a name", 1),
    Wrong("cut off", b"retry: {attempts: 3", "", "is not YAML"),
    Wrong("a tab", b"retry:\n\tattempts: 3\n", "", "is not YAML", 2),
    Wrong("cut off in JSON", b'{"retry": {"attempts": 3}', "", "is not YAML"),
    # not a field
    Wrong("an unknown section", b"retries: {attempts: 3}\n", "retries", "did you mean retry?", 1),
    Wrong("an unknown field", b"breaker: {promot: 0.7}\n", "breaker.promot", "did you mean promote?", 1),
    Wrong("another case", b"Breaker: {}\n", "Breaker", "did you mean breaker?", 1),
    Wrong("a field out of its section", b"demote: 0.5\n", "demote", "did you mean breaker.demote?", 1),
    Wrong("a tier too many", tiers("  T2:", "  T3: {}\n  T2:"), "tiers.T3", "is an unknown key"),
    Wrong("a secret", b"alpaca_secret: hush-hush\n", "alpaca_secret", "no secret belongs here", 1),
    # not a value
    Wrong("a text for a number", b"retry: {attempts: '5'}\n", "retry.attempts", "must be a whole number", 1),
    Wrong("a share for a whole number", b"retry: {attempts: 1.5}\n", "retry.attempts", "must be a whole number", 1),
    Wrong("a flag for a number", b"retry: {attempts: true}\n", "retry.attempts", "must be a whole number", 1),
    Wrong("a number for a flag", b"tracing: {enabled: 1}\n", "tracing.enabled", "must be true or false", 1),
    Wrong("yes for a flag", b"tracing: {enabled: yes}\n", "tracing.enabled", "must be true or false", 1),
    Wrong("a list for a number", b"breaker: {demote: [0.5]}\n", "breaker.demote", "must be a number", 1),
    Wrong("a number for a section", b"breaker: 5\n", "breaker", "must be a mapping", 1),
    Wrong("null for a section", b"breaker:\nretry: {}\n", "breaker", "must be a mapping", 1),
    Wrong("null for a number", b"retry: {attempts: null}\n", "retry.attempts", "must be a whole number", 1),
    Wrong("not a number", b"breaker: {demote: .nan}\n", "breaker.demote", "must be a finite number", 1),
    Wrong("infinity", b"slo: {grace_s: .inf}\n", "slo.grace_s", "must be a finite number", 1),
    Wrong("infinity by overflow", b"slo: {grace_s: 1e999}\n", "slo.grace_s", "must be a finite number", 1),
    Wrong("not a number in JSON", b'{"breaker": {"demote": NaN}}', "breaker.demote", "must be a finite number", 1),
    Wrong("minutes and seconds", b"slo: {every_s: 1:30}\n", "slo.every_s", "must be a number", 1),
    Wrong("a huge number", b"retry: {attempts: " + b"9" * 5000 + b"}\n", "retry.attempts", "must be a whole number", 1),
    Wrong("above its bound", b"breaker: {promote: 1.1}\n", "breaker.promote", "must be at most 1", 1),
    Wrong("below its bound", b"breaker: {demote: -0.1}\n", "breaker.demote", "must be at least 0", 1),
    Wrong("a target of all", b"slo: {targets: {T1: 1}}\n", "slo.targets.T1", "must be less than 1", 1),
    Wrong("a cadence of 0", tiers("bars_1m: 60.0", "bars_1m: 0"), "tiers.T0.cadence.bars_1m", "greater than 0; null: never", 4),
    Wrong("a negative cadence", tiers("quotes_l1: 15.0", "quotes_l1: -1"), "tiers.T1.cadence.quotes_l1", "greater than 0"),
    Wrong("an unknown interval", tiers('["1d"]', "[1d, 2d]"), "tiers.T2.keep[1]", "must be one of '1m'"),
    Wrong("an interval twice", tiers('["1d"]', "[1d, 1d]"), "tiers.T2.keep", "names 1d twice"),
    Wrong("no rate", b"limits: {alpaca: fast}\n", "limits.alpaca", "must be a rate such as", 1),
    Wrong("a rate of nothing", b"limits: {alpaca: 0/min}\n", "limits.alpaca", "must be a rate such as", 1),
    Wrong("a limit of no name", b"limits: {'Al Paca': 5/min}\n", "limits.Al Paca", "must be a provider's name", 1),
    Wrong("an empty order", b"orders: {eod: []}\n", "orders.eod", "must name at least one provider", 1),
    Wrong("a provider twice", b"orders: {eod: [lean, files, lean]}\n", "orders.eod", "names lean twice", 1),
    # not together
    Wrong("a tier without a cap", tiers("    max_queue: 40000\n", ""), "tiers.T2.max_queue", "is missing"),
    Wrong("a tier without cadences", tiers("    cadence:\n      bars_1m: 60.0\n      quotes_l1: 5.0\n      eod: 1\n", ""), "tiers.T0.cadence", "is missing"),
    Wrong("a missing tier", b"tiers: {T0: {cadence: {bars_1m: 60, eod: 1}, max_queue: 5}}\n", "tiers.T1", "is missing", 1),
    Wrong("a tier that is never fetched", tiers('bars_1m: null\n      quotes_l1: null\n      eod: 1\n    max_queue: 40000\n    size: null\n    keep: ["1d"]', "eod: null\n    max_queue: 40000\n    keep: []"), "tiers.T2.cadence", "at least one of"),
    Wrong("daily bars kept and never asked for", tiers("eod: 1", "eod: null"), "tiers.T0.cadence.eod", "must be 1, for 1d is in"),
    Wrong("daily bars asked for and not kept", tiers('["1m", "1d"]', "[1m]"), "tiers.T0.cadence.eod", "must be null, for 1d is not in"),
    Wrong("demotes where it promotes", b"breaker: {demote: 0.7}\n", "breaker.demote", "must be below breaker.promote (0.7)", 1),
    Wrong("promotes where it demotes", b"breaker:\n  promote: 0.5\n", "breaker.demote", "must be below breaker.promote (0.5)", 1),
    Wrong("pauses the wrong way round", b"retry: {base_s: 500}\n", "retry.base_s", "must be at most retry.max_s (300.0)", 1),
    Wrong("thins what is gone", b"retention: {slo_days: 40, slo_whole_days: 50}\n", "retention.slo_whole_days", "must be at most"),
)  # fmt: skip

#: Wrong where the simulator alone is configured and its rate is five a minute.
HERE: Final = (
    Wrong("a provider that is none", b"orders: {bars_1m: [simulater]}\n", "orders.bars_1m[0]", "did you mean simulator?", 1),
    Wrong("a provider that is not configured", b"orders: {eod: [simulator, alpaca]}\n", "orders.eod[1]", "is not configured here", 1),
    Wrong("a limit of none", b"limits: {alpca: 5/min}\n", "limits.alpca", "did you mean alpaca?", 1),
    Wrong("caps beyond any memory", tiers("max_queue: 40000", "max_queue: 10000000").replace(b"20000", b"10000000"), "tiers.T0.max_queue", "the broker has"),
)  # fmt: skip

#: A right one, for the tests that look what a wrong one does to it.
RIGHT: Final = canonical(Policy()).encode()
