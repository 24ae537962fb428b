"""What integration tests share beyond ``tests/conftest.py``: commands, called in this process, and the web app."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from mdtasks.flows.deps import Deps, open_deps
from mdtasks.flows.policy_facts import Desk, desk_of
from mdtasks.observe.metrics import use_multiprocess_dir
from mdtasks.settings import Settings
from tests.integration.cli_calls import Cli, environment_of
from tests.integration.policy_calls import Clock
from tests.integration.web_server import opened, served


@pytest.fixture
def cli(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Cli]:
    """Calls commands in this process, on the test's own servers."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    yield Cli(settings, capsysbinary, monkeypatch)
    use_multiprocess_dir(None)  # the command counted into the test's home


@pytest.fixture
def cli_deps(settings: Settings) -> Iterator[Deps]:
    """What a worker beside the commands would have."""
    opened = open_deps(settings, application="tests")
    yield opened
    opened.close()


@pytest.fixture
def deps(settings: Settings) -> Iterator[Deps]:
    """Deps beside the web app's own, with two instruments that always trade."""
    with opened(settings) as found:
        yield found


@pytest.fixture
def client(settings: Settings, deps: Deps) -> Iterator[httpx.Client]:
    """A client of the web app, on the same servers as ``deps``."""
    with served(settings) as found:
        yield found


@pytest.fixture
def desk(deps: Deps) -> Desk:
    """Where policies are judged, with the servers of the test."""
    return desk_of(deps)


@pytest.fixture
def clock() -> Clock:
    """A clock that the test moves."""
    return Clock()
