"""The console: the pages for people. `/` is the overview, all other pages are below `/console`.

How a page is added:

1. A module here, named as the page: an endpoint that reads (``run_in_threadpool`` where it waits for a server), calls
   the same flow as the command of that name, and answers ``render.page(request, "providers.html", …)``. A rule that a
   flow does not have belongs into a flow, not here. The first line of the endpoint's docstring is what
   `/console/api` tells of it.
2. A template in ``templates/`` that extends ``base.html`` (blocks: ``title``, ``main``, ``scripts``) and is built of
   the macros in ``parts.html`` (cards, facts, bars, badges, tables, forms). No style attribute, no script element with
   content: the policy refuses both. What a page lacks goes into ``static/console.css``, in its scales.
3. A line in ``routes()`` of ``routes.py``, and one in ``layout.PAGES`` so that every page leads there.
4. A form posts (``parts.form`` brings its token): the endpoint gets it checked and parsed as ``request.state.form``,
   changes what it is asked to, and answers ``render.after_post(path, "what became of it")``. ``request.state.actor``
   is who asked. Where people type, ``forms.examined`` gives the form back as it was sent, and the page shows it again
   with what is wrong at each field (``parts.refused``, ``parts.wrong``, ``parts.attributes``).
5. A test in ``tests/integration/test_console_*.py`` over HTTP, and one in ``tests/browser/`` in a real Chromium: the
   fixture ``console`` fails on whatever the browser complains of, ``console.looked_at(path, name)`` on a page that is
   wider than its screen; it keeps pictures in ``.cache/console`` at 1280 and 390 pixels, light and dark. Look at them.

Charts that a script draws: ``render.page(…, charts=True)`` loads Plotly (``assets.py``) before the page's own module;
its data stand in ``<script type="application/json">``, its colours are the page's (``getComputedStyle``, transparent
backgrounds). Lines over time are ready: ``charts.line`` and ``parts.chart``, with ``static/charts.js``. Small ones are
SVG from ``sparkline.py``. A page works without scripts; ``static/*.js`` add to it.

What a page shows of a server that is away is a dash and the reason, never a zero: ``looks.look`` asks parts at once.
"""
