"""The seam of a stream: however reading, publishing and losing interleave, a reader gets everything once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mdtasks.domain.replay import Position, Window
from mdtasks.domain.stream import Event, Live, Seam, missed, oldest, serving
from tests.unit.stream_model import Buffer

#: publish a bar of one of three times, lose the live event, read, let a reading arrive, empty the buffer, fall behind.
ACTIONS = st.lists(
    st.sampled_from(["publish", "publish", "lose", "begin", "arrive", "empty", "fall", "rewind"]), max_size=60
)


@settings(max_examples=400, deadline=None)
@given(ACTIONS, st.lists(st.integers(0, 2), min_size=60, max_size=60))
def test_a_reader_gets_each_entry_once_and_in_order_or_is_told_to_begin_anew(
    actions: list[str], times: list[int]
) -> None:
    buffer, seam, got = Buffer(), Seam(), list[Event]()
    window: Window | None = None
    for action, ts in zip(actions, times, strict=False):
        match action:
            case "publish":
                live = buffer.publish(ts)
                got += [live] if seam.offer(live) else []
            case "lose":
                buffer.publish(ts)  # nobody heard it: the next one leaves a hole
            case "begin" if window is None:
                window = buffer.read(seam.begin())
            case "arrive" if window is not None:
                got += seam.arrive(window)
                window = None
            case "empty":
                buffer.anew()
            case "fall":
                seam.fall()
            case "rewind" if got and isinstance(got[-1], Live):  # the newest that it had taken was not sent
                seam.fall(Position(got[-1].epoch, got[-1].entry.offset - 1))
                got = got[:-1]
    if window is not None:
        got += seam.arrive(window)
    seam.fall()  # a break: whoever is cut off reads again
    got += seam.arrive(buffer.read(seam.begin()))

    assert seam.position == buffer.position
    at: Position | None = None
    for event in got:
        if isinstance(event, Window):
            assert not event.resumed
        else:
            assert at == Position(event.epoch, event.entry.offset - 1), "an entry was lost, doubled or out of order"
        at = event.position
    assert at == buffer.position


def test_what_is_held_while_a_window_is_read_follows_it_without_what_it_holds() -> None:
    buffer, seam = Buffer(), Seam()
    buffer.publish(1)
    since = seam.begin()
    held = [buffer.publish(2), buffer.publish(3)]
    window = buffer.read(since)
    held.append(buffer.publish(4))
    assert [seam.offer(each) for each in held] == [False] * 3

    snapshot, *rest = seam.arrive(window)
    assert isinstance(snapshot, Window)
    assert rest == [held[-1]]


def test_a_reader_that_fell_behind_goes_on_from_where_it_really_was() -> None:
    buffer, seam = Buffer(), Seam()
    seam.begin()
    seam.arrive(buffer.read(None))
    assert seam.offer(buffer.publish(1))
    seam.offer(buffer.publish(2))
    seam.fall(Position(buffer.epoch, 1))
    assert not seam.offer(buffer.publish(3))
    assert [each.entry.offset for each in seam.arrive(buffer.read(seam.begin())) if isinstance(each, Live)] == [2, 3]


def test_a_snapshot_resumes_a_reader_only_where_no_bar_was_overtaken() -> None:
    buffer = Buffer()
    for ts in (1, 2, 3):
        buffer.publish(ts)
    found = missed(Position("e0", 1), buffer.read(None))
    assert found is not None
    assert [entry.offset for entry in found] == [2, 3]
    buffer.publish(2)
    assert missed(Position("e0", 1), buffer.read(None)) is None
    assert missed(Position("e1", 1), buffer.read(None)) is None
    assert missed(Position("e0", 9), buffer.read(None)) is None


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_one_reading_serves_whom_it_can_exactly_as_a_reading_of_their_own(times: list[int], offsets: list[int]) -> None:
    buffer = Buffer()
    for ts in times:
        buffer.publish(ts)
    readers = [Position("e0", offset) for offset in offsets]
    asked = oldest(readers)
    assert asked == min(readers, key=lambda each: each.offset)
    window = buffer.read(asked)
    for since in readers:
        served = serving(since, window, asked)
        if served is not None:
            own = buffer.read(since)
            assert (served.position, served.resumed) == (own.position, own.resumed)
            assert list(served.entries) == list(own.entries)
    assert serving(asked, window, asked) is not None, "who asked for it is always served"
    assert (serving(None, window, asked) is None) == window.resumed
    assert oldest([None]) is None
