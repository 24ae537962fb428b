"""`mdtasks dlq` and `mdtasks requeue`: what died is seen whole, and sent again exactly as it was shown."""

from __future__ import annotations

import argparse
from uuid import uuid4

import pytest
from sqlalchemy import text

from mdtasks.cli.dlq import add_parser
from mdtasks.cli.frame import Commands
from mdtasks.flows import letters
from mdtasks.flows.deps import Deps
from mdtasks.providers.faults import Faults
from mdtasks.providers.simulator import SimulatorProvider
from mdtasks.queue.letters import Reason
from mdtasks.store.letters import LEAST_DAYS, MOST_DAYS, PURGE_DAYS
from mdtasks.web.deadletters import PurgeQuery
from tests.integration.cli_calls import Cli, work


@pytest.fixture
def dead(cli: Cli, cli_deps: Deps) -> Cli:
    """Commands on a stack with dead backfills: two of BAD in T2, one of WORSE in T0."""
    cli_deps.registry._providers["simulator"] = SimulatorProvider(cli_deps.calendars, Faults.parse("unknown=BAD|WORSE"))
    cli("universe", "add", "BAD", "--mic", "24/7", "--tier", "T2")
    cli("universe", "add", "WORSE", "--mic", "24/7", "--tier", "T0")
    cli("backfill", "BAD", "--start", "2026-11-02", "--end", "2026-11-04")
    cli("backfill", "WORSE", "--start", "2026-11-02", "--end", "2026-11-03")
    assert work(cli_deps) == 3
    return cli


def ids(cli: Cli, *filters: str) -> list[str]:
    """The jobs of the open letters."""
    return [letter["job_id"] for letter in cli("dlq", "list", *filters, "--json").json]


def statuses(cli: Cli) -> dict[str, str]:
    """Each job's status by its id."""
    return {job["id"]: job["status"] for job in cli("jobs", "--json").json}


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 3),
        (("--tier", "T2"), 2),
        (("--symbol", "WORSE"), 1),
        (("--provider", "simulator"), 3),
        (("--provider", "files"), 0),
        (("--error", "no_data", "--tier", "t0"), 1),
        (("--since", "1h"), 3),
        (("--since", "2999-01-01"), 0),
        (("--kind", "others"), 0),
        (("--limit", "2"), 2),
    ],
)
def test_letters_are_listed_by_filter(dead: Cli, filters: tuple[str, ...], count: int) -> None:
    assert len(ids(dead, *filters)) == count
    lines = dead("dlq", "list", *filters).out.splitlines()
    assert len(lines) == (count + 1 if count else 0)


def test_a_letter_is_shown_with_history_payload_and_traceback(dead: Cli) -> None:
    (job,) = ids(dead, "--tier", "T0")
    shown = dead("dlq", "show", job).out
    for part in ("no_data: simulator: no symbol WORSE", "t0@test/1", "Traceback: ", "WORSE"):
        assert part in shown
    whole = dead("dlq", "show", job, "--json").json
    assert [attempt["outcome"] for attempt in whole["history"]] == ["failed"]
    assert dead("dlq", "show", whole["id"]).code == 0
    assert dead("dlq", "show", "nothing").code == 3


def test_poison_is_shown_as_it_was_on_the_wire(cli: Cli, cli_deps: Deps) -> None:
    letter = str(uuid4())
    letters.record(
        letters.Dead(letter, "\x1b[2Jnot an envelope", Reason("undecodable", "cannot be read"), "T1"), cli_deps
    )
    shown = cli("dlq", "show", letter).out
    assert "not an envelope" in shown
    assert "\x1b" not in shown
    assert [each["id"] for each in cli("dlq", "list", "--kind", "others", "--json").json] == [letter]
    refused = cli("requeue", letter)
    assert (refused.code, "it cannot be read as a job" in refused.err) == (3, True)


def test_letters_are_grouped_and_counted(dead: Cli) -> None:
    (group,) = dead("dlq", "groups", "--json").json
    assert (group["letters"], group["symbols"], group["error_class"]) == (3, 2, "no_data")
    assert "no_data" in dead("dlq", "groups").out
    stats = dead("dlq", "stats", "--json").json
    assert (stats["open"], stats["backfills"], stats["in_queue"]) == (3, 3, 0)


def test_a_requeue_acts_on_exactly_the_set_it_showed(dead: Cli, cli_deps: Deps) -> None:
    planned = dead("dlq", "requeue", "--tier", "T2", "--dry-run")
    plan = planned.out.split()[1].rstrip(":")
    assert "2 letters" in planned.out
    assert "T2: 2, room for 40,000 under the cap" in planned.out
    shown = ids(dead, "--tier", "T2")
    # Another one dies after the plan was shown.
    dead("backfill", "BAD", "--start", "2026-10-01", "--end", "2026-10-02")
    work(cli_deps)
    assert len(ids(dead, "--tier", "T2")) == 3
    assert dead("dlq", "requeue", "--plan", plan, "--yes").out.endswith("\n2 requeued\n")
    after = statuses(dead)
    assert {after[job] for job in shown} == {"queued"}
    assert len(ids(dead, "--tier", "T2")) == 1
    again = dead("dlq", "requeue", "--plan", plan, "--yes")
    assert (again.code, again.out) == (0, "this plan was carried out before: 2 requeued\n")


