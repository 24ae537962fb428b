"""The worker's parent process at its edge: no message ends it, and whatever dies takes its reason along.

Celery's Consumer and Request, told to reject (our transport buries what is rejected) where they would acknowledge, drop
or crash. The reason travels on the message as ``dead_reason``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.utils.serialization import UnpickleableExceptionWrapper
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request as CeleryRequest

from mdtasks.domain.errors import error_class
from mdtasks.queue.letters import Reason, check_letter, is_letter

log = logging.getLogger(__name__)

#: How the pool ends what it says of a lost process: a count of its own, which nobody knows as a job.
_POOL_NUMBER: Final = re.compile(r" Job: \d+\.$")


class Request(CeleryRequest):
    """A task's message in a worker: says why it dies; a hard time limit buries it instead of acknowledging it."""

    _timed_out = False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, MemoryError):
            # The child's; Celery takes it for the parent's own and ends the worker.
            error = exc_info.exception = RuntimeError(f"MemoryError: {error}")
        if isinstance(error, TimeLimitExceeded):  # told here first, then to on_timeout
            self._time_out(error.args[0])
        else:
            self._explain(_class_of(error), said_by(error), str(exc_info.traceback))
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._time_out(timeout)
        return super().on_timeout(soft, timeout)

    def _time_out(self, limit_s: float) -> None:
        self._timed_out = True
        self._explain("time_limit", f"ran longer than its hard limit of {limit_s:g} s")

    def acknowledge(self) -> None:
        if self._timed_out and not self.acknowledged:
            self.reject(requeue=False)
        else:
            super().acknowledge()

    def _explain(self, name: str, message: str, traceback: str = "") -> None:
        # The first reason stands: after a hard timeout Celery reports the killed child as a failure of its own.
        if not hasattr(self.message, "dead_reason"):
            worker = f"{self.hostname}/{self.worker_pid}" if self.worker_pid else ""
            self.message.dead_reason = Reason(name, message, traceback, worker)


def said_by(error: BaseException) -> str:
    """An error's message for people."""
    said = str(error) or repr(error)
    return _POOL_NUMBER.sub("", said) if isinstance(error, WorkerLostError) else said


def _class_of(error: BaseException) -> str:
    if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
        return "worker_lost"
    if isinstance(error, UnpickleableExceptionWrapper):
        return str(error.exc_cls_name)
    return error_class(error)


class Consumer(CeleryConsumer):
    """Receives messages; one that cannot become a task is buried with its reason."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """The body cannot be decoded. Celery would acknowledge it: lost."""
        message.dead_reason = Reason("undecodable", f"body: {type(exc).__name__}: {exc}")
        message.reject()

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        message.dead_reason = Reason("unknown_task", f"no worker here knows the task {message.headers.get('task')!r}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that cannot be run. Not Celery's own: that one raises where it formats what it cannot read."""
        del body
        if not hasattr(message, "dead_reason"):
            message.dead_reason = Reason("invalid_task", f"{type(exc).__name__}: {exc}")
        log.error("message %s is no task: %s: %s", message.delivery_tag, type(exc).__name__, exc)
        message.reject_log_error(log, self.connection_errors)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        message.dead_reason = Reason("unknown_message", "no task header: not a Celery message")
        super().on_unknown_message(body, message)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """As Celery's, but a message that makes it raise is buried; stock, it ends one worker after the other."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            try:
                _check(message)
                return handle(message)
            except self.connection_errors as exc:
                # kombu counts KeyError as a lost connection; here it is a message without an expected key.
                if not isinstance(exc, KeyError) or message.acknowledged:
                    raise
                return self.on_invalid_task(None, message, exc)
            except Exception as exc:
                if message.acknowledged:  # it is where it belongs; what came after must not end the worker
                    return log.exception("after message %s had been settled", message.delivery_tag)
                return self.on_invalid_task(None, message, exc)

        return on_message


def _check(message: Any) -> None:
    """Raise ValueError for what Celery would only stumble over later, in its event loop, which ends the worker."""
    headers = message.headers or {}
    limits = headers.get("timelimit") or (None, None)
    sound = {
        "timelimit": len(limits) == 2 and all(limit is None or isinstance(limit, int | float) for limit in limits),
        "retries": isinstance(headers.get("retries") or 0, int),
        "id": isinstance(headers.get("id", ""), str),
    }
    for name in (name for name, is_sound in sound.items() if not is_sound):
        raise ValueError(f"{name} is {headers[name]!r}")
    if is_letter(headers):
        check_letter(message.decode())
