"""Faults on demand for the simulator: which call fails and which bar is spoilt, drawn by hash, never by chance.

A call's fate follows from (seed, fault, symbols, interval, window, now): the same call fails alike in every process,
and a retry, which comes at another ``now``, is drawn anew. No counter is kept, so a worker that was killed and
started again does not repeat the first draw for ever.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import signal
import time
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtasks.domain.bars import Bars
from mdtasks.domain.errors import (
    ConfigurationError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitedError,
    VendorError,
)

_ENV: Final = "MDTASKS_SIMULATOR_FAULTS"
_SHARES: Final = frozenset({"error", "rate_limit", "timeout", "missing", "silent", "wrong"})
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Shares are probabilities in [0, 1]; symbol sets are written ``AAPL|MSFT``."""

    #: Share of calls answered with a server error (retryable).
    error: float = 0.0
    #: Share of calls answered with 429, and the pause it asks for, seconds.
    rate_limit: float = 0.0
    retry_after_s: float = 1.0
    #: Share of calls that time out.
    timeout: float = 0.0
    #: Real pause of each call, seconds.
    latency_s: float = 0.0
    #: Share of bars left out of one answer; a later call has them.
    missing: float = 0.0
    #: Share of bars that never are: nobody traded.
    silent: float = 0.0
    #: Share of bars spoilt in one answer: high below low, NaN, doubled, off the grid; a later call has them right.
    wrong: float = 0.0
    #: The symbols that all of the above applies to; empty: all.
    only: frozenset[str] = frozenset()
    #: Symbols whose calls hang, and for how long, seconds.
    hang: frozenset[str] = frozenset()
    hang_s: float = 3600.0
    #: Symbols whose calls kill the process with SIGKILL.
    crash: frozenset[str] = frozenset()
    #: Symbols that the simulator does not know.
    unknown: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Faults from ``name=value,name=value``. Raises ConfigurationError on an unknown name or a wrong value."""
        known = [f.name for f in fields(cls)]
        values: dict[str, float | frozenset[str]] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, value = (p.strip() for p in part.partition("="))
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise _refusal(f"unknown fault {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
            if name in values:
                raise _refusal(f"{name} is given twice")
            values[name] = frozenset(filter(None, value.split("|"))) if name in _SYMBOLS else _number(name, value)
        if "hang_s" in values and not values.get("hang"):
            raise _refusal("hang_s needs hang=SYMBOL: the symbols whose calls hang")
        return cls(**values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """As they are written in the setting; "" when nothing goes wrong."""
        changed = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return ",".join(f"{n}={'|'.join(sorted(v)) if isinstance(v, frozenset) else f'{v:g}'}" for n, v in changed)

    def affects(self, symbol: str) -> bool:
        """Whether the faults of shares and latency apply to the symbol."""
        return not self.only or symbol in self.only


_SYMBOLS: Final = frozenset(f.name for f in fields(Faults) if isinstance(f.default, frozenset))


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= (1 if name in _SHARES else 86_400):
        rule = "a share from 0 to 1" if name in _SHARES else "seconds from 0 to 86400"
        raise _refusal(f"{name}={value} is not {rule}")
    return number


def _refusal(what: str) -> ConfigurationError:
    return ConfigurationError(f"{_ENV}: {what}", name=_ENV, hint="docs/providers.md lists the faults")


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 of each number (Steele, Lea, Flood 2014): whole-number arithmetic, alike on every platform."""
    z = np.atleast_1d(numbers) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in [0, 1) of each hash: its upper 53 bits."""
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def key(*parts: object) -> np.uint64:
    """A 64-bit hash of the parts' text, the same in every process (unlike ``hash``)."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "big"))


def drawn(at_us: NDArray[np.int64], *parts: object) -> NDArray[np.float64]:
    """A number in [0, 1) of each time, by the hash of the parts, shape (n,)."""
    return unit(mixed(mixed(at_us.astype(np.uint64)) ^ key(*parts)))


def suffer(faults: Faults, symbols: list[str], call: tuple[object, ...], *, provider: str) -> None:
    """Let a call meet its fate: crash, hang, pause, or raise the ProviderError drawn for it; else return.

    ``call`` is all that tells this call from others (seed, interval, window, now).
    """
    if faults.crash.intersection(symbols):
        os.kill(os.getpid(), signal.SIGKILL)
    if faults.hang.intersection(symbols):
        time.sleep(faults.hang_s)
    affected = sorted(symbol for symbol in symbols if faults.affects(symbol))
    if not affected:
        return
    if faults.latency_s:
        time.sleep(faults.latency_s)
    errors: dict[str, ProviderError] = {
        "timeout": ProviderTimeoutError("no answer in time (simulated)", provider=provider),
        "rate_limit": RateLimitedError("429 (simulated)", provider=provider, retry_after_s=faults.retry_after_s),
        "error": VendorError("500 (simulated)", provider=provider),
    }
    for name, error in errors.items():
        if float(unit(mixed(np.array([key(name, *call, *affected)])))[0]) < getattr(faults, name):
            raise error


def spoilt(bars: Bars, faults: Faults, symbol: str, call: tuple[object, ...], seed: int) -> Bars:
    """The bars as a faulty vendor would send them: some left out, some wrong."""
    if not faults.affects(symbol) or not len(bars):
        return bars
    absent = (drawn(bars.ts_us, "silent", seed, symbol) < faults.silent) | (
        drawn(bars.ts_us, "missing", *call, symbol) < faults.missing
    )
    bars = bars.take(~absent)
    bad = drawn(bars.ts_us, "wrong", *call, symbol) < faults.wrong
    if not bad.any():
        return bars
    kind = (drawn(bars.ts_us, "kind", *call, symbol) * 4).astype(np.int64)
    ts_us, high, close = bars.ts_us.copy(), bars.high.copy(), bars.close.copy()
    high[bad & (kind == 0)] = bars.low[bad & (kind == 0)] - 1.0
    close[bad & (kind == 1)] = np.nan
    ts_us[bad & (kind == 2)] += 1_000_000
    wrong = Bars(ts_us, bars.open, high, bars.low, close, bars.volume)
    return Bars.concat([wrong, wrong.take(bad & (kind == 3))])