def test_without_a_terminal_a_requeue_needs_yes_and_keeps_its_plan(dead: Cli) -> None:
    refused = dead("dlq", "requeue", "--all")
    assert refused.code == 2
    assert "there is no terminal to ask at" in refused.err
    assert set(statuses(dead).values()) == {"failed"}
    command = refused.err.splitlines()[-1].split("`")[1].split()
    assert dead(*command[1:]).out.endswith("\n3 requeued\n")


@pytest.mark.parametrize(("typed", "code", "status"), [("y\n", 0, "queued"), ("\n", 2, "failed"), ("", 2, "failed")])
def test_at_a_terminal_it_asks_and_only_a_yes_is_one(dead: Cli, typed: str, code: int, status: str) -> None:
    asked = dead("dlq", "requeue", "--all", typed=typed)
    assert "requeue 3? [y/N] " in asked.err
    assert asked.code == code
    assert set(statuses(dead).values()) == {status}


def test_letters_are_requeued_by_their_jobs_or_all_or_none(dead: Cli) -> None:
    (job,) = ids(dead, "--tier", "T0")
    assert dead("dlq", "requeue", job, "nothing", "--yes").code == 3
    assert statuses(dead)[job] == "failed"
    done = dead("dlq", "requeue", job, "--yes", "--json").json
    assert (done["requeued"], done["skipped"]) == (1, 0)
    assert statuses(dead)[job] == "queued"


@pytest.mark.parametrize("words", [(), ("--all", "--tier", "T0"), ("some-id", "--all"), ("--plan", "nothing")])
def test_a_requeue_of_nothing_or_of_two_things_is_refused(dead: Cli, words: tuple[str, ...]) -> None:
    refused = dead("dlq", "requeue", *words, "--yes")
    assert refused.code == (3 if "--plan" in words else 2)
    assert refused.err.splitlines()[1].startswith("hint: ")
    assert set(statuses(dead).values()) == {"failed"}


def test_one_job_is_requeued_once(dead: Cli, cli_deps: Deps) -> None:
    (job,) = ids(dead, "--tier", "T0")
    assert dead("requeue", job).out == f"{job} requeued\n"
    twice = dead("requeue", job)
    assert (twice.code, "is not failed" in twice.err) == (3, True)
    assert dead("requeue", "nothing").code == 3
    work(cli_deps)
    history = dead("jobs", "show", job, "--json").json["history"]
    assert [attempt["outcome"] for attempt in history] == ["failed", "failed"]


def age_letters(deps: Deps, days: int) -> None:
    """Let every letter be so many days old."""
    with deps.database.transaction() as connection:
        connection.execute(
            text("UPDATE dead_letters SET died_at = now() - make_interval(days => :days)"), {"days": days}
        )


def test_a_purge_shows_what_it_would_delete_and_leaves_an_audit_row(dead: Cli, cli_deps: Deps) -> None:
    assert dead("dlq", "purge", "--days", "1").out == "0 letters purged: none is older than 1 day\n"
    age_letters(cli_deps, 2)
    looked = dead("dlq", "purge", "--days", "1", "--dry-run")
    assert (looked.code, looked.out.splitlines()[1].split()[:4]) == (0, ["3", "open", "no_data", "simulator"])
    assert "3 jobs that failed would be given up" in looked.err
    assert dead("dlq", "purge", "--days", "1", "--dry-run", "--json").json["would_purge"] == 3
    refused = dead("dlq", "purge", "--days", "1")
    assert (refused.code, "`mdtasks dlq purge --days 1 --yes` does it" in refused.err) == (2, True)
    assert "no_data" in refused.out
    assert len(ids(dead)) == 3
    purged = dead("dlq", "purge", "--days", "1", "--yes", "--json").json
    assert purged["purged"] == 3
    with cli_deps.database.transaction() as connection:
        row = connection.execute(text("SELECT actor, details FROM audit_log WHERE action = 'dlq.purge'")).all()[-1]
    assert (row.actor, row.details["count"]) == (purged["by"], 3)
    assert set(statuses(dead).values()) == {"cancelled"}


def test_a_purge_at_a_terminal_asks_and_takes_what_is_older_than_30_days(dead: Cli, cli_deps: Deps) -> None:
    age_letters(cli_deps, 29)
    assert dead("dlq", "purge").out == "0 letters purged: none is older than 30 days\n"
    age_letters(cli_deps, 31)
    asked = dead("dlq", "purge", typed="no\n")
    assert (asked.code, "delete 3 letters older than 30 days? [y/N] " in asked.err) == (2, True)
    assert len(ids(dead)) == 3
    assert dead("dlq", "purge", typed="y\n").out.endswith("\n3 letters purged\n")
    assert ids(dead) == []


@pytest.mark.parametrize("days", ["-1", "0", "99999", "9" * 30, "1.5", "a", ""])
def test_a_purge_of_wrong_days_names_the_field(cli: Cli, days: str) -> None:
    refused = cli("dlq", "purge", f"--days={days}", "--json")
    assert (refused.code, refused.json["field"]) == (2, "days")
    assert f"{days!r} is not a number of days (1 to 36500)" in refused.json["error"]


def test_the_days_of_a_purge_are_those_of_the_endpoint() -> None:
    parser = argparse.ArgumentParser(prog="mdtasks")
    add_parser(Commands(parser))
    assert parser.parse_args(["dlq", "purge"]).days == PURGE_DAYS == PurgeQuery().days
    assert parser.parse_args(["dlq", "purge", "--days", str(MOST_DAYS)]).days == MOST_DAYS
    assert parser.parse_args(["dlq", "purge", "--days", str(LEAST_DAYS)]).days == LEAST_DAYS
