"""/bars: what is stored, in pages of JSON or whole as csv, arrow or parquet; each answer with a tag of its content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from mdtasks.connections import Database
from mdtasks.domain.adjustment import Adjust
from mdtasks.domain.errors import InvalidRequestError, UnknownSymbolError
from mdtasks.domain.jobs import Interval, Symbol
from mdtasks.domain.reading import MOST_SYMBOLS, BarRows, Fill, Hours, Reading
from mdtasks.domain.windows import AskedWindow
from mdtasks.flows import reading
from mdtasks.flows.bar_formats import FORMATS, Shape
from mdtasks.flows.deps import Deps
from mdtasks.flows.reading import Opened, Place, Shelf
from mdtasks.web.answers import refusal
from mdtasks.web.caching import accepts_gzip, gzipped, is_known, preferred
from mdtasks.web.cursors import Cursor
from mdtasks.web.downloads import LONGEST_S, Begun, Download
from mdtasks.web.parsing import Query, QueryTime, comma_separated, parse_query

#: The last sessions that are read when no window is given.
_SESSIONS: Final = 5
#: Rows of a page of JSON: by default, and at most.
_LIMIT: Final = 5_000
MOST_ROWS: Final = 50_000
#: Goes up when the same bars are written in other bytes.
_LAYOUT: Final = 1
#: Of an answer that stays true. A day only: bars are deleted one day.
_KEPT: Final = "max-age=86400, immutable"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9.-]")


class OneQuery(Query):
    """Which bars of a symbol, and how they are written."""

    interval: Interval = Interval.M1
    start: QueryTime | None = None
    end: QueryTime | None = None
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    as_of: QueryTime | None = None
    session: Hours = Hours.ALL
    fill: Fill = Fill.NONE
    adjust: Adjust = Adjust.NONE
    format: Literal["json", "csv", "arrow", "parquet"] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    cursor: Annotated[str, Field(max_length=500)] | None = None

    def reading(self, symbols: tuple[str, ...]) -> Reading:
        """The question for these symbols."""
        sessions = self.sessions if self.sessions is not None or self.start is not None else _SESSIONS
        window = AskedWindow(self.start, self.end, sessions)
        return Reading(symbols, self.interval, window, self.as_of, self.session, self.fill, self.adjust)


class ManyQuery(OneQuery):
    """Which bars of which symbols, with commas between them."""

    symbols: Annotated[
        tuple[Symbol, ...], BeforeValidator(comma_separated), Field(min_length=1, max_length=MOST_SYMBOLS)
    ]


async def one(request: Request) -> ASGIApp:
    """Bars of a symbol: JSON in pages; csv, arrow and parquet whole. `as_of`: as they were known then."""
    return await _answer(request, parse_query(request, OneQuery), (request.path_params["symbol"],), many=False)


async def many(request: Request) -> ASGIApp:
    """Bars of many symbols, by symbol and time, each with a column for it."""
    asked = parse_query(request, ManyQuery)
    return await _answer(request, asked, tuple(dict.fromkeys(asked.symbols)), many=True)


async def _answer(request: Request, asked: OneQuery, symbols: tuple[str, ...], *, many: bool) -> ASGIApp:
    question = _Question(request, asked, asked.reading(symbols), many, datetime.now(UTC))
    if question.format == "json":
        return await run_in_threadpool(_page, question)
    if asked.limit is not None or asked.cursor is not None:
        name = "cursor" if asked.limit is None else "limit"
        raise InvalidRequestError(f"{name} is for JSON: {question.format} comes whole", field=name, hint="leave it out")
    return Download(request.state.downloads, question.begin)


def _page(question: _Question) -> Response:
    try:
        return question.begin(question.deps.database).whole()
    except UnknownSymbolError as error:
        return refusal(error, 404)


@dataclass(frozen=True, slots=True)
class _Question:
    """A request for bars, parsed."""

    request: Request
    asked: OneQuery
    reading: Reading
    many: bool
    now: datetime

    @property
    def deps(self) -> Deps:
        deps: Deps = self.request.state.deps
        return deps

    @property
    def format(self) -> str:
        """The format that is asked for by name, or by ``Accept``; else JSON."""
        by_type = {each.media_type.partition(";")[0]: name for name, each in FORMATS.items()}
        return self.asked.format or by_type.get(preferred(self.request, by_type) or "", "json")

    @property
    def packs(self) -> bool:
        """Whether the answer is sent in gzip."""
        return not FORMATS[self.format].packed and accepts_gzip(self.request)

    def begin(self, database: Database) -> Begun:
        """The answer, of which nothing is read yet but its tag; 304 where the client has it already.

        Raises UnknownSymbolError, InvalidRequestError, StoreUnavailableError.
        """
        shelf = Shelf(database, self.deps.calendars)
        cursor = Cursor.of(self.asked.cursor, self.reading, self.now) if self.asked.cursor else None
        limit = (self.asked.limit or _LIMIT) if self.format == "json" else None
        # A cursor keeps a window where it was; as of an instant it stays by itself, and cursors are the same each time.
        still = self.reading.as_of is not None
        began = min(self.now, self._as_of) if still else self.now
        page = _Page(limit, cursor.after if cursor else None, cursor.asked_at if cursor else began)
        asked_at = self.now if still else page.asked_at
        settled = self._may_be_kept() and reading.is_settled(shelf, self._as_of, self.deps.settings.lease_s)
        with ExitStack() as stack:
            opened = stack.enter_context(reading.opened(self.reading, shelf, asked_at, idle_s=LONGEST_S))
            read = None if page.limit is None or opened.is_plain else opened.page(page.limit, page.after)
            # Where a page is not just what is stored, only reading it shows where it ends; it is short.
            seen, may_change = (opened.tag_of(*read), True) if read else opened.tag(page.after, page.most)
            headers = self._headers(self._tag(seen, page), keep=settled and not may_change)
            if is_known(self.request, headers["ETag"]):
                return Begun(304, headers, iter(()), stack.pop_all())
            chunks, more = self._chunks(opened, page, read)
            return Begun(200, headers | more, gzipped(chunks) if self.packs else chunks, stack.pop_all())
        raise AssertionError("the stack swallows nothing")

    def _chunks(
        self, opened: Opened, page: _Page, read: tuple[list[BarRows], Place | None] | None
    ) -> tuple[Iterator[bytes], dict[str, str]]:
        """The bytes, and the headers that go with them. ``read``: the page's rows where they were read already."""
        rows: Iterable[BarRows] = opened.batches() if page.limit is None else ()
        next_at = None
        if page.limit is not None:
            rows, next_at = read or opened.page(page.limit, page.after)
        cursor = None if next_at is None else Cursor(page.asked_at, next_at).text(self.reading)
        about = {**self._about(opened), "next_cursor": cursor}
        shape = Shape(self.reading.interval, "" if self.many else self.reading.symbols[0], about)
        link = {} if cursor is None else {"Link": f'<{self._path_of(cursor)}>; rel="next"'}
        return FORMATS[self.format].encode(rows, shape), link

    def _about(self, opened: Opened) -> dict[str, object]:
        asked = self.reading
        symbols = [part.member.symbol for part in opened.parts]
        return {
            **({"symbols": symbols} if self.many else {"symbol": symbols[0]}),
            "interval": asked.interval.value,
            "start": min(part.window.start for part in opened.parts),
            "end": asked.window.end,
            "as_of": asked.as_of,
            "session": asked.hours.value,
            "fill": asked.fill.value,
            "adjust": asked.adjust,
        }

    def _headers(self, tag: str, *, keep: bool) -> dict[str, str]:
        chosen = FORMATS[self.format]
        shown = "inline" if self.format == "json" else "attachment"
        name = "bars" if self.many else _NOT_IN_NAMES.sub("-", self.reading.symbols[0])
        return {
            "Content-Type": chosen.media_type,
            "Content-Disposition": f'{shown}; filename="{name}-{self.reading.interval}.{chosen.suffix}"',
            "ETag": tag,
            "Cache-Control": _KEPT if keep else "no-cache",
            "Vary": "Accept, Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            **({"Content-Encoding": "gzip"} if self.packs else {}),
        }

    def _tag(self, seen: str, page: _Page) -> str:
        about = (_LAYOUT, seen, self.reading, self.many, self.format, self.packs, page.limit, page.after)
        return f'"{blake2b(repr(about).encode(), digest_size=16).hexdigest()}"'

    @property
    def _as_of(self) -> datetime:
        assert self.reading.as_of is not None
        return self.reading.as_of

    def _may_be_kept(self) -> bool:
        """Whether an answer as of the past can stay true: the window is fixed, and it hangs on nothing but bars."""
        asked = self.reading
        plain = asked.hours is Hours.ALL and asked.fill is Fill.NONE and asked.adjust is Adjust.NONE
        fixed = asked.window.start is not None and asked.window.end is not None and asked.window.end <= self.now
        return asked.as_of is not None and fixed and plain

    def _path_of(self, cursor: str) -> str:
        url = self.request.url.include_query_params(cursor=cursor)
        return f"{url.path}?{url.query}"


@dataclass(frozen=True, slots=True)
class _Page:
    """``limit`` None: all rows. ``asked_at``: when the first page was asked for."""

    limit: int | None
    after: Place | None
    asked_at: datetime

    @property
    def most(self) -> int | None:
        """How many bars tell what a page holds, and whether it is the last."""
        return None if self.limit is None else self.limit + 1
