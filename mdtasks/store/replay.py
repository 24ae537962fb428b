"""The replay buffer: the newest bars of every series in Redis, with positions, for readers that come back.

Every change of a stream is made by one of the scripts beside this module (``replay_head.lua`` says how it lies in
Redis). It is a copy: what it cannot vouch for it forgets, and it is filled again from PostgreSQL (``flows.replay``).
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mdtasks.connections import AsyncRedis, Redis, load_script, translated_redis_errors
from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.replay import Draft, Entry, Position, StreamKey, Window

_ROOT: Final = "mdtasks:replay"
_QUOTES: Final = f"{_ROOT}:quotes"
#: A bar comes twice as a rule, provisional and final: so many entries of a log reach back as far as its bars.
ENTRIES_PER_BAR: Final = 2
#: What lies under a stream's root.
_KEYS: Final = ("", ":log", ":bars", ":quiet")
#: Who means to fill a stream has so long to read the store, ms.
_BIRTH_MS: Final = 60_000
#: After Redis was away, commits leave what they have to tell to the sweep for so long, seconds.
_REST_S: Final = 3.0
#: Drafts, and streams, of one script: Redis does nothing else meanwhile, some milliseconds.
_MOST_DRAFTS: Final = 250
_MOST_STREAMS: Final = 50


@dataclass(frozen=True, slots=True)
class Read:
    """What a look into streams found. ``births``: streams that there are none of -> the token to fill each with."""

    windows: Mapping[StreamKey, Window]
    births: Mapping[StreamKey, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of telling: how many entries, and ``births`` as of ``Read``, of which nothing was told."""

    entries: int
    births: Mapping[StreamKey, str]


