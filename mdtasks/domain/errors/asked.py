"""What is wrong with what the caller asked for, or may not ask for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Final

from mdtasks.domain.errors.base import MdtasksError


class InvalidRequestError(MdtasksError):
    """A request with a wrong value: ``field`` names it."""

    code = "invalid_request"
    http_status = 422
    exit_code = 2

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "field": self.field}


class UnknownSymbolError(InvalidRequestError):
    """A symbol that no instrument bears now, bore ``on`` a day, or bore as far as was known ``as_of`` an instant.

    ``called``: what those are called that had one of the symbols and gave it up; as of an instant, what those were
    called then that bear one now. ``known``: symbols that are like the first.
    """

    code = "unknown_symbol"

    def __init__(
        self,
        symbols: list[str],
        *,
        known: Sequence[str] = (),
        on: date | None = None,
        as_of: datetime | None = None,
        called: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        named = ", ".join(symbols[:5]) + (f" and {len(symbols) - 5} more" if len(symbols) > 5 else "")
        when = f" on {on}" if on is not None else "" if as_of is None else f" as of {as_of.isoformat()}"
        close = f"; did you mean {', '.join(known[:3])}?" if known and not called else ""
        hint = f"add it with `mdtasks universe add {symbols[0]} --mic XNYS`, or see `mdtasks universe list`"
        if on is not None:
            hint = f"`mdtasks universe symbols {symbols[0]}` shows who bore it when"
        elif called:
            is_called, then = ("is called", "now") if as_of is None else ("was called", "then")
            hint = ", ".join(f"{one} {is_called} {other} {then}" for one, other in list(called.items())[:5])
            hint += ": ask for that"
        elif as_of is not None:
            hint = "nothing was known of it then: leave as_of out, or give a later one; `mdtasks universe list --as-of`"
            hint += " shows whom the universe followed"
        super().__init__(f"unknown symbol {named}{when}{close}", field="symbol", hint=hint)
        self.symbols = symbols


#: What gives a process providers, for people who have none.
PROVIDER_SETTINGS: Final = (
    "MDTASKS_FILES_MAP, MDTASKS_LEAN_DIR, MDTASKS_SIMULATOR=1, MDTASKS_YFINANCE=1 or a vendor's key, such as "
    "MDTASKS_ALPACA_KEY (docs/providers.md lists them)"
)


class UnknownProviderError(InvalidRequestError):
    """A provider that does not exist or is not configured here."""

    code = "unknown_provider"

    def __init__(self, provider: str, *, configured: list[str]) -> None:
        near = difflib.get_close_matches(provider, configured, n=1)
        super().__init__(
            f"provider {provider!r} is not configured"
            + (f"; did you mean {near[0]}?" if near else "")
            + f"; configured: {', '.join(configured) or 'none'}",
            field="provider",
            hint="`mdtasks providers` lists those that there are"
            if near
            else f"to have it, set {PROVIDER_SETTINGS}, then `mdtasks doctor`",
        )
        self.provider = provider


class UnknownJobError(InvalidRequestError):
    """A message for a backfill that has no row: somebody pushed it past the enqueue. Nobody could claim it."""

    code = "unknown_job"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"there is no job {job_id}, only a message",
            field="job_id",
            hint="enqueue through `mdtasks backfill` or POST /ops/backfill: they write the row first",
        )


class NotFoundError(MdtasksError):
    """What was asked for is not there."""

    code = "not_found"
    http_status = 404
    exit_code = 3


class ConflictError(MdtasksError):
    """The thing is there, but not in a state that allows this."""

    code = "conflict"
    http_status = 409
    exit_code = 4


class InvalidPolicyError(InvalidRequestError):
    """A candidate that may not become the policy. ``errors``: each with its path, value, rule and line.

    Nothing was changed: the policy that runs goes on.
    """

    code = "invalid_policy"

    def __init__(self, errors: list[dict[str, object]], said: list[str]) -> None:
        first = f"{len(said)} errors, the first: {said[0]}" if len(said) > 1 else said[0]
        super().__init__(
            f"the policy is refused: {first}",
            field=str(errors[0]["path"]) or "policy",
            hint="nothing was changed; docs/policy.md has every field with its bounds",
        )
        self.errors = errors
        self.said = said

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "errors": self.errors}


class PolicyChangedError(ConflictError):
    """Somebody else changed the policy meanwhile; ``version`` is the newest one. This request changed nothing."""

    code = "policy_changed"

    def __init__(self, version: int, *, expected: int, by: str, at: str) -> None:
        who = f", applied by {by} on {at} UTC" if by else ""
        super().__init__(
            f"the policy is at version {version}{who}, not at {expected}: nothing was changed",
            hint="`mdtasks policy diff` shows what yours would change now; then apply it again",
        )
        self.version = version

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "policy_version": self.version}


class CanaryError(ConflictError):
    """The policy cannot be changed while the workers of a tier try ``version``. This request changed nothing."""

    code = "policy_canary"

    def __init__(self, version: int, tier: str, *, by: str) -> None:
        super().__init__(
            f"the workers of {tier} try policy {version}, applied by {by}: nothing was changed",
            hint="`mdtasks policy canary` shows how it does, `policy canary stop` and `policy canary promote` end it",
        )
        self.version = version


class TooManyMoveError(ConflictError):
    """A version of the universe moves more of the members for the worse than the policy lets unseen. It was not
    activated; a person may say that it shall be.
    """


class TooManyLeaveError(TooManyMoveError):
    """More of the members would leave."""

    code = "too_many_leave"

    def __init__(self, tag: str, *, leaving: int, held: int, most: float, some: list[str]) -> None:
        names = f" ({', '.join(some)}{', …' if leaving > len(some) else ''})"
        super().__init__(
            f"{leaving:,} of {held:,} members{names} would leave with {tag}, more than universe.most_leave"
            f" ({most:g}) lets: nothing was changed",
            hint=f"was its listing cut off? `mdtasks universe diff ACTIVE {tag}` shows who leaves; --force (force: true"
            " over HTTP) lets it hold all the same",
        )
        self.tag, self.leaving, self.held = tag, leaving, held

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "leaving": self.leaving, "held": self.held}


@dataclass(frozen=True, slots=True)
class Down:
    """How many of a tier's members would go down, of how many that its size ``kept`` there of those that it ``held``.
    Those whom a smaller size puts out, the lowest, are in neither.
    """

    down: int
    kept: int
    held: int

    def of(self, tier: str) -> str:
        """As a refusal says it."""
        best = "" if self.kept == self.held else "best "
        return f"{self.down:,} of {self.kept:,} {best}members of {tier}"


class TooManyGoDownError(TooManyMoveError):
    """More of a tier's members would go down from it than may. ``down``: by tier."""

    code = "too_many_go_down"

    def __init__(self, tag: str, *, down: Mapping[str, Down], most: float, some: list[str]) -> None:
        told = " and ".join(each.of(tier) for tier, each in down.items())
        total = sum(each.down for each in down.values())
        super().__init__(
            f"{told} ({', '.join(some)}{', …' if total > len(some) else ''}) would go down a tier with"
            f" {tag}, more than universe.most_leave ({most:g}) lets: nothing was changed",
            hint=f"are its closes and volumes right? `mdtasks universe diff ACTIVE {tag}` shows who goes down; --force"
            " (force: true over HTTP) lets it hold all the same",
        )
        self.tag, self.down = tag, dict(down)

    def as_dict(self) -> dict[str, object]:
        down = {tier: {"down": each.down, "held": each.kept} for tier, each in self.down.items()}
        return {**super().as_dict(), "down": down}


