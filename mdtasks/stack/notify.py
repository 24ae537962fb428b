"""Hears the processes say that they are ready: the receiving end of ``observe.ready`` (systemd's notify protocol)."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path


class NotifySocket:
    """A datagram socket that collects the pids of processes that have reported themselves ready."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._folder: str | None = None
        self._ready: set[int] = set()
        if sys.platform == "linux":
            self.address = f"@mdtasks/{os.getpid()}"
            self._socket.bind("\0" + self.address[1:])
        else:  # a short folder: the paths of sockets are limited
            self._folder = tempfile.mkdtemp(prefix="mdt")
            self.address = f"{self._folder}/notify"
            self._socket.bind(self.address)

    def fileno(self) -> int:
        """For a selector: readable when somebody has reported."""
        return self._socket.fileno()

    def is_ready(self, pid: int) -> bool:
        """Whether the process with this pid has reported itself ready."""
        self.receive()
        return pid in self._ready

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        if self._folder is not None:
            Path(self.address).unlink(missing_ok=True)
            Path(self._folder).rmdir()

    def receive(self) -> None:
        """Take in what was reported since the last time."""
        while True:
            try:
                message = self._socket.recv(4096).decode(errors="replace")
            except BlockingIOError:
                return
            fields = dict(line.partition("=")[::2] for line in message.splitlines())
            if fields.get("READY") == "1" and fields.get("MAINPID", "").isdigit():
                self._ready.add(int(fields["MAINPID"]))
