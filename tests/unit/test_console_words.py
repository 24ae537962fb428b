"""How the console writes numbers and times, what its verdicts say, and its small charts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from mdtasks.settings import Settings
from mdtasks.web.console import layout, words
from mdtasks.web.console.sparkline import HEIGHT, WIDTH, sparkline
from mdtasks.web.console.verdict import Concern, Verdict

SPANS = [(0, "0 s"), (4.4, "4 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d"), (-3, "0 s")]


@pytest.mark.parametrize(("seconds", "said"), SPANS)
def test_a_span_is_said_in_its_largest_whole_unit(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_the_script_says_spans_in_the_same_words() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the PATH")
    script = files("mdtasks.web.console").joinpath("static", "ages.js").read_text()
    calls = f"\nconsole.log(JSON.stringify({json.dumps([each for each, _ in SPANS])}.map(span)))"
    command = [node, "--input-type=module", "-e", script + calls]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [said for _, said in SPANS]


@pytest.mark.parametrize(
    ("share", "said"), [(None, words.UNKNOWN), (0, "0 %"), (0.005, "0.50 %"), (0.0234, "2.3 %"), (-0.5, "-50 %")]
)
def test_a_share_is_said_as_fine_as_it_is_small(share: float | None, said: str) -> None:
    assert words.percent(share) == said


@pytest.mark.parametrize("say", [words.count, words.span, words.age, words.moment, words.minute, words.score])
def test_what_is_not_known_is_said_so(say: Callable[[None], str]) -> None:
    assert say(None) == words.UNKNOWN


def test_an_age_bears_its_moment_for_the_script() -> None:
    at = datetime.now(UTC) - timedelta(hours=3)
    assert re.fullmatch(
        rf'<time class="age" datetime="{at:%Y-%m-%dT%H:%M:%S}\+00:00" title=".* UTC">3 h</time>', words.age(at)
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("try `a <b>`", "try <code>a &lt;b&gt;</code>"),
        ("`a`, `b`; c", "<code>a</code>, <code>b</code>; c"),
        ("an open ` stays", "an open ` stays"),
    ],
)
def test_what_is_between_backticks_is_code(said: str, shown: str) -> None:
    assert words.coded(said) == shown


def test_a_line_runs_from_the_oldest_to_the_newest_within_its_frame() -> None:
    drawn = sparkline([1.0, 0.5, -3.0, 9.0], 'its "health"')
    points = [tuple(map(float, each.split(","))) for each in re.findall(r"[\d.]+,[\d.]+", drawn)]
    assert len(points) == 4
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)
    assert points[0][1] < points[1][1] < points[2][1]  # higher is better
    assert "its &#34;health&#34;" in drawn
    assert sparkline([], "nothing") == ""


def test_the_worst_concern_makes_the_verdict() -> None:
    warn, bad = Concern("warn", "late", "/"), Concern("bad", "away", "/")
    assert (Verdict([]).level, Verdict([]).words) == ("good", "All is well")
    assert (Verdict([warn]).level, Verdict([warn]).words) == ("warn", "1 thing needs attention")
    assert Verdict([warn, warn]).words == "2 things need attention"
    assert (Verdict([bad, warn]).level, Verdict([bad, warn]).words) == ("bad", "Something is down")


def test_a_page_is_found_in_the_navigation_and_foreign_addresses_are_no_scripts() -> None:
    assert layout.here("/") == "/"
    assert layout.here("/console/dead-letters/some:1") == "/console/dead-letters"
    assert layout.here("/console/login") == ""
    settings = Settings.model_validate({"flower_url": "javascript:alert(1)", "prometheus_url": "http://p:9090/"})
    assert [each.path for each in layout.navigation(settings) if each.away] == ["http://p:9090/alerts"]
