"""``mdtasks slo rules``: Prometheus' rules out of the objectives."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from mdtasks.cli.frame import Commands, say, settings_of
from mdtasks.cli.inputs import explain

_EXAMPLES: Final = """
examples:
  mdtasks slo rules
  mdtasks slo rules --dir /etc/prometheus/mdtasks --web-url https://md.example.org --grafana-url https://grafana.example.org
  mdtasks slo rules --calendar 24/7 --check

Factors of burn-rate alerts come from the sessions of one exchange: name the one that most of your symbols trade on.
Targets are the stack's own (SLO_TARGET_T0 and so on).
"""


def add_rules(below: Commands) -> None:
    """Add ``rules`` to the commands of ``slo``."""
    write = below.add("rules", rules, "Write Prometheus' configuration, recording rules and alerts")
    write.add_argument(
        "--dir", type=Path, default=Path("config/prometheus"), metavar="DIR", help="default: config/prometheus"
    )
    write.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the files differ")
    write.add_argument("--web-url", type=_url, metavar="URL", help="of the web app, for links and the scrape")
    write.add_argument("--grafana-url", type=_url, metavar="URL", help="of Grafana, for links")
    write.add_argument("--calendar", metavar="MIC", help="the exchange whose sessions count (default: XNYS)")
    explain(write, _EXAMPLES)


def rules(args: argparse.Namespace) -> int:
    """Write the files, or say which of them differ."""
    from mdtasks.cli.opened import calendars_of
    from mdtasks.domain.jobs import Tier
    from mdtasks.observe.rules import CALENDAR, GRAFANA_URL, WEB_URL, Places, documents

    settings = settings_of(args)
    calendar = calendars_of(args).get(args.calendar or CALENDAR)
    places = Places(args.web_url or WEB_URL, args.grafana_url or settings.grafana_url or GRAFANA_URL)
    made = documents(calendar, {tier: settings.slo_target(tier) for tier in Tier}, places)
    differ = [name for name, text in made.items() if _read(args.dir / name) != text]
    if args.check:
        for name in differ:
            say(f"{args.dir / name} is not what the objectives say: run `mdtasks slo rules`")
        return 1 if differ else 0
    for name in differ:
        (args.dir / name).parent.mkdir(parents=True, exist_ok=True)
        (args.dir / name).write_text(made[name])
    for name in made:
        print(f"{args.dir / name}{'' if name in differ else ' (as it was)'}")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")) or len(text.split()) != 1 or not text.partition("://")[2]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as http://host:8642")
    return text.rstrip("/")
