"""Where settings come from: the environment, and the file that a running stack leaves in its home."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from mdtasks.domain.errors import ConfigurationError
from mdtasks.domain.policy import VARIABLES
from mdtasks.settings.declared import ENV
from mdtasks.settings.fields import Settings

#: The file in a home that tells where its running servers are (mode 0600: it holds their passwords).
CONNECTION_FILE: Final = "connection.json"

#: Environment variable -> field, e.g. ``MDTASKS_HOME`` -> ``home``.
ENVIRONMENT: Final[dict[str, str]] = {
    str(field.json_schema_extra[ENV]): name  # type: ignore[index]
    for name, field in Settings.model_fields.items()
}

_SECRETS: Final = frozenset(name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation))
#: What the names of settings begin with.
_PREFIXES: Final = ("MDTASKS_", "BACKFILL_", "BREAKER_", "CADENCE_", "POLICY_", "SLO_", "RLC_", "VIZTRACER_", "WS_")


def load_settings(environ: Mapping[str, str] | None = None, *, home: Path | None = None) -> Settings:
    """Settings from the environment (default: this process's), validated whole.

    ``home`` wins over ``MDTASKS_HOME``. URLs that the environment does not give come from the home's connection file,
    if a stack runs there. Raises ConfigurationError naming the variable that is unknown or wrong.
    """
    environ = os.environ if environ is None else environ
    refuse_unknown(environ)
    values: dict[str, Any] = {field: environ[name] for name, field in ENVIRONMENT.items() if environ.get(name)}
    if home is not None:
        values["home"] = home
    values["home"] = Path(values.get("home", ".mdtasks")).absolute()
    for field, value in _connection(values["home"]).items():
        values.setdefault(field, value)
    try:
        return Settings.model_validate(values)
    except ValidationError as exc:
        raise _refusal(exc) from exc


def _refusal(invalid: ValidationError) -> ConfigurationError:
    """What is wrong first, by its variable; what may hold a secret is not shown."""
    first = invalid.errors(include_url=False, include_context=False)[0]
    said = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # a rule about several settings: its words name them
        name = next((name for name in ENVIRONMENT if name in said), "")
        return ConfigurationError(said, name=name, hint="see docs/settings.md")
    field = str(first["loc"][0])
    name = next((env for env, known in ENVIRONMENT.items() if known == field), field)
    shown = "***" if field in _SECRETS or "url" in field else repr(first["input"])
    return ConfigurationError(f"{name}={shown}: {said}", name=name, hint="see docs/settings.md")


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a variable that looks like a setting and is none, with the nearest that is one."""
    for name in environ:
        if name in ENVIRONMENT or name in VARIABLES or not name.startswith(_PREFIXES):
            continue
        # The names without our prefix may be somebody else's, unless they are nearly ours.
        near = difflib.get_close_matches(name, ENVIRONMENT, n=1, cutoff=0.6 if name.startswith("MDTASKS_") else 0.9)
        if near or name.startswith("MDTASKS_"):
            raise ConfigurationError(
                f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""),
                name=name,
                hint="see docs/settings.md",
            )


def _connection(home: Path) -> dict[str, Any]:
    """The URLs and shared settings of the stack that runs in ``home``: {} when none does."""
    path = home / CONNECTION_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"cannot read {path}: {exc}", name="MDTASKS_HOME", hint="`mdtasks down`, then `mdtasks up`"
        ) from exc
    shared = {name: value for name, value in content.get("settings", {}).items() if name in Settings.model_fields}
    sealed_in = {name: str(value) for name, value in content.get("secrets", {}).items() if name in _SECRETS}
    return {**shared, **sealed_in, **{field: str(content[field]) for field in _ADDRESSES if content.get(field)}}


#: What the connection file holds by itself; the other settings of the stack are those of ``published``.
_ADDRESSES: Final = (
    "database_url",
    "redis_url",
    "broker_url",
    "rlc_redis_url",
    "api_token",
    "flower_url",
    "prometheus_url",
)


def published(settings: Settings) -> dict[str, Any]:
    """What a stack lets everybody know who finds it by its home: caps, providers, limits; no address, no secret.

    Without it a command typed in another terminal would push past the caps that the stack was started with, and not
    know its providers. Paths become absolute.
    """
    shared = settings.model_dump(mode="json", exclude={"home", *_ADDRESSES, *_SECRETS}, exclude_defaults=True)
    for name in ("files_map", "lean_dir", "policy_file"):
        if name in shared:
            shared[name] = str(Path(shared[name]).absolute())
    return shared


def sealed(settings: Settings) -> dict[str, str]:
    """The vendors' keys, for the connection file alone, which only its owner can read."""
    keys = {name: getattr(settings, name) for name in sorted(_SECRETS.difference(_ADDRESSES))}
    return {name: key.get_secret_value() for name, key in keys.items() if key is not None}