class UnauthorizedError(MdtasksError):
    """A request over HTTP that needs the API token and bears none, or a wrong one."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(MdtasksError):
    """A request over HTTP that comes from where it may not: another machine without a token, another site's page."""

    code = "forbidden"
    http_status = 403


class BodyTooLargeError(InvalidRequestError):
    """A request's body over the limit; it was not read to its end."""

    code = "body_too_large"
    http_status = 413


class MediaTypeError(InvalidRequestError):
    """A request's body that does not say it is JSON."""

    code = "media_type"
    http_status = 415


class ConfigurationError(MdtasksError):
    """A setting that is missing, unknown or wrong: ``name`` is its environment variable."""

    code = "configuration"
    exit_code = 2

    def __init__(self, message: str, *, name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class CannotAdjustError(ConflictError):
    """Bars cannot be adjusted as asked: an action, or a close that it goes by, is missing or makes no sense."""

    code = "cannot_adjust"


class StackNotRunningError(ConfigurationError):
    """No stack runs in this home and no URL of one was given."""

    code = "stack_not_running"
    exit_code = 5

    def __init__(self, home: str) -> None:
        super().__init__(
            f"no mdtasks stack runs in {home}",
            name="MDTASKS_HOME",
            hint="start one with `mdtasks up`, or point --home (or MDTASKS_DATABASE_URL and MDTASKS_REDIS_URL) at one",
        )
        self.home = home
