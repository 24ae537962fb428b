"""The garbage collector of a web process leaves alone what clients wait for: each look at it stops the stream."""

from __future__ import annotations

import json
import subprocess
import sys

_TICKS = """
import gc, json
from collections import deque
from mdtasks.web.app import spare_collections

clients = [[{"place": number}, deque()] for number in range(1000)]
spare_collections()
before = [each["collections"] for each in gc.get_stats()]
for tick in range(50):
    for client, queue in clients:
        queue.extend((client, [tick]) for _ in range(20))
    for _, queue in clients:
        queue.clear()
print(json.dumps([now["collections"] - was for now, was in zip(gc.get_stats(), before)]))
"""


def test_ticks_for_a_thousand_clients_cause_no_collection() -> None:
    done = subprocess.run([sys.executable, "-c", _TICKS], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == [0, 0, 0]
