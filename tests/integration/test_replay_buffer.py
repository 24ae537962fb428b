"""The replay buffer against a model of it: whatever happens, a reader gets each entry once and in order, or is told."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Draft, Position, StreamKey, Window
from mdtasks.stack.embedded import ValkeyServer, stop
from mdtasks.stack.spawn import spawn
from mdtasks.store.replay import ENTRIES_PER_BAR, ReplayBuffer
from tests.integration.replay_model import ModelStream

KEY = StreamKey(7, Interval.M1)
ROOT = "mdtasks:replay:7:1m"
PARTS = ("", ":log", ":bars", ":quiet")
MAX_BARS = 5
_MINUTE_US = 60_000_000
_FIRST_US = 1_795_188_300_000_000


def bar(minute: int, version: int = 1) -> Draft:
    """A version of a minute's bar."""
    return Draft(_FIRST_US + minute * _MINUTE_US, version, b'{"bar":%d,"v":%d}' % (minute, version))


def quiet(minute: int) -> Draft:
    """A minute without a trade."""
    return Draft(_FIRST_US + minute * _MINUTE_US, 0, b'{"quiet":%d}' % minute)


@pytest.fixture
def buffer(redis_client: redis.Redis) -> ReplayBuffer:
    """A buffer of a few bars per stream."""
    return ReplayBuffer(redis_client, MAX_BARS, 100)


def begin(buffer: ReplayBuffer, *bars: Draft, key: StreamKey = KEY) -> Window:
    """A stream that was filled with these bars."""
    births = buffer.read({key: None}).births
    assert buffer.refill({key: bars}, births) == 1
    return look(buffer, None, key)


def look(buffer: ReplayBuffer, position: Position | None, key: StreamKey = KEY) -> Window:
    """What a reader gets of a stream that is there."""
    read = buffer.read({key: position})
    assert not read.births
    return read.windows[key]


def bodies(window: Window) -> list[bytes]:
    return [entry.body for entry in window.entries]


