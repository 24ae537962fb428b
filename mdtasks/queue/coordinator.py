"""The Redis lists that an outside rate-limit coordinator pushes jobs to, and what intakes take from them.

A coordinator LPUSHes; the right end is taken first, so the oldest comes first. What is taken stays in Redis, held by
the intake that took it, until that one is done with it. An intake that is not heard of for LEASE_S has died: the next
one that takes anything gets what it held too, under the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from uuid import uuid4

from mdtasks.connections import Redis, load_script, open_redis, translated_redis_errors
from mdtasks.settings import Settings

TAKE: Final = load_script("mdtasks.queue", "take.lua")
#: An intake that took nothing for so long has died, seconds. One that only slept does no harm: what it does is
#: idempotent.
LEASE_S: Final = 15
#: Most elements an intake holds: a transaction's worth.
BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Taken:
    """An element of a list: ``token`` names it until it is done with, whoever holds it; ``source``: its list."""

    token: str
    source: str
    raw: bytes


class Coordinator:
    """The lists as one intake sees them, under a name of its own that nobody had before."""

    def __init__(self, client: Redis, keys: dict[str, str]) -> None:
        self._client = client
        self._keys = keys
        self._name = uuid4().hex
        self._rounds = count()
        self._leases = f"{keys['jobs']}:intakes"
        self._prefix = f"{keys['jobs']}:held:"
        self._take = client.register_script(TAKE)

    def take(self) -> list[Taken]:
        """What this intake holds, with what it could take now, at most BATCH unless others died; the oldest first.

        Renews the lease. Raises BrokerUnavailableError; what was taken then is in the next answer.
        """
        args: list[Any] = [
            self._name,
            LEASE_S,
            BATCH,
            f"{self._name}.{next(self._rounds):08d}.",
            self._prefix,
            *self._keys,
        ]
        with translated_redis_errors():
            found: Any = self._take(keys=[self._leases, self._prefix + self._name, *self._keys.values()], args=args)
        held = sorted(zip(found[::2], found[1::2], strict=True))
        parts = ((token.decode(), *value.split(b" ", 1)) for token, value in held)
        return [Taken(token, source.decode(), raw) for token, source, raw in parts]

    def settle(self, done: Sequence[Taken]) -> None:
        """Forget elements that were dealt with. By their tokens: a call to take that came late may have added others.

        Raises BrokerUnavailableError; they are then dealt with again.
        """
        with translated_redis_errors():
            self._client.hdel(self._prefix + self._name, *(each.token for each in done))

    def leave(self) -> None:
        """Go in good order. What is still held is for the next intake at once. Raises BrokerUnavailableError."""
        with translated_redis_errors():
            self._client.zadd(self._leases, {self._name: 0})

    def depths(self) -> dict[str, int]:
        """Elements that wait in each list, and those that are ``held``. Raises BrokerUnavailableError."""
        with translated_redis_errors():
            names: list[bytes] = self._client.zrange(self._leases, 0, -1)  # type: ignore[assignment]
            pipe = self._client.pipeline(transaction=False)
            for key in self._keys.values():
                pipe.llen(key)
            for name in names:
                pipe.hlen(self._prefix + name.decode())
            lengths = pipe.execute()
        return {**dict(zip(self._keys, lengths, strict=False)), "held": sum(lengths[len(self._keys) :])}

    def close(self) -> None:
        """Close its connection. It opens a new one when it is used again."""
        self._client.close()


def open_coordinator(settings: Settings) -> Coordinator:
    """The coordinator's lists for these settings. Connects at first use.

    Raises StackNotRunningError without a URL, ConfigurationError when it is none.
    """
    setting = "MDTASKS_REDIS_URL" if settings.rlc_redis_url is None else "RLC_REDIS_URL"
    return Coordinator(open_redis(settings.require_rlc_url(), setting=setting), settings.rlc_keys)
