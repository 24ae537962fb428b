"""What a home keeps of its servers between runs: passwords, and the ports of the last time."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from mdtasks.stack.home import write_private
from mdtasks.stack.ports import any_free_port, is_free


def _kept(home: Path) -> dict[str, dict[str, object]]:
    try:
        content = json.loads((home / "servers.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _keep(home: Path, name: str, **values: object) -> None:
    home.mkdir(parents=True, exist_ok=True)
    content = _kept(home)
    content[name] = {**content.get(name, {}), **values}
    write_private(home / "servers.json", json.dumps(content, indent=1))


def password_of(home: Path, name: str) -> str:
    """The server's password: made at the first call, then always the same."""
    kept = _kept(home).get(name, {}).get("password")
    if kept is None:
        kept = secrets.token_hex(24)
        _keep(home, name, password=kept)
    return str(kept)


def free_port(home: Path, name: str) -> int:
    """A free port of 127.0.0.1 for the server: the one of its last run where it is still free."""
    last = _kept(home).get(name, {}).get("port", 0)
    port = int(last) if isinstance(last, int) and last and is_free(last) else any_free_port()
    _keep(home, name, port=port)
    return port