class Life(RuleBasedStateMachine):
    """A series in the store, its stream, and what may befall them. Publishing goes the way that flows go."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.buffer = ReplayBuffer(self.client, MAX_BARS, 100)
        self.store: dict[int, Draft] = {}
        self.unpublished: list[Draft] = []
        self.published: list[Draft] = []
        #: None where Redis has no stream that is whole.
        self.model: ModelStream | None = None
        self.epochs: list[str] = []
        self.readers: list[Position | None] = [None]
        self.older: dict[str, bytes] = {}

    # What is committed, and told.

    @rule(minute=st.integers(0, 14), final=st.booleans())
    def commit_a_bar(self, minute: int, final: bool) -> None:
        """A bar that is new, or another version of it."""
        before = self.store.get(minute)
        version = before.version + 1 + final if before else 1 + final
        self.store[minute] = bar(minute, version)
        self.unpublished.append(self.store[minute])

    @rule(minute=st.integers(0, 14))
    def commit_a_silence(self, minute: int) -> None:
        """A minute that had no trade, as far as is known."""
        if minute not in self.store:
            self.unpublished.append(quiet(minute))

    @rule()
    def publish(self) -> None:
        """All that waits, as a batch."""
        self._tell(self.unpublished)
        self.published += self.unpublished
        self.unpublished = []

    @rule(count=st.integers(1, 6))
    def publish_again(self, count: int) -> None:
        """What a crash after the telling leaves behind is told again."""
        if self.model is not None and self.published:
            assert self.buffer.publish({KEY: self.published[-count:]}, 0).entries == 0

    def _tell(self, drafts: list[Draft]) -> None:
        if not drafts:
            return
        told = self.buffer.publish({KEY: drafts}, 0)
        if told.births:
            assert self.model is None
            self._fill(told.births[KEY])
            told = self.buffer.publish({KEY: drafts}, 0)
        assert self.model is not None
        assert not told.births
        assert told.entries == sum([self.model.publish(draft) for draft in drafts])

    def _fill(self, token: str) -> None:
        newest = [self.store[minute] for minute in sorted(self.store)[-MAX_BARS:]]
        assert self.buffer.refill({KEY: newest}, {KEY: token}) == 1
        assert self.buffer.refill({KEY: newest}, {KEY: token}) == 0
        self.model = ModelStream.begun(MAX_BARS, newest)
        self.published = []
        self.epochs.append(self.client.hget(ROOT, "epoch").decode())  # type: ignore[union-attr]
        assert len(set(self.epochs)) == len(self.epochs)

    # What befalls Redis.

    @rule()
    def redis_is_emptied(self) -> None:
        self.client.flushall()
        self.model = None

    @rule(parts=st.sets(st.sampled_from(PARTS[:3]), min_size=1))
    def parts_are_taken_away(self, parts: set[str]) -> None:
        """Expired, by themselves or not: what is left is no stream, unless the part was empty."""
        if self.model is not None and any(self.client.exists(ROOT + part) for part in parts):
            self.model = None
        self.client.delete(*(ROOT + part for part in parts))

    @rule()
    def redis_is_saved(self) -> None:
        """What it would come back with."""
        self.older = {part: raw for part in PARTS if (raw := self.client.dump(ROOT + part)) is not None}

    @rule()
    def redis_comes_back_from_an_older_state(self) -> None:
        """Another run of the server, which has what was saved."""
        self.client.flushall()
        for part, raw in self.older.items():
            self.client.restore(ROOT + part, 100_000, raw)
        if self.client.exists(ROOT):
            self.client.hset(ROOT, "run", "another")
        self.model = None

    # Readers.

    @rule(position=st.integers(0, 30), of_this_epoch=st.booleans())
    def a_reader_comes_from_anywhere(self, position: int, of_this_epoch: bool) -> None:
        if self.epochs:
            self.readers.append(Position(self.epochs[-1 if of_this_epoch else 0], position))

    @rule(which=st.integers(0, 100))
    def a_reader_reads(self, which: int) -> None:
        """It gets exactly what it missed, or is told that it gets a snapshot."""
        number = which % len(self.readers)
        position = self.readers[number]
        read = self.buffer.read({KEY: position})
        if read.births:
            assert self.model is None
            self._fill(read.births[KEY])
            read = self.buffer.read({KEY: position})
        window = read.windows[KEY]
        assert self.model is not None
        assert window.position == Position(self.epochs[-1], self.model.offset)
        missed = self.model.since(position.offset) if position and position.epoch == self.epochs[-1] else None
        assert window.resumed == (missed is not None)
        assert window.entries == (self.model.snapshot() if missed is None else missed)
        self.readers[number] = window.position
        if not self.unpublished:
            newest = [self.store[minute] for minute in sorted(self.store)[-MAX_BARS:]]
            assert [entry.body for entry in self.model.snapshot()] == [draft.body for draft in newest]

    @invariant()
    def it_never_holds_more_than_it_may(self) -> None:
        assert self.client.xlen(f"{ROOT}:log") <= ENTRIES_PER_BAR * MAX_BARS
        assert self.client.zcard(f"{ROOT}:bars") <= MAX_BARS
        assert self.client.zcard(f"{ROOT}:quiet") <= MAX_BARS


def test_whatever_happens_a_reader_gets_each_entry_once_and_in_order_or_is_told(redis_client: redis.Redis) -> None:
    Life.client = redis_client
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_every_position_resumes_as_far_back_as_the_log_reaches_and_no_further(buffer: ReplayBuffer) -> None:
    first = begin(buffer)
    assert (first.position.offset, first.entries, first.resumed) == (0, [], False)
    total = ENTRIES_PER_BAR * MAX_BARS + 3
    buffer.publish({KEY: [bar(minute) for minute in range(total)]}, 0)
    for offset in range(total + 1):
        window = look(buffer, Position(first.position.epoch, offset))
        assert window.position.offset == total
        assert window.resumed == (offset >= 3)
        expected = range(offset + 1, total + 1) if window.resumed else range(total - MAX_BARS + 1, total + 1)
        assert [entry.offset for entry in window.entries] == list(expected)


def test_a_position_from_the_future_or_of_another_epoch_gets_a_snapshot(buffer: ReplayBuffer) -> None:
    window = begin(buffer, bar(1), bar(2))
    for position in (Position(window.position.epoch, 3), Position("elsewhere", 2)):
        assert not look(buffer, position).resumed
        assert bodies(look(buffer, position)) == [bar(1).body, bar(2).body]


def test_a_revised_bar_is_a_new_entry_and_an_older_version_is_none(buffer: ReplayBuffer) -> None:
    start = begin(buffer, bar(1, 4), bar(2, 4)).position
    assert buffer.publish({KEY: [bar(1, 3), bar(1, 4), bar(1, 5), bar(1, 5)]}, 0).entries == 1
    assert bodies(look(buffer, start)) == [bar(1, 5).body]
    assert [entry.offset for entry in look(buffer, None).entries] == [3, 2]


def test_what_is_older_than_the_bars_it_has_place_for_moves_nothing(buffer: ReplayBuffer) -> None:
    start = begin(buffer, *(bar(minute) for minute in range(10, 10 + MAX_BARS))).position
    assert buffer.publish({KEY: [bar(minute) for minute in range(10)] + [quiet(3)]}, 0).entries == 0
    assert look(buffer, start).entries == []


def test_a_silence_is_told_once_and_a_bar_of_its_minute_takes_its_place(buffer: ReplayBuffer) -> None:
    start = begin(buffer, bar(1)).position
    assert buffer.publish({KEY: [quiet(1), quiet(2), quiet(2)]}, 0).entries == 1
    assert buffer.publish({KEY: [bar(2), quiet(2)]}, 0).entries == 1
    assert bodies(look(buffer, start)) == [quiet(2).body, bar(2).body]
    assert bodies(look(buffer, None)) == [bar(1).body, bar(2).body]


def test_all_of_a_stream_lives_equally_long_from_its_last_word(redis_client: redis.Redis, buffer: ReplayBuffer) -> None:
    begin(buffer, bar(1))
    for part in PARTS:
        redis_client.persist(ROOT + part)
    buffer.publish({KEY: [bar(2), quiet(3)]}, 0)
    deadlines = {redis_client.pexpiretime(ROOT + part) for part in PARTS}
    assert len(deadlines) == 1
    seconds, _ = redis_client.time()
    assert 0 < deadlines.pop() / 1000 - seconds <= 101


def test_a_stream_is_not_filled_from_before_what_was_told_to_nobody(buffer: ReplayBuffer) -> None:
    """A reader that has read the store, and then sleeps while a bar is published, may not begin the stream."""
    reader = buffer.read({KEY: None}).births
    told = buffer.publish({KEY: [bar(2)]}, 0)
    assert told.entries == 0
    assert told.births[KEY] != reader[KEY]
    assert buffer.refill({KEY: [bar(1)]}, reader) == 0
    assert buffer.refill({KEY: [bar(1), bar(2)]}, told.births) == 1
    assert bodies(look(buffer, None)) == [bar(1).body, bar(2).body]


def test_readers_that_come_at_once_share_the_token_and_the_first_begins_the_stream(buffer: ReplayBuffer) -> None:
    births = [buffer.read({KEY: None}).births for _ in range(2)]
    assert births[0] == births[1]
    assert [buffer.refill({KEY: [bar(1)]}, each) for each in births] == [1, 0]


def test_a_token_is_worth_nothing_once_redis_was_emptied(redis_client: redis.Redis, buffer: ReplayBuffer) -> None:
    births = buffer.read({KEY: None}).births
    redis_client.flushall()
    assert buffer.refill({KEY: [bar(1)]}, births) == 0


def test_a_buffer_that_is_to_hold_more_begins_anew_and_one_of_fewer_trims(redis_client: redis.Redis) -> None:
    small, large = ReplayBuffer(redis_client, 3, 100), ReplayBuffer(redis_client, 6, 100)
    begin(large, *(bar(minute) for minute in range(6)))
    assert len(look(small, None).entries) == 3
    small.publish({KEY: [bar(5)]}, 0)
    assert redis_client.zcard(f"{ROOT}:bars") == 3
    assert large.read({KEY: None}).births


def test_many_streams_are_read_and_told_in_parts_and_none_is_mixed_up(buffer: ReplayBuffer) -> None:
    keys = [StreamKey(number, interval) for number in range(150) for interval in (Interval.M1, Interval.D1)]
    births = buffer.read(dict.fromkeys(keys)).births
    assert buffer.refill({key: [bar(key.instrument_id)] for key in keys}, births) == len(keys)
    assert buffer.publish({key: [bar(key.instrument_id + 1)] for key in keys}, 0).entries == len(keys)
    windows = buffer.read(dict.fromkeys(keys)).windows
    for key in keys:
        expected = [bar(key.instrument_id).body, bar(key.instrument_id + 1).body]
        assert (windows[key].key, bodies(windows[key])) == (key, expected)


def test_streams_that_are_let_go_leave_nothing(redis_client: redis.Redis, buffer: ReplayBuffer) -> None:
    begin(buffer, bar(1))
    buffer.publish({KEY: [bar(2), quiet(3)]}, 0)
    buffer.forget([KEY])
    buffer.forget([])
    assert redis_client.keys() == []


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[tuple[ValkeyServer, Callable[[], None]]]:
    """A Redis of one's own, and how to kill it and start it again with what it has on disk."""
    server = ValkeyServer(tmp_path)
    server.prepare()
    processes = [spawn(server.command(), tmp_path / "redis.log")]

    def restart() -> None:
        stop(processes.pop(), (signal.SIGKILL,))
        processes.append(spawn(server.command(), tmp_path / "redis.log"))

    yield server, restart
    stop(processes.pop(), (signal.SIGKILL,))


def test_a_redis_that_was_killed_and_is_back_vouches_for_nothing(
    mortal: tuple[ValkeyServer, Callable[[], None]], eventually: Callable[..., None]
) -> None:
    server, restart = mortal
    eventually(server.answers)
    with redis.Redis.from_url(server.url) as client:
        buffer = ReplayBuffer(client, MAX_BARS, 100)
        before = begin(buffer, bar(1))
        token = buffer.read({StreamKey(8, Interval.M1): None}).births
        client.bgrewriteaof()
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        restart()
        eventually(server.answers)
        assert client.exists(ROOT)
        assert KEY in buffer.read({KEY: before.position}).births
        assert buffer.refill({StreamKey(8, Interval.M1): [bar(1)]}, token) == 0
        assert begin(buffer, bar(1)).position.epoch != before.position.epoch
