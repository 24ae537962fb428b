"""The overview in a real browser: what a stranger sees in five seconds, live."""

from __future__ import annotations

from datetime import UTC, datetime

from mdtasks.flows import monitor, presence
from mdtasks.flows.deps import Deps
from mdtasks.flows.dispatch import reconcile_once
from tests.browser.looking import Console
from tests.integration.web_server import asked, dies, waiting_ids


def _all_runs(deps: Deps) -> None:
    """What beat and workers would leave."""
    now = datetime.now(UTC)
    reconcile_once(deps, now)
    monitor.run_once(deps, now)
    presence.tick_arrived(deps, now)
    presence.worker_seen(deps.state, "t0@here", now)


def test_a_stack_that_is_well_says_so(console: Console, deps: Deps) -> None:
    _all_runs(deps)
    page = console.page()
    page.goto("/")
    assert page.title().startswith("\N{CHECK MARK}")
    assert page.get_by_role("heading", level=1).inner_text() == "All is well"
    console.looked_at("/", "overview-well")


def test_what_is_wrong_is_named_with_where_to_go_on_and_comes_by_itself(console: Console, deps: Deps) -> None:
    _all_runs(deps)
    page = console.page()
    page.goto("/")
    page.get_by_text("Live.").wait_for()
    asked(console.client)
    dies(deps, waiting_ids(deps.broker)[0])
    page.get_by_text("1 dead letter is open", exact=True).wait_for()
    assert page.title() == "! 1 \N{MIDDLE DOT} mdtasks"
    page.get_by_role("link", name="about: 1 dead letter is open").click()
    page.wait_for_url("**/console/dead-letters")
    console.looked_at("/", "overview-letter")
