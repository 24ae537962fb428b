"""Settings and the policy: which settings of a process override it, and the settings under a policy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from typing import Any

from mdtasks.domain.policy import VARIABLES, Policy
from mdtasks.domain.rates import Rate, parse_rates
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


def under(settings: Settings, policy: Policy) -> Settings:
    """The settings with the policy's values in place of theirs. What tiers may differ in and one setting holds for all
    (``chunk_minutes``, ``concurrency``) is read from the policy itself.
    """
    changed = {
        variable.setting: _setting(settings, variable.setting, reduce(getattr, variable.paths[0].split("."), policy))
        for variable in VARIABLES.values()
        if variable.setting and len(variable.paths) == 1
    }
    return settings.model_copy(update=changed)


def _setting(settings: Settings, name: str, value: Any) -> Any:
    """A value of the policy as the setting has it: where the policy has none, "never" is 0 and "no order" is ()."""
    if isinstance(value, Mapping):
        return {provider: parse_rates(rate) for provider, rate in value.items()}
    if value is None:
        return () if isinstance(getattr(settings, name), tuple) else 0.0
    return value
