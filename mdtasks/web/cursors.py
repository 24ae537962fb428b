"""Cursors of pages: where the last one ended, and when the first was asked for, bound to the question.

Later pages see the window as it was for the first: one that ends now, or counts sessions back, does not move on.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

import orjson

from mdtasks.domain.bars import from_us, to_us
from mdtasks.domain.errors import InvalidRequestError
from mdtasks.domain.reading import Reading
from mdtasks.flows.reading import Place


@dataclass(frozen=True, slots=True)
class Cursor:
    """``asked_at``: when the first page was. ``after``: the last row that was given."""

    asked_at: datetime
    after: Place

    def text(self, question: Reading) -> str:
        """The cursor as it travels."""
        content = [_mark(question), to_us(self.asked_at), self.after.symbol, self.after.ts_us]
        return base64.urlsafe_b64encode(orjson.dumps(content)).decode().rstrip("=")

    @classmethod
    def of(cls, text: str, question: Reading, now: datetime) -> Cursor:
        """The cursor out of its text. Raises InvalidRequestError for what is none, or one of another question."""
        try:
            content = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            mark, asked_us, symbol, ts_us = content
            cursor = cls(from_us(asked_us), Place(str(symbol), to_us(from_us(ts_us))))
        except (binascii.Error, TypeError, ValueError, OverflowError) as exc:
            raise InvalidRequestError(
                "this is no cursor", field="cursor", hint="take next_cursor of the page before as it is"
            ) from exc
        if mark != _mark(question) or cursor.asked_at > now:
            raise InvalidRequestError(
                "this cursor belongs to another question",
                field="cursor",
                hint="keep every parameter but limit as it was, or start without a cursor",
            )
        return cursor


def _mark(question: Reading) -> str:
    return blake2b(repr(question).encode(), digest_size=9).hexdigest()
