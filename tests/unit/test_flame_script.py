"""The script of the flame chart, run by Node on a page that is only as much of one as it needs."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

from mdtasks.observe.flames import Flame, Slice
from mdtasks.web.flame import chart_data

_PAGE = """
const fs = require('fs'), vm = require('vm');
const { script, data, moves } = JSON.parse(fs.readFileSync(0, 'utf8'));
const handlers = {}, made = {}, drawn = [];
const told = (name) => (...given) => { if (name === 'fillRect') drawn.push(given); };
const pen = new Proxy({}, { get: (_, name) => told(name), set: () => true });
const element = (id) => ({ textContent: id === 'data' ? data : '', style: {}, value: '', clientWidth: 1000,
  addEventListener: (kind, run) => { handlers[`${id}:${kind}`] = run; },
  getBoundingClientRect: () => ({ left: 0, top: 0 }), getContext: () => pen });
const page = { document: { body: {}, getElementById: (id) => made[id] ??= element(id) },
  window: { addEventListener: (kind, run) => { handlers[`window:${kind}`] = run; } },
  getComputedStyle: () => ({ fontFamily: '', getPropertyValue: () => '' }) };
vm.runInNewContext(script, page);
const seen = [{ told: '', drawn: drawn.splice(0) }];
for (const [name, event] of moves) {
  handlers[name]({ preventDefault() {}, ...event });
  seen.push({ told: made.told.textContent, drawn: drawn.splice(0) });
}
console.log(JSON.stringify(seen));
"""
#: A call of 100 us, in it ``a`` from 0 to 50, in that ``b`` from 10 to 20; a second thread with ``c``.
SLICES = [
    Slice("call", 1, 0, 0.0, 100.0, 50.0),
    Slice("a (/x/a.py:1)", 1, 1, 0.0, 50.0, 40.0),
    Slice("b (/x/a.py:5)", 1, 2, 10.0, 10.0, 10.0),
    Slice("c (/x/a.py:9)", 2, 0, 60.0, 40.0, 40.0),
]
#: Where the rows begin: a title of 18 px, then 20 px a row.
ROW_OF_A = 18 + 20 + 5


def looked_at(*moves: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What is drawn at first and after each move of the mouse or key, and what is said then."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the PATH")
    data = chart_data(Flame(SLICES, {1: "main", 2: "other"}, {}, overflow=False))
    script = files("mdtasks.web.console").joinpath("static", "flame.js").read_text()
    given = json.dumps({"script": script, "data": data, "moves": moves})
    done = subprocess.run([node, "-e", _PAGE], input=given, capture_output=True, text=True, check=True)
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


def test_the_whole_call_fills_the_width_and_each_function_has_its_place() -> None:
    (first,) = looked_at()
    assert [(round(left), top, round(width)) for left, top, width, _ in first["drawn"]] == [
        (0, 18, 1000),
        (0, 38, 500),
        (100, 58, 100),
        (600, 18 + 60 + 6 + 18, 400),
    ]


def test_pointing_tells_of_a_function_and_a_click_shows_it_alone() -> None:
    at_a = {"clientX": 250, "clientY": ROW_OF_A}
    _, pointed, clicked, whole = looked_at(
        ("flame:mousemove", at_a), ("flame:click", at_a), ("flame:keydown", {"key": "Escape"})
    )
    assert pointed["told"].startswith("a (/x/a.py:1): 50 µs, own 40 µs")
    assert [round(width) for _, _, width, _ in clicked["drawn"]] == [1000, 1000, 200]
    assert [round(width) for _, _, width, _ in whole["drawn"]] == [1000, 500, 100, 400]


def test_zoom_stays_within_the_call() -> None:
    wheel = ("flame:wheel", {"deltaY": 1, "clientX": 0})
    left = ("flame:keydown", {"key": "ArrowLeft"})
    seen = looked_at(("flame:wheel", {"deltaY": -1, "clientX": 0}), left, wheel, wheel)
    assert [each["drawn"][1][2] + 0.5 for each in seen] == pytest.approx([500, 625, 625, 500, 500])
