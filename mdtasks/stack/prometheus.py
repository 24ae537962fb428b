"""Prometheus beside a stack: where its program is installed, `mdtasks up` runs it, so that alerts are seen live.

``python -m mdtasks.stack.prometheus PROGRAM PORT WEB_URL`` writes the configuration and the rules into the home, by the
targets that the stack goes by, and then becomes Prometheus: what the making of rules takes in memory is gone by then,
and the pid that was started is Prometheus' own. Its data lies in the home too; it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from mdtasks.domain.jobs import Tier
from mdtasks.domain.sessions import Calendars
from mdtasks.observe.rules import CALENDAR, GRAFANA_URL, Places, documents
from mdtasks.settings import Settings, load_settings
from mdtasks.stack.spawn import server_environ
from mdtasks.store.calendars import KeptCalendars

#: Budgets are of 30 days; the size bounds what a large fleet's series take. Memory: Go collects sooner near its limit.
_KEEP: Final = ("--storage.tsdb.retention.time=31d", "--storage.tsdb.retention.size=512MB")
_MEMORY: Final = {"GOMEMLIMIT": "150MiB", "GOGC": "50"}


def folder_of(home: Path) -> Path:
    """Where its configuration, rules and data lie."""
    return home / "prometheus"


def write_files(settings: Settings, web_url: str) -> Path:
    """Write configuration and rules for a stack whose web app is at ``web_url``; the configuration's path."""
    folder = folder_of(settings.home)
    calendar = Calendars(KeptCalendars(settings.calendars_dir)).get(CALENDAR)
    places = Places(web_url, settings.grafana_url or GRAFANA_URL)
    for name, text in documents(calendar, {tier: settings.slo_target(tier) for tier in Tier}, places).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "prometheus.yml"


def argv_of(program: str, port: int, config: Path) -> list[str]:
    """How Prometheus is started."""
    return [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        *_KEEP,
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]


def main(arguments: list[str]) -> None:
    """Write the files and become Prometheus."""
    program, port, web_url = arguments
    settings = load_settings()
    config = write_files(settings, web_url)
    environ = {**server_environ(settings.home), **_MEMORY}  # the stack's secrets are none of its business
    os.execve(program, argv_of(program, int(port), config), environ)  # noqa: S606  -- that is this module's purpose


if __name__ == "__main__":
    main(sys.argv[1:])
