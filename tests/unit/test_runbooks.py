"""Each alert has its runbook, which answers the same questions in the same order and names commands that exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from mdtasks.cli.frame import MODULES, Commands
from mdtasks.domain.errors import NotFoundError
from mdtasks.flows.runbooks import books
from mdtasks.settings import ENVIRONMENT

_CHECKOUT = Path(__file__).resolve().parents[2]
_SECTIONS = ["What it means", "Impact", "Look", "Likely causes, in order", "Repair", "It is over when"]
#: Commands that are built beside this page.
_ELSEWHERE = {"calendar", "slo"}


def _alerts() -> set[str]:
    rules = yaml.safe_load((_CHECKOUT / "config" / "prometheus" / "rules" / "alerts.yml").read_text())
    return {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def _commands() -> dict[str, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    commands = Commands(parser)
    for module in MODULES:
        importlib.import_module(f"mdtasks.cli.{module}").add_parser(commands)
    found: dict[str, argparse.ArgumentParser] = dict(commands._actions.choices)
    return found


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert set(books.names()) == _alerts()


@pytest.mark.parametrize("name", books.names())
def test_a_runbook_answers_every_question(name: str) -> None:
    text = books.text_of(name)
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == _SECTIONS
    assert f"mdtasks runbook {name}" in text
    assert len(books.meaning_of(name)) < 120
    causes = re.findall(r"^\d+\. \*\*", text, re.MULTILINE)
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) == 2 * len(causes)  # a repair for each
    for linked in re.findall(r"\]\((\w+)\.md\)", text):
        assert linked in books.names()


@pytest.mark.parametrize("name", books.names())
def test_a_runbook_names_commands_and_settings_that_exist(name: str) -> None:
    text, commands = books.text_of(name), _commands()
    written = [*re.findall(r"`mdtasks ([^`]*)`", text), *re.findall(r"^mdtasks (.*)$", text, re.MULTILINE)]
    assert written
    for words in (shlex.split(each.replace("…", "")) for each in written):
        if words[0] in _ELSEWHERE and words[0] not in commands:
            continue
        parser = commands.get(" ".join(words[:2])) or commands[words[0]]
        groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        if groups and words[1:2] and not words[1].startswith("-"):
            parser = groups[0].choices[words[1]]
        known = {option for action in parser._actions for option in action.option_strings}
        assert {word for word in words if word.startswith("--")} <= known, words
        if words[0] == "runbook":
            books.known(words[1])
    for setting in re.findall(r"`((?:MDTASKS|BACKFILL|BREAKER|POLICY|SLO)_[A-Z0-9_]+)", text):
        assert setting in ENVIRONMENT


def test_a_mistyped_name_is_told_the_nearest() -> None:
    assert books.known("dlqgrowing") == "DLQGrowing"
    with pytest.raises(NotFoundError, match="did you mean DLQGrowing"):
        books.known("DLQGrowning")
