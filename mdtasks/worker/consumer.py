"""The worker's parent process at its edge: no message ends it, and whatever dies takes its reason along.

Celery's Consumer and Request, told to reject (our transport buries what is rejected) where they would acknowledge, drop
or crash. The reason travels on the message as ``dead_reason``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request as CeleryRequest

from mdtasks.domain.errors import error_class
from mdtasks.queue.letters import Reason


class Request(CeleryRequest):
    """A task's message in a worker: says why it dies; a hard time limit buries it instead of acknowledging it."""

    _timed_out = False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        lost = isinstance(error, WorkerLostError)
        self._explain("worker_lost" if lost else error_class(error), str(error) or repr(error), str(exc_info.traceback))
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._timed_out = True
            self._explain("time_limit", f"ran longer than its hard limit of {timeout:g} s")
        return super().on_timeout(soft, timeout)

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
        message.dead_reason = Reason("invalid_task", f"{type(exc).__name__}: {exc}")
        super().on_invalid_task(body, message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        message.dead_reason = Reason("unknown_message", "no task header: not a Celery message")
        super().on_unknown_message(body, message)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """As Celery's, but a message that makes it raise is buried; stock, it ends one worker after the other."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            try:
                return handle(message)
            except self.connection_errors as exc:
                if not isinstance(exc, KeyError):
                    raise
                # kombu counts KeyError as a lost connection; here it is a message without an expected key.
                return self.on_invalid_task(None, message, exc)
            except Exception as exc:
                return self.on_invalid_task(None, message, exc)

        return on_message
