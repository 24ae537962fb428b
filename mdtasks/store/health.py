"""The health of providers, shared by all processes in Redis and on its clock: means, samples, breaker, rates, pauses.

Every change of a breaker is made by the two scripts beside this module, so it happens once, whoever sees the reason.
Redis that comes back empty starts every provider as well; pauses are put back from PostgreSQL, which holds them.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from mdtasks.connections import Redis, load_script, translated_redis_errors
from mdtasks.domain import health
from mdtasks.domain.errors import ProviderError, RateLimitedError
from mdtasks.domain.health import Circuit, Kind, Parts, Pause, Rules, Sample, Standing, Transition
from mdtasks.domain.rates import Rate

#: Samples kept of each provider, and snapshots of its health.
SAMPLES: Final = 60
HISTORY: Final = 60
#: A prober that was killed does not hold the right for ever, seconds.
PROBE_S: Final = 30.0
_ROOT: Final = "mdtasks:provider:"
_OUTBOX: Final = "mdtasks:provider-transitions"


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go: ``go``, ``probe`` (go, as the one that probes), ``wait`` (its rate, or the vendor, says
    so), ``open`` or ``paused``.
    """

    verdict: str
    wait_s: float = 0.0


class HealthBook:
    """What all processes know of the providers. Every method raises BrokerUnavailableError when Redis is away."""

    def __init__(self, client: Redis, rules: Rules, probe_s: float = PROBE_S) -> None:
        """``probe_s``: the right to probe lasts so long unless it is given back: longer than a request may take."""
        self._probe_ms = math.ceil(probe_s * 1000)
        self.rules = rules
        self._client = client
        self._admit = client.register_script(load_script("mdtasks.store", "admit.lua"))
        self._outcome = client.register_script(load_script("mdtasks.store", "outcome.lua"))
        #: What the outcome script is told each time, whatever the outcome.
        self._terms = {
            "rules": {
                **asdict(rules),
                "cooldowns_ms": [round(1000 * rules.left_alone_s(opened)) for opened in range(1, 11)],
            },
            "shares": _SHARES,
            "weight": health.WEIGHT,
            "keep": SAMPLES,
        }

    def admit(self, name: str, rates: Sequence[Rate], *, insist: bool = False) -> Admission:
        """Ask for the right to make one request now; it is taken from the rates when the answer is ``go``."""
        return self._asked(name, insist, "", [number for rate in rates for number in spacing(rate)])

    def take_probe(self, name: str) -> bool:
        """Take the right to probe a demoted provider whose cool-down is over; False when somebody else has it."""
        return self._asked(name, False, "1", []).verdict == "probe"

    def give_up_probe(self, name: str) -> None:
        """Give back the right to probe, unused or used."""
        key = f"{_ROOT}{name}:probe"
        with translated_redis_errors():
            if self._client.get(key) == _me().encode():
                self._client.delete(key)

    def _asked(self, name: str, insist: bool, probe_only: str, spaced: Sequence[int]) -> Admission:
        keys = [f"{_ROOT}{name}{part}" for part in ("", ":probe", ":rate")]
        with translated_redis_errors():
            verdict, wait_ms = self._admit(
                keys=keys, args=[_me(), self._probe_ms, "1" if insist else "", probe_only, *spaced]
            )
        return Admission(verdict.decode(), wait_ms / 1000)

    def tell_request(self, name: str, endpoint: str, latency_s: float, error: ProviderError | None) -> str:
        """Tell the outcome of one request; returns ``demoted`` or ``promoted`` when that follows from it, else ""."""
        sample = {"endpoint": endpoint, "code": error.code if error else "ok", "latency_s": latency_s}
        told: dict[str, Any] = {"kind": health.kind_of(error), "sample": sample}
        if error is None:
            told["latency"] = health.latency_part(latency_s)
        if isinstance(error, RateLimitedError) and error.retry_after_s:
            told["wait_ms"] = math.ceil(error.retry_after_s * 1000)
        return self._told(name, told)

    def tell_answer(self, name: str, sample: Sample) -> str:
        """Tell what the judgement of an answer found; returns as ``tell_request`` does."""
        measured = {name: value for name, value in asdict(sample).items() if value is not None and name not in _GIVEN}
        told: dict[str, Any] = {"kind": Kind.WELL, "sample": measured}
        if sample.completeness is not None:
            told["completeness"] = sample.completeness
        return self._told(name, told)

    def tell_disagreement(self, name: str, endpoint: str, share: float) -> str:
        """Tell that a share of a provider's bars is wrong in the eyes of two others: it weighs as a request without an
        answer. Returns as ``tell_request`` does.
        """
        sample = {"endpoint": endpoint, "code": health.DISAGREED, "disagreement": share}
        return self._told(name, {"kind": Kind.ILL, "sample": sample})

    def _told(self, name: str, told: dict[str, Any]) -> str:
        told["sample"]["by"] = _me()
        keys = [*(f"{_ROOT}{name}{part}" for part in ("", ":samples", ":probe", ":rate")), _OUTBOX]
        document = orjson.dumps({**told, **self._terms, "provider": name})
        with translated_redis_errors():
            change: bytes = self._outcome(keys=keys, args=[_me(), document])
        return change.decode()

    def standings(self, providers: Mapping[str, Sequence[Rate]]) -> list[Standing]:
        """How each stands, in the order given; ``providers``: name -> its rates."""
        with translated_redis_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            for name in providers:
                pipe.hgetall(f"{_ROOT}{name}")
                pipe.hgetall(f"{_ROOT}{name}:rate")
            (seconds, micros), *found = pipe.execute()
        now_us = seconds * 1_000_000 + micros
        return [
            _standing(name, held, now_us, _budget(rates, spent, now_us))
            for (name, rates), held, spent in zip(providers.items(), found[::2], found[1::2], strict=True)
        ]

    def samples(self, name: str) -> list[Sample]:
        """The newest samples, the newest first."""
        with translated_redis_errors():
            return [_sample(orjson.loads(raw)) for raw in self._client.lrange(f"{_ROOT}{name}:samples", 0, -1)]

    def pause(self, name: str, pause: Pause | None) -> None:
        """Leave a provider aside, or (None) no longer. Idempotent. The record is PostgreSQL's (``store.providers``)."""
        with translated_redis_errors():
            if pause is None:
                self._client.hdel(f"{_ROOT}{name}", "paused")
            else:
                self._client.hset(f"{_ROOT}{name}", "paused", orjson.dumps(asdict(pause)))

    def keep_history(self, name: str, document: Mapping[str, Any]) -> None:
        """Add a snapshot to the last HISTORY of a provider."""
        key = f"{_ROOT}{name}:history"
        with translated_redis_errors():
            pipe = self._client.pipeline()
            pipe.lpush(key, orjson.dumps(document))
            pipe.ltrim(key, 0, HISTORY - 1)
            pipe.execute()

    def history(self, name: str) -> list[dict[str, Any]]:
        """The last snapshots of a provider, the oldest first."""
        with translated_redis_errors():
            return [orjson.loads(raw) for raw in reversed(self._client.lrange(f"{_ROOT}{name}:history", 0, -1))]

    def waiting_transitions(self, most: int = 100) -> dict[bytes, Transition | None]:
        """Transitions that wait to be put on record, the oldest first, by the very element that holds each.

        None: it cannot be read. They stay until ``forget_transitions``.
        """
        with translated_redis_errors():
            found: list[bytes] = self._client.lrange(_OUTBOX, 0, most - 1)  # type: ignore[assignment]
        return {raw: _readable(raw) for raw in found}

    def transitions(self) -> list[Transition]:
        """Those that wait and can be read, the oldest first."""
        return [each for each in self.waiting_transitions().values() if each is not None]

    def forget_transitions(self, elements: Iterable[bytes]) -> None:
        """Drop these: they are on record. By what they are and not by how many: two that drain at once take none of
        those that came meanwhile. Idempotent.
        """
        with translated_redis_errors():
            pipe = self._client.pipeline()
            for raw in elements:
                pipe.lrem(_OUTBOX, 0, raw)  # type: ignore[arg-type] # the driver's types know texts only
            pipe.execute()


