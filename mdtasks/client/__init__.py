"""A client of the live stream, for any Python program: every bar once and in order, whatever happens to the connection.

>>> from mdtasks.client import stream                                   # doctest: +SKIP
>>> for each in stream(["SPY", "AAPL"], url="http://127.0.0.1:8642"):
...     print(each.symbol, each.ts, each.close)

``astream`` is the same for asyncio. Both connect again by themselves, with growing pauses, and go on where they were:
the server tells what was missed, or a snapshot out of which only what the caller has not had is yielded. Needs neither
settings nor servers of its own.
"""

from mdtasks.client.aio import astream
from mdtasks.client.frames import Bar, IntervalComplete, Quote, StreamRefusedError, Update
from mdtasks.client.sync import stream

__all__ = ["Bar", "IntervalComplete", "Quote", "StreamRefusedError", "Update", "astream", "stream"]
