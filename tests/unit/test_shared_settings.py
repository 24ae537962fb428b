"""What a stack lets those know who find it by its home: its caps and providers, none of its secrets."""

from __future__ import annotations

import json
from pathlib import Path

from mdtasks.domain.jobs import Tier
from mdtasks.settings import CONNECTION_FILE, load_settings, published

URLS = {"MDTASKS_DATABASE_URL": "postgresql://u:secret@h/d", "MDTASKS_REDIS_URL": "redis://:secret@h/0"}


def test_another_process_in_the_home_has_the_caps_and_providers_of_the_stack(tmp_path: Path) -> None:
    given = {**URLS, "BACKFILL_MAX_QUEUE_T0": "7", "MDTASKS_SIMULATOR": "1", "POLICY_BARS_1M": "simulator"}
    stack = load_settings({**given, "MDTASKS_LEAN_DIR": "lean", "MDTASKS_API_TOKEN": "secret"}, home=tmp_path)
    shared = published(stack)
    assert "secret" not in json.dumps(shared)
    (tmp_path / CONNECTION_FILE).write_text(json.dumps({"settings": shared}))
    other = load_settings({}, home=tmp_path)
    assert (other.cap(Tier.T0), other.simulator, other.policy_bars) == (7, True, ("simulator",))
    assert other.lean_dir == Path.cwd() / "lean"
    assert load_settings({"BACKFILL_MAX_QUEUE_T0": "9"}, home=tmp_path).cap(Tier.T0) == 9


def test_a_setting_of_another_version_in_the_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / CONNECTION_FILE).write_text(json.dumps({"settings": {"not_known_here": 1}}))
    assert load_settings({}, home=tmp_path).home == tmp_path