_SHARES: Final = {
    name: share / (1 - health.BREAKER)
    for name, share in {
        "latency": health.LATENCY,
        "errors": health.ERRORS,
        "completeness": health.COMPLETENESS,
    }.items()
}
#: Fields of a sample that are given where it is kept.
_GIVEN: Final = ("at", "by")
#: Grants reach a vendor with a little delay, each with another: time by which a rate's window is made longer for it.
_JITTER: Final = 0.02
_JITTER_S: Final = 0.05


def spacing(rate: Rate) -> tuple[int, int]:
    """Microseconds between two requests and how many may go at once, so that no window holds more than the rate's.

    With a burst of b and a request each g after it, a window of T holds at most b + floor(T / g) (GCRA).
    """
    burst = max(1, rate.calls // 10)
    window_s = rate.per_s * (1 + _JITTER) + _JITTER_S
    return math.ceil(window_s * 1_000_000 / (rate.calls - burst + 1)), burst


def _me() -> str:
    return f"{_HOST}/{os.getpid()}"


_HOST: Final = socket.gethostname()


def _budget(rates: Sequence[Rate], spent: Mapping[bytes, bytes], now_us: int) -> int | None:
    """Requests that may go at once now; None: no limit."""
    if not rates:
        return None
    if int(spent.get(b"pen", 0)) > now_us:
        return 0
    left = []
    for number, (gap_us, burst) in zip(range(5, 5 + 2 * len(rates), 2), map(spacing, rates), strict=True):
        arrival = max(int(spent.get(f"t{number}".encode(), 0)), now_us)
        left.append((now_us + burst * gap_us - arrival) // gap_us)
    return max(0, min(left))


def _standing(name: str, held: Mapping[bytes, bytes], now_us: int, budget: int | None) -> Standing:
    circuit = Circuit(held.get(b"state", b"closed").decode())
    left_us = int(held.get(b"until_us", 0)) - now_us if circuit is Circuit.OPEN else 0
    paused = held.get(b"paused")
    return Standing(
        name=name,
        circuit=Circuit.HALF_OPEN if circuit is Circuit.OPEN and left_us <= 0 else circuit,
        parts=Parts(*(float(held.get(part, 1.0)) for part in (b"latency", b"errors", b"completeness"))),
        since=_at(int(held[b"since_us"]) / 1_000_000) if b"since_us" in held else None,
        retry_in_s=max(left_us, 0) / 1_000_000,
        run=int(held.get(b"run", 0)),
        opened=int(held.get(b"opened", 0)),
        requests=int(held.get(b"requests", 0)),
        pause=_pause(orjson.loads(paused)) if paused else None,
        budget=budget,
    )


def _pause(document: Mapping[str, Any]) -> Pause:
    return Pause(document["by"], document["reason"], datetime.fromisoformat(document["at"]))


def _sample(document: Mapping[str, Any]) -> Sample:
    given = {name: value for name, value in document.items() if name != "at_ms"}
    return Sample(at=_at(document["at_ms"] / 1000), **given)


def _readable(raw: bytes) -> Transition | None:
    try:
        return _transition(orjson.loads(raw))
    except (ValueError, TypeError, KeyError):  # of another version
        return None


def _transition(document: Mapping[str, Any]) -> Transition:
    rules = {name: value for name, value in document["rules"].items() if name != "cooldowns_ms"}
    return Transition(
        provider=document["provider"],
        at=_at(int(document["at_us"]) / 1_000_000),
        kind=document["kind"],
        parts=Parts(**document["parts"]),
        rules=Rules(**rules),
        run=document["run"],
        opened=document["opened"],
        samples=[_sample(each) for each in document["samples"]],
    )


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
