"""The AsyncAPI document of the live stream, and whether a frame is what it says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jsonschema import Draft202012Validator


@cache
def document() -> dict[str, Any]:
    """The document as it is shipped."""
    read: dict[str, Any] = yaml.safe_load(files("mdtasks.web.stream").joinpath("asyncapi.yaml").read_text())
    return read


@cache
def _validator(kind: str) -> Draft202012Validator:
    components = document()["components"]
    payload = components["messages"][kind]["payload"]
    return Draft202012Validator({**payload, "components": components})


def known() -> set[str]:
    """The frames and messages that the document names."""
    return set(document()["components"]["messages"])


def check(said: Mapping[str, Any]) -> str:
    """The type of a frame, or the op of a message. Raises jsonschema's ValidationError for what is none."""
    kind: str = said.get("type") or said["op"]
    _validator(kind).validate(said)
    return kind
