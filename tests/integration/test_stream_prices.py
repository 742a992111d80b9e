"""stream_prices through its handler, with a WebSocket API that takes its posts."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.kit import ScratchDatabase, make_user
from tests.kit.functions import Context, function_environment, load_function
from tests.kit.realtime import soon
from trading.quotes.feed import Clock, wait_for_lease
from trading.settings import ConfigurationError
from trading.sockets import sockets
from trading.store.database import Database
from trading.store.quotes import Lease

RUN_SECONDS = 2.0
FEED_MARGIN_SECONDS = 4.0  # the handler ends when less than this is left


@dataclass
class SocketApi:
    """An @connections API in this process: what was posted to whom. Unknown connections are gone (410)."""

    endpoint: str
    open: set[str] = field(default_factory=set)
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def socket_api() -> Iterator[SocketApi]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            connection_id = unquote(self.path.rpartition("/")[2])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.got.append((connection_id, json.loads(body, parse_float=Decimal)))
            self.send_response(200 if connection_id in api.open else 410)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api = SocketApi(f"http://127.0.0.1:{server.server_address[1]}/realtime")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield api
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Deadline(Context):
    """A context whose time runs out."""

    ends: float = 0.0

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.ends - time.monotonic()) * 1000))


@dataclass
class Function:
    """The function under test."""

    database: ScratchDatabase
    handler: Callable[[dict[str, Any], Any], Any]

    def run(self, seconds: float = RUN_SECONDS) -> dict[str, Any]:
        return self.handler({}, Deadline(ends=time.monotonic() + seconds + FEED_MARGIN_SECONDS))

    def owner(self, statement: str, *parameters: object) -> list[Any]:
        with self.database.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def listen(self, connection_id: str, symbols: list[str]) -> None:
        self.owner(
            "INSERT INTO connections "
            "(connection_id, user_id, role, authenticated_at, token_expires_at, channels, symbols) "
            "VALUES (%s, %s, 'trader', now(), now() + interval '1 hour', '{market_data}', %s)",
            connection_id,
            make_user(self.database).user_id,
            symbols,
        )


@pytest.fixture
def function(
    database: ScratchDatabase, redis_url: str, socket_api: SocketApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Function]:
    with function_environment(
        monkeypatch,
        tmp_path,
        database=database,
        redis_url=redis_url,
        role="function_prices",
        CONNECTIONS_ENDPOINT=socket_api.endpoint,
        QUOTE_SEED="7",
    ):
        sockets.cache_clear()
        yield Function(database, load_function("stream_prices"))
        if sockets.cache_info().currsize:
            if client := sockets()._client:
                client.close()
            sockets.cache_clear()


def test_one_run_quotes_every_instrument_several_times_a_second_and_gives_the_lease_back(function: Function) -> None:
    outcome = function.run()

    assert outcome["outcome"] == "done"
    # Eight are due; a busy machine leaves some out.
    assert 3 <= outcome["steps"] <= 9
    assert function.owner(
        "SELECT count(*) > 60, count(*) = count(q.symbol), min(q.source), bool_and(q.ask > q.bid) "
        "FROM instruments i LEFT JOIN quotes q USING (symbol)"
    ) == [(True, True, "simulated", True)]
    assert function.owner("SELECT fence, expires_at <= clock_timestamp() FROM feed_leases") == [(1, True)]


def test_the_next_run_goes_on_from_the_prices_before(function: Function) -> None:
    function.run(0.5)
    function.owner("UPDATE quotes SET bid = 1.3, ask = 1.3001 WHERE symbol = 'EURUSD'")
    function.run(0.5)

    ((bid,),) = function.owner("SELECT bid FROM quotes WHERE symbol = 'EURUSD'")
    assert abs(bid - Decimal("1.3")) < Decimal("0.01")


def test_subscribers_get_prices_of_their_symbols_as_they_move(function: Function, socket_api: SocketApi) -> None:
    socket_api.open.add("one=")
    function.listen("one=", ["EURUSD", "BTCUSD"])

    function.run()

    assert {connection_id for connection_id, _ in socket_api.got} == {"one="}
    assert {message["type"] for _, message in socket_api.got} == {"market_data"}
    data = [message["data"] for _, message in socket_api.got]
    assert {each["symbol"] for each in data} == {"EURUSD", "BTCUSD"}
    assert 6 <= len(data) <= 18
    for each in data:
        assert each["ask"] - each["bid"] == each["spread"] > 0


def test_a_subscriber_that_is_gone_is_forgotten(function: Function, socket_api: SocketApi) -> None:
    function.listen("gone", ["EURUSD"])

    function.run()

    assert len(socket_api.got) == 1
    assert function.owner("SELECT * FROM connections") == []


def test_while_another_copy_keeps_the_lease_there_is_nothing_to_do(function: Function) -> None:
    function.owner("INSERT INTO feed_leases VALUES ('quotes', 5, clock_timestamp() + interval '1 hour')")

    assert function.run(0.5) == {"outcome": "not_needed", "steps": 0}
    assert function.owner("SELECT count(*) FROM quotes") == [(0,)]
    assert function.owner("SELECT fence FROM feed_leases WHERE name = 'quotes'") == [(5,)]


def test_a_copy_that_died_is_followed_when_its_lease_has_run_out(function: Function) -> None:
    function.owner("INSERT INTO feed_leases VALUES ('quotes', 5, clock_timestamp() + interval '1 second')")

    outcome = function.run(2.5)

    assert outcome["outcome"] == "done"
    assert outcome["steps"] >= 2
    assert function.owner("SELECT fence FROM feed_leases WHERE name = 'quotes'") == [(6,)]


def test_the_next_copy_takes_over_without_a_gap(function: Function) -> None:
    # given a copy that has time left for a minute
    outcomes: list[dict[str, Any]] = []
    before = threading.Thread(target=lambda: outcomes.append(function.run(60)))
    before.start()
    soon(lambda: function.owner("SELECT count(*) > 0 FROM quotes") == [(True,)])

    # when the next one starts
    after = Database(lambda: function.database.url_for("function_prices"))
    lease = wait_for_lease(after, Clock(lambda: datetime.now(UTC), time.monotonic, time.sleep, lambda: 60_000))
    ((age,),) = function.owner("SELECT clock_timestamp() - max(received_at) FROM quotes")
    after.close()
    before.join()

    # then the first has ended, with quotes to the last, long before a lease would have run out
    assert lease == Lease("quotes", 2)
    assert [outcome["outcome"] for outcome in outcomes] == ["done"]
    assert age < timedelta(seconds=2)


def test_a_copy_that_was_taken_over_says_so(function: Function) -> None:
    def take_over() -> None:
        with function.database.connect() as connection:
            while connection.execute("UPDATE feed_leases SET fence = fence + 1").rowcount == 0:
                time.sleep(0.01)

    thief = threading.Thread(target=take_over)
    thief.start()
    outcome = function.run()
    thief.join()

    assert outcome["outcome"] == "taken_over"


def test_prices_that_nobody_can_make_are_a_fault_of_the_environment(
    function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTE_PROVIDER", "nobody")

    with pytest.raises(ConfigurationError, match="QUOTE_PROVIDER"):
        function.run()
    assert function.owner("SELECT expires_at <= clock_timestamp() FROM feed_leases") == [(True,)]


class TestReplay:
    """Recorded quotes in place of invented ones."""

    @pytest.fixture
    def recording(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A quote a second of one symbol, for as long as any test may last."""
        path = tmp_path / "usdjpy-ticks.csv"
        rows = [
            f"2013-01-01T22:{n // 60:02d}:{n % 60:02d}Z,{86 + n / 1000:.3f},{87 + n / 1000:.3f}" for n in range(600)
        ]
        path.write_text("\n".join(["timestamp,bid,ask", *rows]) + "\n")
        monkeypatch.setenv("QUOTE_PROVIDER", "replay")
        monkeypatch.setenv("QUOTE_REPLAY_FILE", str(path))
        monkeypatch.setenv("QUOTE_REPLAY_START", datetime.now(UTC).isoformat())
        return path

    def test_its_quotes_are_taken_as_fresh_ones_and_other_symbols_get_none(
        self, function: Function, recording: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUOTE_REPLAY_SPEED", "20")

        outcome = function.run()

        assert outcome["outcome"] == "done"
        ((symbol, source, bid, spread, fresh),) = function.owner(
            "SELECT symbol, source, bid, ask - bid, quoted_at > clock_timestamp() - interval '2 seconds' FROM quotes"
        )
        assert (symbol, source, spread, fresh) == ("USDJPY", "replay", 1, True)
        # two seconds, twenty times as fast, a tick a second
        assert 30 <= (bid - 86) * 1000 <= 60

    def test_a_symbol_that_is_no_instrument_is_a_fault_of_the_environment(
        self, function: Function, recording: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = recording.rename(recording.with_name("nosuch-ticks.csv"))
        monkeypatch.setenv("QUOTE_REPLAY_FILE", str(other))

        with pytest.raises(ConfigurationError, match="NOSUCH"):
            function.run(0.5)

    @pytest.mark.parametrize("name", ["QUOTE_REPLAY_FILE", "QUOTE_REPLAY_SPEED"])
    def test_what_is_missing_or_wrong_is_named(
        self, function: Function, recording: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "" if name == "QUOTE_REPLAY_FILE" else "0")

        with pytest.raises(ConfigurationError, match=name):
            function.run(0.5)
