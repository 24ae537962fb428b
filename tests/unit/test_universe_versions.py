"""A version's bytes: one way to write it, the same in any process, and differences that add up."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtasks.domain.errors import ConflictError, InvalidRequestError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.listings import Traded
from mdtasks.domain.universe import RULES, Member, Terms
from mdtasks.domain.versions import (
    Header,
    Input,
    applied,
    difference,
    keys_bytes,
    keys_of,
    members_bytes,
    members_of,
    sha256,
    traded_bytes,
    traded_of,
)
from mdtasks.flows.universe_bundle import Bundle, built, checked, packed, unpacked

DAYS = [date(2024, 1, number) for number in (2, 3, 4)]
SYMBOLS = [f"S{number}" for number in range(60)]


def listing(day: date) -> bytes:
    rows = (
        f"{name},XNYS,{(i * 7919 + day.day * 104729) % 9973 / 100},{(i * 31 + day.day) % 97}"
        for i, name in enumerate(SYMBOLS)
    )
    return "\n".join(["symbol,mic,close,volume", *rows, ""]).encode()


def bundle(**changes: object) -> Bundle:
    keys = {f"{name}@XNYS": [(DAYS[0], 1000 - number)] for number, name in enumerate(SYMBOLS)}
    bodies = [listing(day) for day in DAYS]
    inputs = [Input("csv", day, sha256(body), len(SYMBOLS)) for day, body in zip(DAYS, bodies, strict=True)]
    kept = Input("keys", DAYS[-1], sha256(keys_bytes(keys)), len(keys))
    parent = members_bytes([Member(1000 - n, name, Tier.T1, n + 1, 0) for n, name in enumerate(SYMBOLS[:30])])
    terms = Terms({Tier.T0: 7, Tier.T1: 20, Tier.T2: None}, 3, 0.1, {"S3": Tier.T0, "S5": Tier.T2}, ("S8", "S4"))
    header = Header("csv", DAYS[-1], inputs, kept, None, terms, ("beef", sha256(parent)), **changes)  # type: ignore[arg-type]
    blobs = {sha256(body): body for body in (*bodies, keys_bytes(keys))}
    return Bundle(header.tag, header.text(), members_bytes(built(header, blobs, parent)), parent, blobs)


_AGAIN = """
import locale, sys
from pathlib import Path
from mdtasks.flows.universe_bundle import checked, unpacked
locale.setlocale(locale.LC_ALL, "")
again = checked(unpacked(Path(sys.argv[1])))
print(again.hash, again.members_sha256, again.same, hash("x"))
"""


def test_another_process_with_other_hashes_and_locale_makes_the_same_bytes(tmp_path: Path) -> None:
    made = bundle()
    path = tmp_path / "version.zip"
    path.write_bytes(packed(made))
    here = checked(made)
    assert here.same
    told = set()
    for seed, locale, zone in (("1", "C", "UTC"), ("2", "C.UTF-8", "Asia/Tokyo"), ("3", "POSIX", "America/New_York")):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": zone, "PYTHONOPTIMIZE": "1"}
        words = [sys.executable, "-c", _AGAIN, str(path)]
        out = subprocess.run(words, env=environ, capture_output=True, text=True, check=True, timeout=120).stdout.split()
        assert out[:3] == [here.hash, here.members_sha256, "True"]
        told.add(out[3])
    assert len(told) == 3  # their sets and dicts did go by other hashes


def test_the_version_that_these_bytes_make_is_known() -> None:
    """Whatever changes this must count up RULES: kept versions would no longer be made again."""
    made = checked(bundle())
    assert (RULES, made.hash[:16], made.members_sha256[:16]) == (1, "a2192f869358bd02", "a6b6d6bbf50b86dc")


def test_a_bundle_is_written_the_same_and_read_back(tmp_path: Path) -> None:
    made = bundle()
    (tmp_path / "a.zip").write_bytes(packed(made))
    assert unpacked(tmp_path / "a.zip") == made
    assert packed(unpacked(tmp_path / "a.zip")) == packed(made)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"symbol,mic"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InvalidRequestError, match="no exported version"):
        unpacked(tmp_path / "a.zip")
    with pytest.raises(InvalidRequestError, match="No such file"):
        unpacked(tmp_path / "none.zip")


def test_whatever_was_changed_is_noticed() -> None:
    made = bundle()
    other = Bundle(made.tag, made.header, made.members.replace(b",T0,1,", b",T1,1,"), made.parent, made.blobs)
    assert not checked(other).same
    with pytest.raises(ConflictError, match="is missing or not what it was"):
        checked(
            Bundle(made.tag, made.header, made.members, made.parent, {**made.blobs, sha256(listing(DAYS[0])): b"x"})
        )
    with pytest.raises(ConflictError, match="before it are not what they were"):
        checked(Bundle(made.tag, made.header, made.members, made.parent + b"\n", made.blobs))
    with pytest.raises(ConflictError, match="was made by rules 0"):
        checked(bundle(rules=0))


def test_a_header_is_read_back_as_itself() -> None:
    made = bundle()
    assert Header.of(made.header).text() == made.header
    assert Header.of(made.header).hash == sha256(made.header.encode())


members = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(list(Tier)), st.integers(0, 3)),
    unique_by=lambda each: each[0],
    max_size=10,
).map(lambda rows: [Member(i, f"S{i}", tier, rank, score) for rank, (i, tier, score) in enumerate(rows, 1)])


@given(members, members)
def test_a_difference_applied_to_one_version_gives_the_other(old: list[Member], new: list[Member]) -> None:
    moves = difference(old, new)
    assert applied(old, moves) == new
    assert all(move.before != move.after for move in moves)
    assert difference(new, new) == []


@given(members)
def test_members_are_written_and_read_back(some: list[Member]) -> None:
    assert members_of(members_bytes(some)) == some
    assert members_bytes(reversed(some)) == members_bytes(some)


def test_keys_and_what_the_bars_say_are_written_and_read_back() -> None:
    keys = {'#"é, x': [(DAYS[0], 3), (DAYS[1], 4)], "A@24/7": [(DAYS[2], 1)]}
    assert keys_of(keys_bytes(keys)) == keys
    traded = {7: Traded(3, 10**17), 2: Traded(1, 0)}
    assert traded_of(traded_bytes(traded)) == traded
    assert traded_bytes({2: traded[2], 7: traded[7]}) == traded_bytes(traded)
