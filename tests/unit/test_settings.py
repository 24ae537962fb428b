"""Settings: validated whole, unknown names refused, secrets masked, and documented."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from mdtasks.domain.errors import ConfigurationError, StackNotRunningError
from mdtasks.domain.jobs import Tier
from mdtasks.settings import CONNECTION_FILE, ENVIRONMENT, Settings, load_settings, published, sealed

_DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_defaults_are_the_ones_that_users_know(tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path)
    assert [settings.cap(tier) for tier in Tier] == [20_000, 20_000, 40_000]
    assert (settings.chunk_minutes, settings.max_attempts, settings.simulator) == (1440, 5, False)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean MDTASKS_REDIS_URL") as refused:
        load_settings({"MDTASKS_REDIS_UR": "redis://here"})
    assert refused.value.name == "MDTASKS_REDIS_UR"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKFILL_MAX_QUEUE_T0", "0"),
        ("BACKFILL_MAX_QUEUE_T1", "many"),
        ("MDTASKS_TIME_LIMIT_S", "1"),
        ("MDTASKS_SIMULATOR", "perhaps"),
        ("MDTASKS_RETRY_BASE_S", "-1"),
        ("BREAKER_DEMOTE_THRESHOLD", "0.7"),
        ("BREAKER_PROMOTE_THRESHOLD", "1.1"),
        ("MDTASKS_VENDOR_RATES", "alpaca=fast"),
        ("MDTASKS_VENDOR_RATES", "nobody=5/min"),
        ("MDTASKS_VENDOR_URLS", "alpaca=127.0.0.1"),
        ("MDTASKS_VENDOR_URLS", "alpaca=http://127.0.0.1:notaport"),
        ("MDTASKS_VENDOR_URLS", "alpaca=http://127.0.0.1:99999"),
        ("MDTASKS_VENDOR_URLS", "alpaca=http://[::1"),
        ("MDTASKS_VENDOR_DELAYS", "alpaca=soon"),
        ("MDTASKS_VENDOR_HISTORY", "massive=-1y"),
        ("MDTASKS_DATABENTO_MAX_COST", "-1"),
        ("MDTASKS_ALPACA_KEY", "without its secret"),
        ("RLC_REDIS_JOBS_KEY", "T0.live"),
        ("RLC_REDIS_BACKFILL_KEYS__T1", "market:jobs"),
        ("RLC_REDIS_BACKFILL_KEYS__T2", "market:backfills:T0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as refused:
        load_settings({name: value})
    assert refused.value.name == name


def test_the_keys_of_vendors_stay_out_of_what_is_printed_and_published(tmp_path: Path) -> None:
    names = ("ALPACA_KEY", "ALPACA_SECRET", "MASSIVE_KEY", "DATABENTO_KEY", "FINNHUB_KEY")
    settings = load_settings({f"MDTASKS_{name}": "hush" for name in names})
    assert "hush" not in repr(settings)
    assert "hush" not in json.dumps(published(settings))
    (tmp_path / CONNECTION_FILE).write_text(json.dumps({"secrets": sealed(settings)}))
    assert load_settings({}, home=tmp_path).massive_key == settings.massive_key
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"MDTASKS_ALPACA_KEY": "hush"})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        "alpaca=ftp://user:hush@host",
        "alpaca=http://user:hush@host:port",
        "alpaca=http://user:hush@[host",
        "alpaca=http://user:hush\u2100@host",
        "alpaca:http://user:hush@host",
        "massive=http://h:1,nobody=http://user:hush@host",
    ],
)
def test_a_password_in_a_wrong_address_is_not_repeated(value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"MDTASKS_VENDOR_URLS": value})
    assert "hush" not in "".join(traceback.format_exception(refused.value))


def test_rates_and_addresses_are_told_by_vendor() -> None:
    settings = load_settings(
        {"MDTASKS_VENDOR_RATES": "alpaca=10000/min+30/s, massive=none", "MDTASKS_VENDOR_URLS": "massive=http://h:1/"}
    )
    assert [str(rate) for rate in settings.vendor_rates["alpaca"]] == ["10000/min", "30/s"]
    assert (settings.vendor_rates["massive"], settings.vendor_urls["massive"]) == ((), "http://h:1")


def test_secrets_mask_themselves_and_stay_out_of_errors(tmp_path: Path) -> None:
    settings = load_settings({"MDTASKS_DATABASE_URL": "postgresql://me:hush@h/d", "MDTASKS_API_TOKEN": "hush"})
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)
    assert settings.require_database_url() == "postgresql://me:hush@h/d"


def test_the_address_of_the_coordinators_redis_is_shared_by_the_home_and_not_with_the_other_settings() -> None:
    settings = load_settings({"USE_RLC": "1", "RLC_REDIS_URL": "redis://:hush@rlc/0"})
    assert published(settings) == {"use_rlc": True}
    assert settings.require_rlc_url() == "redis://:hush@rlc/0"
    assert load_settings({"MDTASKS_REDIS_URL": "redis://here"}).require_rlc_url() == "redis://here"


def test_the_urls_of_a_running_stack_are_found_in_its_home_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / CONNECTION_FILE).write_text(json.dumps({"database_url": "postgresql://a", "redis_url": "redis://a"}))
    settings = load_settings({"MDTASKS_DATABASE_URL": "postgresql://b"}, home=tmp_path)
    assert settings.require_database_url() == "postgresql://b"
    assert settings.require_redis_url() == settings.require_broker_url() == "redis://a"


def test_without_a_stack_the_error_says_what_to_do(tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path)
    with pytest.raises(StackNotRunningError, match="no mdtasks stack runs in") as refused:
        settings.require_redis_url()
    assert "mdtasks up" in refused.value.hint


def test_a_connection_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / CONNECTION_FILE).write_text("{")
    with pytest.raises(ConfigurationError, match=CONNECTION_FILE):
        load_settings({}, home=tmp_path)


def test_orders_of_providers_are_lists_with_commas() -> None:
    assert load_settings({"POLICY_BARS_1M": "files, lean,"}).policy_bars == ("files", "lean")


def test_every_setting_is_documented_with_its_default() -> None:
    rows = {}
    for line in _DOCUMENT.read_text().splitlines():
        if line.startswith("| `"):
            name, default, text = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = (default, text)
    assert list(rows) == list(ENVIRONMENT)
    for name, field in ENVIRONMENT.items():
        known = Settings.model_fields[field]
        assert rows[name] == (_as_typed(known.default), known.description)


def _as_typed(default: object) -> str:
    if default in (None, (), {}):
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return {False: "off", True: "on"}[default] if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("name", ["BACKFILL_MAX_QUEUE_T3", "POLICY_BAR_1M"])
def test_a_typo_in_a_name_without_our_prefix_is_refused_too(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown setting {name}; did you mean"):
        load_settings({name: "4"})


def test_somebody_elses_variables_are_left_alone(tmp_path: Path) -> None:
    assert load_settings({"POLICY_AGENT_URL": "x", "BACKFILL_OWNER": "y", "HOME": "z"}, home=tmp_path).cap_t0 == 20_000
