"""What the environment sets in the policy's place, and what a change does to what runs."""

from __future__ import annotations

from mdtasks.domain.jobs import Tier
from mdtasks.domain.policy import (
    VARIABLES,
    Facts,
    Policy,
    beat_entries,
    diff,
    effective,
    effects,
    examine,
    leaves,
    needs_restart,
)
from mdtasks.settings import ENVIRONMENT, Settings, load_settings, policy_variables
from mdtasks.worker.schedule import schedule
from tests.wrong_policies import RIGHT


def test_variables_win_over_the_policy_and_say_so() -> None:
    environ = {
        "BACKFILL_MAX_QUEUE_T1": "7",
        "CADENCE_T0__quotes_l1": "0",
        "MDTASKS_KEEP_T2": "1m, 5m",
        "MDTASKS_VENDOR_RATES": "alpaca=10000/min+30/s, massive=none",
        "POLICY_EOD": "lean,files",
        "ALLOW_SOURCE_OVERRIDE": "off",
        "WS_REPLAY_MAX_BARS": "200",
        "BACKFILL_CHUNK_MINUTES": "60",
    }
    found = effective(Policy(), environ)
    policy = found.policy
    assert (policy.tiers.T1.max_queue, policy.tiers.T0.cadence.quotes_l1, policy.tiers.T2.keep) == (
        7,
        None,
        ("1m", "5m"),
    )
    assert (policy.tiers.T2.cadence.eod, policy.replay.max_bars, policy.orders.source_override) == (None, 200, False)
    assert (policy.orders.eod, policy.rates("massive"), policy.rates("lean")) == (("lean", "files"), (), None)
    assert [str(rate) for rate in policy.rates("alpaca") or ()] == ["10000/min", "30/s"]
    assert [policy.tiers[tier].chunk_minutes for tier in Tier] == [60, 60, 60]
    assert found.overridden["tiers.T1.max_queue"] == "BACKFILL_MAX_QUEUE_T1"
    assert set(found.overridden.values()) == set(environ)


def test_a_candidate_must_be_right_with_the_variables_too() -> None:
    environ = {"BREAKER_DEMOTE_THRESHOLD": "0.65"}
    (error,) = examine(b"breaker: {promote: 0.6}", Facts(), None, environ).wrongs
    assert error.path == "breaker.demote"
    assert error.rule == "must be below breaker.promote (0.6); BREAKER_DEMOTE_THRESHOLD is set"
    (error,) = examine(RIGHT, Facts(), None, {"WS_REPLAY_MAX_BARS": "many"}).wrongs
    assert (error.path, error.value) == ("replay.max_bars", '"many"')
    assert error.rule == "must be a whole number; WS_REPLAY_MAX_BARS sets it"


def test_the_defaults_of_the_policy_are_those_of_the_settings() -> None:
    plain = {leaf.path: leaf.value for leaf in leaves(Policy())} | {"limits": {}}
    for variable in VARIABLES.values():
        if variable.name not in ENVIRONMENT:
            continue
        assert ENVIRONMENT[variable.name] == variable.setting
        default = Settings.model_fields[variable.setting].default
        for path in variable.paths:
            expected = list(default) if isinstance(default, tuple) else default
            if path.startswith("orders.") and expected == []:
                expected = None
            assert plain[path] == expected, path
    assert all(
        variable.setting in ("", *Settings.model_fields)
        for variable in VARIABLES.values()
        if not variable.setting.startswith("viztracer")
    )


def test_every_setting_that_overrides_the_policy_is_the_same_value_there() -> None:
    for name, text in (
        ("BACKFILL_MAX_QUEUE_T2", "5"), ("CADENCE_T1__bars_1m", "30.5"), ("CADENCE_T1__bars_1m", "0"),
        ("MDTASKS_KEEP_T0", "1m"), ("POLICY_QUOTES_L1", "files,lean"), ("MDTASKS_VENDOR_RATES", "alpaca=5/10s+1/s"),
        ("SLO_EVERY_S", "0"), ("MDTASKS_SILENCE_ODDS", "1e-7"), ("ALLOW_SOURCE_OVERRIDE", "0"),
    ):  # fmt: skip
        settings = load_settings({name: text})
        told = policy_variables(settings, {})
        assert effective(Policy(), told).policy == effective(Policy(), {name: text}).policy != Policy()
    assert policy_variables(load_settings({}), {}) == {}


def test_names_of_the_policy_that_are_no_settings_are_not_taken_for_typos() -> None:
    load_settings({"CADENCE_T2__bars_1m": "60", "CADENCE_T2__eod": "1", "WS_REPLAY_MAX_BARS": "5"})


def test_what_needs_a_restart_is_said() -> None:
    document = Policy().model_dump(mode="json")
    document["tiers"]["T1"]["concurrency"] = 8
    document["retry"]["attempts"] = 9
    changes = diff(Policy(), Policy.model_validate(document))
    assert [change.path for change in changes] == ["tiers.T1.concurrency", "retry.attempts"]
    assert [change.path for change in needs_restart(changes)] == ["tiers.T1.concurrency"]


def test_what_a_change_would_do_is_said() -> None:
    document = Policy().model_dump(mode="json")
    document["tiers"]["T0"] |= {"cadence": {"bars_1m": 30, "eod": 1}, "max_queue": 100}
    document["gaps"]["scan_s"] = None
    document["orders"]["quotes_l1"] = ["lean"]
    facts = Facts(default_order=("lean", "files"), depths={Tier.T0: 150, Tier.T1: 30_000})
    did = effects(Policy(), Policy.model_validate(document), facts)
    assert did.beat == (
        ("live_T0_bars_1m", 60.0, 30.0),
        ("live_T0_quotes_l1", 5.0, None),
        *((f"gaps_{tier}", 60.0, None) for tier in Tier),
    )
    assert did.over_cap == (("T0", 100, 150),)
    assert (did.leave, did.come) == ((("quotes_l1", "files"),), ())


def test_the_entries_of_beat_are_those_of_its_table() -> None:
    table = {name: entry["schedule"] for name, entry in schedule(load_settings({})).items()}
    entries = beat_entries(Policy())
    assert entries == {
        name: table[name] for name in table if name.startswith(("live_", "gaps_", "monitor", "derive", "cross_check"))
    }


def test_what_is_kept_for_a_shorter_time_is_told_because_it_goes_for_good() -> None:
    shorter = Policy.model_validate({"retention": {"bars_1m_days": 400, "jobs_days": 30, "letters_days": None}})
    assert effects(Policy(), shorter, Facts()).deletes == ["retention.bars_1m_days", "retention.jobs_days"]
    assert effects(shorter, Policy(), Facts()).deletes == ["retention.letters_days"]
    assert effects(Policy(), shorter, Facts()).as_dict()["deletes"]
