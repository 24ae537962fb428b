"""The policy as this process follows it: one frozen reference, swapped between two pieces of work, never inside one."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import psutil
from pydantic import ValidationError

from mdtasks.connections import Database, Redis, translated_redis_errors
from mdtasks.domain.errors import MdtasksError, UnavailableError
from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import Policy, check, effective
from mdtasks.store import canaries, policies
from mdtasks.store.policies import Version

log = logging.getLogger(__name__)

#: A process looks at the key in Redis this often at most, seconds.
EVERY_S: Final = 1.0
#: It reads PostgreSQL, whatever the key says, this often; and this often while Redis is away, seconds.
SURE_S: Final = 30.0
AWAY_S: Final = 5.0
#: It leaves word of the version that it runs this often, seconds.
WORD_S: Final = 10.0
#: Hash: process -> which version it runs, as JSON.
RUNNING_KEY: Final = "mdtasks:policy:running"


@dataclass(frozen=True, slots=True)
class Running:
    """What a process follows. ``policy``: with what its environment sets, ``overridden`` (path -> variable), in place
    of ``stored``, the version on record.
    """

    version: int
    hash: str
    policy: Policy
    stored: Policy
    overridden: Mapping[str, str]


class PolicyWatch:
    """Keeps the policy of a process current. ``refresh`` it where a piece of work begins, read ``current`` once, and
    work by what that was until the end.
    """

    def __init__(
        self,
        database: Database,
        state: Redis,
        environ: Mapping[str, str],
        *,
        process: str = "",
        serves: Tier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``environ``: the variables that override the policy here. ``process``: what it is called among those that
        leave word; "": it leaves none. ``serves``: the one tier whose jobs it runs, and whose canaries it tries.
        """
        self._database = database
        self._state = state
        #: The variables that override the policy here.
        self.environ = environ
        self._process = process
        self._serves = serves
        self._clock = clock
        self._looking = threading.Lock()
        self._next_s = self._sure_s = self._word_s = float("-inf")
        self._away = False
        self._error = ""
        self._refused: int | None = None
        self._since: datetime | None = None
        self._current = self._first()
        #: Makes ready what this process needs to work by a policy; what it raises is why it cannot.
        self.fit: Callable[[Running], None] = lambda _running: None

    @property
    def current(self) -> Running:
        """What holds in this process now."""
        return self._current

    @property
    def policy(self) -> Policy:
        """What holds in this process now, with what its environment sets."""
        return self._current.policy

    def is_due(self) -> bool:
        """Whether ``refresh`` would ask anybody."""
        return self._clock() >= self._next_s

    def refresh(self, now: datetime, *, at_once: bool = False) -> None:
        """Follow a newer version where there is one, and leave word of it. Never fails: while Redis is away PostgreSQL
        is asked, and while both are away, or where the new version cannot be followed here, the last good one holds.

        Does nothing at once after another call, unless it is asked to look ``at_once``, into PostgreSQL.
        """
        if not (at_once or self.is_due()) or not self._looking.acquire(blocking=at_once):
            return
        pause_s = AWAY_S
        try:
            told = self._told()
            if at_once or self._must_read(told):
                self._read(told, now)
            if told is not None:
                self._leave_word(now)
                pause_s = EVERY_S
            self._away = False
        except Exception as error:  # whatever it is, work goes on with what is known
            if not self._away:
                log.warning("the policy stays at version %d: %s", self._current.version, error)
            self._away = True
        finally:
            self._next_s = self._clock() + pause_s
            self._looking.release()

    def close(self) -> None:
        """Take this process off the list of those that follow the policy. When that fails it is missed by nobody."""
        if not self._process or self._word_s == float("-inf"):
            return
        try:
            with translated_redis_errors():
                self._state.hdel(RUNNING_KEY, self._process)
        except MdtasksError as error:
            log.debug("%s stays on the list: %s", self._process, error)

    def _first(self) -> Running:
        """What holds before anybody was asked."""
        version = policies.defaults()
        found = effective(Policy(), self.environ)
        return Running(0, version.hash, found.policy, Policy(), {} if found.wrongs else found.overridden)

    def _told(self) -> _Told | None:
        """What Redis tells of; None: it did not answer."""
        try:
            return _Told(*policies.announced(self._state))
        except MdtasksError:
            return None

    def _must_read(self, told: _Told | None) -> bool:
        if told is None or self._clock() >= self._sure_s:
            return True
        wanted = told.wanted_by(self._serves)
        return wanted is None or wanted not in (self._current.version, self._refused)

    def _read(self, told: _Told | None, now: datetime) -> None:
        """Follow what PostgreSQL has, and put the keys right where they say something else."""
        try:
            with self._database.transaction() as connection:
                number, canary = policies.holding(connection)
                wanted = canary.version if canary is not None and canary.tier is self._serves else number
                news = wanted not in (self._current.version, self._refused)
                found = policies.one(connection, wanted) if news else None
        except UnavailableError:
            if told is not None and self._sure_s == float("-inf"):  # it has only begun, and knows none but the defaults
                self._recall(now)
            raise
        if found is not None:
            self._follow(found, now)
        elif wanted == self._current.version:
            self._refused, self._error = None, ""
        if told is not None:
            if told.version != number:
                policies.announce(self._state, number, seen=-1 if told.version is None else told.version)
            if told.canary != (canary.told if canary is not None else ""):
                canaries.announce(self._state, canary)
            if self._current.version == number and (found is not None or told.version is None):
                policies.keep(self._state, number, self._current.stored)
        self._sure_s = self._clock() + SURE_S

    def _recall(self, now: datetime) -> None:
        """Follow the last version that some process followed, which Redis keeps, rather than the defaults."""
        kept = policies.kept(self._state)
        if kept is not None and kept.version != self._current.version:
            self._follow(kept, now)

    def _follow(self, newest: Version, now: datetime) -> None:
        """Swap the reference, or say why it stays."""
        self._word_s = min(self._word_s, self._clock())
        found, why = followed(newest, self.environ)
        if found is not None:
            try:
                self.fit(found)
            except Exception as error:  # an order that names a provider which only this process lacks, say
                found, why = None, str(error) or type(error).__name__
        if found is None:
            self._refused, self._error = newest.version, why
            log.error("policy %d cannot be followed, %d holds: %s", newest.version, self._current.version, why)
            return
        self._refused, self._error, self._since = None, "", now
        log.info("policy %d holds in place of %d", found.version, self._current.version)
        self._current = found

    def _leave_word(self, now: datetime) -> None:
        if not self._process or self._clock() < self._word_s:
            return
        self._since = self._since or now
        word = {
            "policy_version": self._current.version,
            "hash": self._current.hash,
            "since": self._since.isoformat(),
            "seen": now.isoformat(),
            "error": self._error,
            "refused": self._refused,
            "serves": self._serves,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }
        with translated_redis_errors():
            self._state.hset(RUNNING_KEY, self._process, orjson.dumps(word).decode())
        self._word_s = self._clock() + WORD_S


