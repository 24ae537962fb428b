"""What the supervisor sleeps on: signals to stop, children that end, processes that report themselves ready."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from mdtasks.stack.notify import NotifySocket

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WakeUps:
    """A selector that all of them wake. ``stops_asked`` counts the signals to stop."""

    def __init__(self, notify: NotifySocket, signals: socket.socket) -> None:
        self.notify = notify
        self.stops_asked = 0
        self._signals = signals
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ)
        self._selector.register(notify, selectors.EVENT_READ)

    def wait(self, seconds: float) -> None:
        """Return when something has happened, after ``seconds`` at the latest."""
        for key, _events in self._selector.select(seconds):
            if key.fileobj is self._signals:
                with suppress(BlockingIOError):
                    self._signals.recv(4096)
            else:
                self.notify.receive()

    def close(self) -> None:
        """Sleep on nothing any more."""
        self._selector.close()
        self.notify.close()


@contextmanager
def woken_by_signals() -> Iterator[WakeUps]:
    """Wake-ups for the main thread; signals become some of them, and those to stop are counted, until the end."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        woken = WakeUps(NotifySocket(), reader)

        def asked(_number: int, _frame: object) -> None:
            woken.stops_asked += 1

        before = {number: signal.signal(number, asked) for number in _STOP_SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            woken.close()
