"""Tells whoever started this process that it is at work: systemd's notify protocol, which `mdtasks up` speaks too.

A unit file with ``Type=notify`` and `mdtasks up` learn it the same way; without ``NOTIFY_SOCKET`` nothing happens.
"""

from __future__ import annotations

import os
import socket


def tell_ready() -> None:
    """Report this process as ready, where anybody asked to know. Never raises: being ready does not depend on it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux' abstract sockets: no file, gone with their owner
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), address)
    except OSError:
        return