@dataclass(frozen=True, slots=True)
class _Told:
    """What Redis tells of: the version that holds (None: nothing), and the canary or ""."""

    version: int | None
    canary: str

    def wanted_by(self, serves: Tier | None) -> int | None:
        """The version for a process that serves one tier, or (None) not only one."""
        number, _, tier = self.canary.partition(":")
        return int(number) if serves is not None and tier == serves and number.isdigit() else self.version


def followed(version: Version, environ: Mapping[str, str]) -> tuple[Running | None, str]:
    """A version as a process with this environment follows it; or None, and why it cannot."""
    try:
        stored = Policy.model_validate(version.body)
    except ValidationError as exc:  # made by another version of mdtasks
        first = exc.errors(include_url=False, include_input=False)[0]
        return None, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    found = effective(stored, environ)
    wrongs = [*found.wrongs, *check(found.policy)]
    if wrongs:
        return None, str(wrongs[0])
    return Running(version.version, version.hash, found.policy, stored, found.overridden), ""


@dataclass(frozen=True, slots=True)
class Word:
    """What a process left of itself. Times are aware, UTC. ``refused``: the version that it could not follow, and
    ``error`` why; None: none. ``serves``: the one tier whose jobs it runs; None: not only one.
    """

    process: str
    version: int
    hash: str
    since: datetime
    seen: datetime
    error: str
    refused: int | None
    serves: str | None = None


def words(state: Redis, now: datetime) -> list[Word]:
    """Which processes follow which version. Those that are gone are forgotten: those of this machine that no longer
    run, and any that nobody has heard of for a day. Raises BrokerUnavailableError.
    """
    with translated_redis_errors():
        found: dict[bytes, bytes] = state.hgetall(RUNNING_KEY)  # type: ignore[assignment]
    told = {name: orjson.loads(raw) for name, raw in found.items()}
    gone = [name for name, said in told.items() if _is_gone(said, now)]
    if gone:
        with translated_redis_errors():
            state.hdel(RUNNING_KEY, *gone)
    return sorted((_word(name, said) for name, said in told.items() if name not in gone), key=lambda w: w.process)


def _word(name: bytes, said: Mapping[str, Any]) -> Word:
    since, seen = (datetime.fromisoformat(said[field]).astimezone(UTC) for field in ("since", "seen"))
    told = (said["policy_version"], said["hash"], since, seen, said["error"], said.get("refused"), said.get("serves"))
    return Word(name.decode(), *told)


def _is_gone(said: Mapping[str, Any], now: datetime) -> bool:
    if (now - datetime.fromisoformat(said["seen"])).total_seconds() > 86_400:
        return True
    if said["host"] != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(said["pid"]).create_time() - float(said["started"])) > 2
    except psutil.NoSuchProcess:
        return True


def process_name(application: str) -> str:
    """How a process calls itself among those that follow the policy: ``worker@host/1234``; "" for a command."""
    kind = application.removeprefix("mdtasks-").removesuffix(f"-{os.getpid()}")
    return "" if kind == "cli" else f"{kind}@{socket.gethostname()}/{os.getpid()}"