class ReplayBuffer:
    """The streams of all series. Every method raises BrokerUnavailableError when Redis is away, StoreFullError when it
    has no room; all are safe to repeat.
    """

    def __init__(self, client: Redis, max_bars: int, ttl_s: int) -> None:
        """``max_bars``: bars that a stream holds. ``ttl_s``: it lives so long without an entry."""
        self.max_bars = max_bars
        self.ttl_s = ttl_s
        self._client = client
        self._channel = channel_of(client)
        self._away_at = -math.inf
        head = load_script("mdtasks.store", "replay_head.lua")
        self._publish, self._refill, self._read = (
            client.register_script(head + load_script("mdtasks.store", f"replay_{name}.lua"))
            for name in ("publish", "refill", "read")
        )
        self._tell_quotes = client.register_script(load_script("mdtasks.store", "replay_quotes.lua"))

    def publish(self, drafts: Mapping[StreamKey, Sequence[Draft]], committed_us: int) -> Told:
        """Append the drafts to their streams, in their order, and tell them to all who follow.

        ``committed_us``: when the oldest of them was written. What a stream has in this or a later version is passed
        over, and so is what is older than the bars it holds.
        """
        entries, births = 0, {}
        for part in _parts(drafts):
            token = secrets.token_hex(8)
            about = [self.max_bars, ENTRIES_PER_BAR * self.max_bars, 1000 * self.ttl_s, token, _BIRTH_MS, self._channel]
            told = [value for key in part for value in (_name(key), *_flat(drafts[key]))]
            for key, count in zip(part, self._run(self._publish, part, [*about, committed_us, *told]), strict=True):
                entries += max(count, 0)
                if count < 0:
                    births[key] = token
        return Told(entries, births)

    def refill(self, drafts: Mapping[StreamKey, Sequence[Draft]], births: Mapping[StreamKey, str]) -> int:
        """Begin streams with the newest bars of the store, oldest first, read after the token was had.

        Returns how many began; the others are there already, or were told something meanwhile: look again.
        """
        begun = 0
        for part in _parts(drafts):
            told = [value for key in part for value in (births[key], _name(key), *_flat(drafts[key][-self.max_bars :]))]
            begun += self._run(self._refill, part, [self.max_bars, 1000 * self.ttl_s, self._channel, *told])
        return begun

    def read(self, asked: Mapping[StreamKey, Position | None]) -> Read:
        """What each stream holds after a position, or all of it (None, or where the position cannot be served)."""
        windows, births = {}, {}
        for part in _parts(dict.fromkeys(asked, ())):
            at = [value for key in part for value in _at(asked[key])]
            answer = self._run(self._read, part, [self.max_bars, secrets.token_hex(8), _BIRTH_MS, *at])
            for key, (kind, *told) in zip(part, answer, strict=True):
                if kind == b"none":
                    births[key] = told[0].decode()
                else:
                    windows[key] = _window(key, kind == b"since", *told)
        return Read(windows, births)

    def forget(self, keys: Sequence[StreamKey]) -> None:
        """Let streams go: they begin anew at the next entry, or the next reader."""
        if keys:
            with translated_redis_errors():
                self._client.delete(*(f"{_root(key)}{part}" for key in keys for part in _KEYS))

    def tell_quotes(self, quotes: Mapping[int, Draft], committed_us: int) -> int:
        """Tell the quotes, by instrument, that are newer than the last told; returns how many were."""
        told = [value for instrument, quote in quotes.items() for value in (instrument, quote.ts_us, quote.body)]
        with translated_redis_errors():
            return int(self._tell_quotes(keys=[_QUOTES], args=[1000 * self.ttl_s, self._channel, committed_us, *told]))

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer a moment ago: each attempt takes seconds while it does not."""
        return time.monotonic() < self._away_at + _REST_S

    def _run(self, script: Any, part: Sequence[StreamKey], args: Sequence[Any]) -> Any:
        try:
            with translated_redis_errors():
                return script(keys=[_root(key) for key in part], args=args)
        except UnavailableError:
            self._away_at = time.monotonic()
            raise


def channel_of(client: Redis | AsyncRedis) -> str:
    """Where everything is told to all who follow. Channels know no databases: the name tells one stack from another."""
    return f"{_ROOT}:told:{client.connection_pool.connection_kwargs.get('db') or 0}"


def _parts(drafts: Mapping[StreamKey, Sequence[Draft]]) -> Iterator[list[StreamKey]]:
    """The streams in parts for a script each."""
    part: list[StreamKey] = []
    size = 0
    for key, each in drafts.items():
        if part and (len(part) == _MOST_STREAMS or size + len(each) > _MOST_DRAFTS):
            yield part
            part, size = [], 0
        part.append(key)
        size += len(each)
    if part:
        yield part


def _root(key: StreamKey) -> str:
    return f"{_ROOT}:{key.instrument_id}:{key.interval}"


def _name(key: StreamKey) -> str:
    """A stream in the lines of the channel."""
    return f"{key.instrument_id} {key.interval}"


def _flat(drafts: Sequence[Draft]) -> list[int | bytes]:
    return [len(drafts), *(value for draft in drafts for value in (draft.ts_us, draft.version, draft.body))]


def _at(position: Position | None) -> tuple[str, int]:
    return ("", 0) if position is None else (position.epoch, position.offset)


def _window(key: StreamKey, resumed: bool, epoch: bytes, offset: bytes, found: Sequence[Any]) -> Window:
    entries = _log_entries(found) if resumed else _bar_entries(found)
    return Window(key, Position(epoch.decode(), int(offset)), entries, resumed)


def _log_entries(found: Sequence[Any]) -> list[Entry]:
    """Out of the log: pairs of an id and ("t", start, "b", body)."""
    return [Entry(int(raw_id.partition(b"-")[0]), int(fields[1]), fields[3]) for raw_id, fields in found]


def _bar_entries(found: Sequence[bytes]) -> list[Entry]:
    """Out of the bars: "VERSION OFFSET BODY" and its start, by turns."""
    members = (member.split(b" ", 2) for member in found[::2])
    return [Entry(int(offset), int(start), body) for (_, offset, body), start in zip(members, found[1::2], strict=True)]
