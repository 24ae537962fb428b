"""The live stream on the real buffer, through a real web app: sockets, plain HTTP, limits, access, the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import ormsgpack
import pytest
import redis
import yaml
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mdtasks.client import Bar, StreamRefusedError, astream, stream
from mdtasks.client.once import replay as kept_of
from mdtasks.domain.errors import UnavailableError
from mdtasks.domain.jobs import Interval
from mdtasks.domain.replay import Entry, Position, StreamKey, Window
from mdtasks.domain.stream import Live
from mdtasks.flows.deps import Deps
from mdtasks.settings import Settings
from mdtasks.store.outbox import silence
from mdtasks.web.stream.frames import entry_frame, gap_frame, resumed_frame, stream_name, window_frame
from mdtasks.web.stream.protocol import parse_message
from tests.integration.cli_calls import Cli
from tests.integration.stream_document import check, document, known
from tests.integration.streaming import Publisher
from tests.integration.web_server import served


@pytest.fixture
def publisher(deps: Deps) -> Publisher:
    """Publishes bars of BTC-USD and ETH-USD into the real buffer."""
    return Publisher(deps)


def url_of(client: httpx.Client, query: str = "") -> str:
    """Frames are messages of their own where the query does not say otherwise: these tests take them one by one."""
    asked = query if "batch" in query else f"batch=0&{query}"
    return f"{str(client.base_url).rstrip('/').replace('http', 'ws')}/ws/bars?{asked}"


@contextmanager
def connected(client: httpx.Client, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    """A socket of the stream."""
    with connect(url_of(client, query), **options) as connection:
        yield connection


def frame(connection: ClientConnection) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(connection.recv(timeout=20))
    check(said)  # all that these tests are told is what the document says
    return said


def ask(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def test_a_socket_says_hello_then_what_is_kept_then_what_is_live(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 3)
    with connected(client, "symbols=BTC-USD,ETH-USD&last=2") as socket:
        hello = frame(socket)
        assert (hello["type"], hello["protocol"], hello["limits"]["symbols"]) == ("hello", 1, 500)
        assert set(hello["positions"]) == {"BTC-USD", "ETH-USD"}
        snapshots = {said["symbol"]: said for said in (frame(socket), frame(socket))}
        assert [entry["close"] for entry in snapshots["BTC-USD"]["entries"]] == [2.0, 3.0]
        assert snapshots["ETH-USD"]["entries"] == []
        publisher.bars("ETH-USD", 1)
        live = frame(socket)
        assert (live["type"], live["symbol"], live["interval"], live["close"]) == ("bar", "ETH-USD", "1m", 1.0)
        assert live["position"].endswith(":1")


def test_a_position_is_gone_on_from_and_another_epoch_is_told(
    client: httpx.Client, publisher: Publisher, redis_client: redis.Redis
) -> None:
    publisher.bars("BTC-USD", 3)
    with connected(client, "symbols=BTC-USD") as socket:
        frame(socket)
        position = frame(socket)["position"]
    publisher.bars("BTC-USD", 2)
    with connected(client, f"symbols=BTC-USD,ETH-USD&since={position},") as socket:
        frame(socket)
        said = [frame(socket) for _ in range(4)]
        assert [each["close"] for each in said if each["type"] == "bar"] == [4.0, 5.0]
        assert {each["type"] for each in said} == {"resumed", "bar", "snapshot"}
        redis_client.flushall()
        publisher.bars("BTC-USD", 1)
        anew = frame(socket)
        assert (anew["type"], anew["reason"]) == ("resync", "epoch_changed")
        assert anew["entries"][-1]["close"] == 6.0
    with connected(client, f"symbols=BTC-USD&since={position}") as socket:
        frame(socket)
        assert frame(socket)["type"] == "resync"


def test_messages_follow_leave_and_are_refused_by_name(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 1)
    with connected(client) as socket:
        assert frame(socket)["positions"] == {}
        ask(socket, op="ping", id=7)
        assert frame(socket).items() >= {"type": "pong", "id": 7}.items()
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"op": "dance"}, "op"),
            ({"op": "subscribe", "symbols": []}, "symbols"),
            ({"op": "subscribe", "symbols": ["BTC-USD"], "interval": "7m"}, "interval"),
            ({"op": "subscribe", "symbols": ["BTC-USD"], "since": {"BTC-USD": "x"}}, "since"),
            ({"op": "subscribe", "symbols": ["BTC-USD"], "since": {"ETH-USD": "e:1"}}, "since"),
            ({"op": "subscribe", "symbols": ["NOBODY"]}, "symbol"),
            ({"op": "subscribe", "symbol": "BTC-USD"}, "symbol"),
        ]
        for message, field in wrong:
            ask(socket, **message)
            refused = frame(socket)
            assert (refused["type"], refused["field"]) == ("error", field), message
            assert refused["hint"], message
        socket.send("no json")
        assert frame(socket)["field"] == "message"
        ask(socket, op="subscribe", symbols=["BTC-USD"])
        assert frame(socket)["type"] == "snapshot"
        ask(socket, op="unsubscribe", symbols=["BTC-USD", "ETH-USD"])
        assert frame(socket) == {"type": "unsubscribed", "symbols": ["BTC-USD"], "interval": "1m"}


def test_messages_are_arrays_where_nothing_else_is_asked_for(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 2)
    with connect(url_of(client, "symbols=BTC-USD").replace("batch=0&", "")) as socket:
        messages = [orjson.loads(socket.recv(20)) for _ in range(2)]
        assert [said["type"] for message in messages for said in message] == ["hello", "snapshot"]
    with connect(url_of(client, "symbols=NOBODY").replace("batch=0&", "")) as socket:
        assert [said["field"] for said in orjson.loads(socket.recv(20))] == ["symbol"]


def test_frames_come_as_msgpack_where_asked_for(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 2)
    with connected(client, "symbols=BTC-USD&format=msgpack&batch=1") as socket:
        messages = [ormsgpack.unpackb(socket.recv(20, decode=False)) for _ in range(2)]
        assert [said["type"] for message in messages for said in message] == ["hello", "snapshot"]
        socket.send(ormsgpack.packb({"op": "ping"}))
        assert [said["type"] for said in ormsgpack.unpackb(socket.recv(20, decode=False))] == ["pong"]


def test_messages_are_deflated_where_the_client_can_inflate(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 50)
    for asked, agreed in (("deflate", ["permessage-deflate"]), (None, [])):
        with connected(client, "symbols=BTC-USD", compression=asked) as socket:
            assert [each.name for each in socket.protocol.extensions] == agreed
            assert frame(socket)["type"] == "hello"
            assert len(frame(socket)["entries"]) == 50


def test_quotes_come_to_who_asked(client: httpx.Client, publisher: Publisher) -> None:
    with connected(client, "symbols=BTC-USD&quotes=1") as socket:
        assert [frame(socket)["type"] for _ in range(2)] == ["hello", "snapshot"]
        publisher.quote("BTC-USD", 41.5)
        said = frame(socket)
        assert (said["type"], said["symbol"], said["bid"]) == ("quote", "BTC-USD", 41.5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("symbols=BTC-USD&since=e:1,e:2", "since"),
        ("symbols=NOBODY", "symbol"),
        ("symbol=BTC-USD", "symbol"),
        ("last=x", "last"),
    ],
)
def test_a_wrong_query_is_told_and_the_socket_closed(client: httpx.Client, query: str, field: str) -> None:
    with connected(client, query) as socket:
        said = orjson.loads(socket.recv(timeout=20))
        # What cannot be read as a whole has not said how it wants its messages.
        refused = said[0] if isinstance(said, list) else said
        check(refused)
        assert (refused["type"], refused["field"]) == ("error", field)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_another_sites_page_opens_no_socket(client: httpx.Client, settings: Settings) -> None:
    with pytest.raises(InvalidStatus) as refused, connected(client, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with connected(client, origin=str(client.base_url).rstrip("/")) as socket:
        assert frame(socket)["type"] == "hello"


def test_with_a_token_the_stream_is_open_but_not_to_another_sites_page(settings: Settings, deps: Deps) -> None:
    with served(settings.model_copy(update={"api_token": SecretStr("s3cret")})) as client:
        with connected(client, "symbols=BTC-USD") as socket:
            assert frame(socket)["type"] == "hello"
        with pytest.raises(InvalidStatus), connected(client, origin="http://evil.example"):
            pass


def test_limits_are_told(settings: Settings, deps: Deps) -> None:
    limits = {"ws_max_symbols": 1, "ws_max_per_address": 1}
    with served(settings.model_copy(update=limits)) as client, connected(client) as socket:
        assert frame(socket)["limits"]["symbols"] == 1
        ask(socket, op="subscribe", symbols=["BTC-USD", "ETH-USD"])
        assert "WS_MAX_SYMBOLS" in frame(socket)["hint"]
        with connected(client) as second:
            assert frame(second)["code"] == "too_many_clients"
            with pytest.raises(ConnectionClosed) as closed:
                second.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        assert client.get("/replay/BTC-USD", headers={"Accept": "text/event-stream"}).status_code == 429


def test_a_server_that_stops_tells_its_clients_to_come_back(settings: Settings, deps: Deps) -> None:
    with ExitStack() as stay:
        with served(settings) as client:
            socket = stay.enter_context(connected(client, "symbols=BTC-USD"))
            assert [frame(socket)["type"] for _ in range(2)] == ["hello", "snapshot"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_the_same_over_plain_http(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 3)
    kept = client.get("/replay/BTC-USD", params={"last": 1}).json()
    assert kept.keys() == {"symbol", "interval", "position", "resumed", "entries"}
    assert [entry["close"] for entry in kept["entries"]] == [3.0]
    assert not kept["resumed"]
    publisher.bars("BTC-USD", 1)
    since = client.get("/replay/BTC-USD", params={"since": kept["position"], "wait": 30}).json()
    assert since["resumed"]
    assert [entry["close"] for entry in since["entries"]] == [4.0]
    nothing = client.get("/replay/BTC-USD", params={"since": since["position"], "wait": 0.05}).json()
    assert (nothing["resumed"], nothing["entries"], nothing["position"]) == (True, [], since["position"])
    for path, params, field in [
        ("/replay/BTC-USD", {"since": "x"}, "since"),
        ("/replay/BTC-USD", {"wait": "61"}, "wait"),
        ("/replay/NOBODY", {}, "symbol"),
        ("/replay/BTC-USD", {"interval": "7m"}, "interval"),
    ]:
        refused = client.get(path, params=params)
        assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_a_long_poll_returns_at_the_first_new_entry(
    client: httpx.Client, publisher: Publisher, eventually: Callable[..., None], settings: Settings
) -> None:
    position = client.get("/replay/BTC-USD").json()["position"]

    async def poll() -> Any:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as poller:
            waiting = asyncio.create_task(poller.get("/replay/BTC-USD", params={"since": position, "wait": 50}))
            await asyncio.sleep(0)
            publishing = asyncio.to_thread(publisher.bars, "BTC-USD", 1)
            _, answer = await asyncio.gather(publishing, waiting)
            return answer.json()

    assert [entry["close"] for entry in asyncio.run(poll())["entries"]] == [1.0]


def test_server_sent_events_resume_by_their_last_id(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 2)
    headers = {"Accept": "text/event-stream"}
    with client.stream("GET", "/replay/BTC-USD", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        event = _event(lines)
        assert event["event"] == "snapshot"
        assert len(event["data"]["entries"]) == 2
        publisher.bars("BTC-USD", 1)
        live = _event(lines)
        assert (live["event"], live["data"]["close"], live["data"]["position"]) == ("bar", 3.0, live["id"])
    publisher.bars("BTC-USD", 1)
    with client.stream("GET", "/replay/BTC-USD", headers={**headers, "Last-Event-ID": live["id"]}) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert _event(lines)["event"] == "resumed"
        assert _event(lines)["data"]["close"] == 4.0


def _event(lines: Iterator[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("id", "event", "data"):
            found[name] = json.loads(value) if name == "data" else value
        if not line and found:
            return found
    raise AssertionError("the stream ended")


def test_the_client_yields_each_bar_once_over_a_restart_of_server_and_redis(
    settings: Settings, deps: Deps, publisher: Publisher, redis_client: redis.Redis
) -> None:
    publisher.bars("BTC-USD", 2)
    with served(settings) as first:
        port = first.base_url.port or 0
        updates = stream(["BTC-USD"], url=str(first.base_url))
        got = [next(updates) for _ in range(2)]
        publisher.bars("BTC-USD", 1)
        got.append(next(updates))
    redis_client.flushall()
    publisher.bars("BTC-USD", 2)
    with served(settings, port=port):
        got += [next(updates) for _ in range(2)]
        updates.close()
    assert [each.close for each in got if isinstance(each, Bar)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [bool(each.position) for each in got if isinstance(each, Bar)] == [False, True, True, True, True]


def test_the_client_goes_on_from_a_position_of_an_earlier_life(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 2)
    url = str(client.base_url)
    updates = stream(["BTC-USD"], url=url)
    position = [next(updates) for _ in range(2)][-1].position  # type: ignore[union-attr]
    updates.close()
    publisher.bars("BTC-USD", 1)

    async def rest() -> float:
        async for each in astream(["BTC-USD"], url=url, since={"BTC-USD": position}):
            assert isinstance(each, Bar)
            return each.close
        raise AssertionError

    assert asyncio.run(rest()) == 3.0
    kept = kept_of("BTC-USD", url=url, since=position)
    assert (kept.resumed, [each.ts for each in kept.entries]) == (True, [kept.entries[0].ts])


def test_the_client_gives_up_what_is_refused_and_says_why(client: httpx.Client) -> None:
    url = str(client.base_url)
    with pytest.raises(StreamRefusedError, match="NOBODY") as refused:
        next(stream(["NOBODY"], url=url))
    assert refused.value.as_dict()["code"] == "unknown_symbol"
    with pytest.raises(StreamRefusedError, match="NOBODY"):
        kept_of("NOBODY", url=url)
    with pytest.raises(UnavailableError):
        kept_of("BTC-USD", url="http://127.0.0.1:9")


def test_the_command_shows_what_is_kept(client: httpx.Client, publisher: Publisher, cli: Cli) -> None:
    publisher.bars("BTC-USD", 3)
    url = ("--url", str(client.base_url))
    shown = cli("replay", "BTC-USD", "--last", "2", *url)
    assert shown.code == 0, shown.err
    assert len(shown.out.splitlines()) == 3
    document = cli("replay", "BTC-USD", "--json", *url).json[0]
    assert [entry["close"] for entry in document["entries"]] == [1.0, 2.0, 3.0]
    since = cli("replay", "BTC-USD", "--since", document["position"], "--json", *url).json[0]
    assert (since["resumed"], since["entries"]) == (True, [])
    assert cli("replay", "BTC-USD", "ETH-USD", "--since", "e:1", *url).code == 2
    assert cli("replay", "NOBODY", "--json", *url).json["code"] == "unknown_symbol"


def test_the_scrape_shows_the_stream(client: httpx.Client, publisher: Publisher) -> None:
    publisher.bars("BTC-USD", 1)
    with connected(client, "symbols=BTC-USD") as socket:
        frame(socket)
        frame(socket)
        publisher.bars("BTC-USD", 1)
        frame(socket)
        ask(socket, op="ping")
        frame(socket)
        text = client.get("/metrics").text
    assert "ws_clients 1.0" in text
    assert 'ws_resumes_total{outcome="snapshot"}' in text
    assert "ws_publish_latency_seconds_count" in text


def test_the_document_is_served_and_names_each_frame_and_message(client: httpx.Client) -> None:
    answer = client.get("/asyncapi.yaml")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/yaml")
    assert yaml.safe_load(answer.text) == document()
    messages = document()["channels"]["bars"]["messages"]
    named = {
        reference["$ref"].rpartition("/")[2]
        for each in document()["operations"].values()
        for reference in each["messages"]
    }
    assert set(messages) == named == known()


def test_what_is_seldom_told_is_what_the_document_says_too() -> None:
    quiet = Entry(3, 0, silence(datetime(2026, 11, 24, 15, tzinfo=UTC)).body)
    name, at, to = stream_name("SPY", Interval.M1), Position("e", 2), Position("e", 3)
    window = Window(StreamKey(1, Interval.M1), to, [quiet], resumed=False)
    for each in (
        entry_frame(Live("e", quiet), name),
        gap_frame(at, to, name),
        gap_frame(None, to, name),
        resumed_frame(at, to, 1, name),
        window_frame("resync", window, name, reason="out_of_reach"),
    ):
        assert check(orjson.loads(each.text)) == each.kind


def test_what_the_document_calls_a_message_is_understood_and_nothing_else() -> None:
    for message in (
        {"op": "subscribe", "symbols": ["SPY"], "interval": "1m", "last": 0, "since": {"SPY": "e:1"}, "quotes": True},
        {"op": "unsubscribe", "symbols": ["SPY"], "interval": "1d"},
        {"op": "ping", "id": "x"},
    ):
        assert check(message) == message["op"]
        parse_message(orjson.dumps(message).decode())
