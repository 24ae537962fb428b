"""What acceptance tests share that only use their servers: a Redis and a PostgreSQL for the page, deps on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mdtasks.flows.deps import Deps, open_deps
from tests.acceptance.harness import Servers, own_servers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A Redis and a PostgreSQL for this page."""
    with own_servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture
def deps(servers: Servers) -> Iterator[Deps]:
    """Deps on them, the queues empty."""
    opened = open_deps(servers.settings(), application="tests")
    opened.broker.flushall()
    yield opened
    opened.close()
