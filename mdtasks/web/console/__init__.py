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
   is who asked.
5. A test in ``tests/integration/test_console_*.py`` over HTTP, and one in ``tests/browser/`` in a real Chromium, at
   1280 and at 390 pixels, light and dark: its fixture fails on whatever the browser's console complains of.

Charts that a script draws: ``render.page(…, charts=True)`` loads Plotly (``assets.py``) before the page's own module;
small ones are SVG from ``sparkline.py``. A page works without scripts; ``static/*.js`` are modules that add to it.
"""
