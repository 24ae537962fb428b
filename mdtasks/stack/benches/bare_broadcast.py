"""What the stream is measured beside: the websockets library's own broadcast, with nothing behind it.

``python -m mdtasks.stack.benches.bare_broadcast`` listens on a free port and says which. Each line on standard input
is a JSON object, symbol -> frame, that it broadcasts to those who follow the symbol. No buffer, no positions, no bound.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, broadcast, serve


async def main() -> None:
    """Serve until standard input ends."""
    followers: defaultdict[str, set[ServerConnection]] = defaultdict(set)

    async def follow(connection: ServerConnection) -> None:
        assert connection.request is not None
        symbols = parse_qs(urlsplit(connection.request.path).query)["symbols"][0].split(",")
        for symbol in symbols:
            followers[symbol].add(connection)
        await connection.send('{"type":"hello"}')
        await connection.wait_closed()
        for symbol in symbols:
            followers[symbol].discard(connection)

    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with serve(follow, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := await lines.readline():
            for symbol, frame in json.loads(line).items():
                broadcast(followers[symbol], frame)


if __name__ == "__main__":
    asyncio.run(main())
