"""The shape of a dead letter on the wire: a ``mdtasks.dead_letter`` task that wraps the envelope that died and why.

A letter is a task of ours, so that Flower shows the queue ``dlq`` and each letter, and a stock consumer can take it.
Written by the transport (which knows no database), read by ``flows.letters``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import uuid4

#: The queue of letters on their way to the record.
DLQ: Final = "dlq"
#: The task that records a letter.
DEAD_LETTER_TASK: Final = "mdtasks.dead_letter"
#: Error classes of messages that never became a task: no worker will ever do better with them.
NEVER_A_TASK: Final = frozenset({"undecodable", "invalid_task", "unknown_message"})


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a message died. ``worker``: node and process that held it (``t0@host/1234``), "" when none had taken it."""

    error_class: str
    message: str
    traceback: str = ""
    worker: str = ""


def letter(raw: str, reason: Reason, queue: str) -> str:
    """The envelope (JSON) of a task that carries ``raw``, the dead message as it was on the wire."""
    letter_id = str(uuid4())
    args = [raw, asdict(reason), queue]
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = base64.b64encode(json.dumps([args, {}, embed]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": DEAD_LETTER_TASK,
                "id": letter_id,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": letter_id,
                "parent_id": None,
                "argsrepr": f"({reason.error_class}: {reason.message[:200]})",
                "kwargsrepr": "{}",
                "origin": queue,
                "ignore_result": True,
            },
            "properties": {
                "correlation_id": letter_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": DLQ},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


def is_letter(headers: Mapping[str, Any] | None) -> bool:
    """Whether a message with these headers is itself a dead letter."""
    return isinstance(headers, Mapping) and headers.get("task") == DEAD_LETTER_TASK


def check_letter(body: Any) -> None:
    """Raise ValueError when a decoded body is not that of a letter: ``[[raw, reason, queue], {}, …]``."""
    try:
        raw, reason, queue = body[0]
        said = Reason(**reason)
    except (TypeError, ValueError, KeyError, IndexError) as exc:
        raise ValueError(f"not a dead letter: {exc}") from exc
    if not all(isinstance(part, str) for part in (raw, queue, *asdict(said).values())):
        raise ValueError("not a dead letter: its parts are no texts")


def job_document(raw: str) -> dict[str, object] | None:
    """The job that a dead envelope carried, or None when it cannot be read."""
    try:
        envelope = json.loads(raw)
        body = envelope["body"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        args = json.loads(body)[0]
        document = args[0]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def task_name(raw: str) -> str | None:
    """The task that a dead envelope named, or None when it cannot be read."""
    try:
        name = json.loads(raw)["headers"]["task"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return name if isinstance(name, str) else None
