"""Which settings of a process override the policy: those that were set for it, or for its whole stack."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mdtasks.domain.policy import VARIABLES
from mdtasks.domain.rates import Rate
from mdtasks.settings.fields import Settings


def policy_variables(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that override the policy here, with their texts.

    ``environ`` (default: this process's) is what a process was given itself; what the stack in its home was started
    with is among the settings, and counts where the environment says nothing.
    """
    environ = os.environ if environ is None else environ
    found = {name: environ[name] for name in VARIABLES if environ.get(name)}
    for name, variable in VARIABLES.items():
        if name not in found and variable.setting in settings.model_fields_set:
            found[name] = _text_of(getattr(settings, variable.setting))
    return {name: text for name, text in found.items() if text}


def _text_of(value: Any) -> str:
    """A setting as its variable would say it."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_rates(rates)}" for name, rates in value.items())
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rates(rates: tuple[Rate, ...]) -> str:
    return "+".join(map(str, rates)) or "none"
