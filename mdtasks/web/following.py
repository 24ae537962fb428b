"""How the web app follows the policy: it looks each second, and a SIGHUP makes the policy's file the one that holds."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
from anyio.to_thread import run_sync
from starlette.types import ASGIApp, Receive, Scope, Send

from mdtasks.domain.errors import InvalidPolicyError, MdtasksError
from mdtasks.flows import policies
from mdtasks.flows.deps import Deps
from mdtasks.flows.following import Follower
from mdtasks.flows.policies import Asked
from mdtasks.flows.policy_facts import desk_of
from mdtasks.flows.policy_watch import EVERY_S

log = logging.getLogger(__name__)


class Followed:
    """Gives each request the Deps that hold when it begins, as ``request.state.deps``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if follower := scope.get("state", {}).get("follower"):
            scope["state"]["deps"] = follower.deps
        await self._app(scope, receive, send)


@asynccontextmanager
async def following(follower: Follower) -> AsyncIterator[None]:
    """While this lasts the process follows the policy, and a SIGHUP reloads its file."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_look, follower)
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            tasks.start_soon(_hear, follower)
        yield
        tasks.cancel_scope.cancel()


async def _look(follower: Follower) -> None:
    alone = anyio.CapacityLimiter(1)  # a server that does not answer takes no place from the requests
    while True:
        await run_sync(follower.refresh, datetime.now(UTC), limiter=alone)
        await anyio.sleep(EVERY_S)


async def _hear(follower: Follower) -> None:
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            await run_sync(reload_file, follower.deps)


def reload_file(deps: Deps) -> None:
    """Make the policy's file the one that holds; what is wrong with it is logged, and nothing is changed then."""
    desk, now = desk_of(deps), datetime.now(UTC)
    try:
        data, path = policies.read_own_file(desk)
        asked = Asked(f"SIGHUP@{socket.gethostname()}", f"SIGHUP: {path}")
        outcome = policies.apply(desk, data, asked, now)
    except InvalidPolicyError as error:
        log.error("SIGHUP: nothing was changed, the file is refused: %s", "; ".join(error.said))  # noqa: TRY400
    except MdtasksError as error:
        log.error("SIGHUP: nothing was changed: %s", error)  # noqa: TRY400
    else:
        log.info("SIGHUP: policy %d %s", outcome.version.version, "made" if outcome.changed else "holds already")
        deps.policy.refresh(now, at_once=True)
