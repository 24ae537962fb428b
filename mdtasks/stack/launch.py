"""The stub between the supervisor and each process it starts: fix the process's ties and user, then become it.

Run by path (``python -I -S launch.py OPTIONS -- COMMAND...``), so it imports nothing but the standard library and is
gone after ``execv``: the pid that was started is the pid of the command. It sees to it that

* the command is told (``--die-with SIGNAL``) when the process that started it is gone, even by ``kill -9`` (Linux);
* PostgreSQL, which refuses to run as root, runs as another user (``--user UID:GID``), and that this user can reach
  binaries and data under folders closed to it (``--reach``: one capability, reading only where the kernel grants it),
  so that no folder of yours has to be opened to everybody.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_CAP_VERSION_3 = 0x20080522


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _become(user: str, *, reach: bool) -> None:
    """Take the user's ids for good; with ``reach``, keep the one capability that opens folders to it."""
    uid, gid = (int(part) for part in user.split(":"))
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None and reach:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    if libc is not None and reach:
        _keep_reach(libc)


def _keep_reach(libc: ctypes.CDLL) -> None:
    header = _CapHeader(_CAP_VERSION_3, 0)
    held = (_CapData * 2)()
    libc.capget(ctypes.byref(header), held)
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):  # a container often grants only the second
        bit = 1 << capability
        if held[0].permitted & bit:
            wanted = (_CapData * 2)()
            wanted[0].effective = wanted[0].permitted = wanted[0].inheritable = bit
            libc.capset(ctypes.byref(header), wanted)
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
            return


def _die_with_parent(name: str, parent: int) -> None:
    # After the change of user, which clears it. The parent may be gone already: then the signal never comes.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.Signals[name]), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)


def main() -> None:
    """Parse the options, do them in their order, become the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="pid of the process that starts this")
    parser.add_argument("--die-with", metavar="SIGNAL", help="signal to get when the parent is gone")
    parser.add_argument("--user", metavar="UID:GID")
    parser.add_argument("--reach", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.user:
        _become(options.user, reach=options.reach)
    if options.die_with:
        _die_with_parent(options.die_with, options.parent)
    try:
        os.execv(options.command[0], options.command)  # noqa: S606  -- that is this file's purpose
    except OSError as exc:
        sys.exit(f"cannot start {options.command[0]}: {exc}")


if __name__ == "__main__":
    main()
