"""Lists narrowed: orders by every filter, closed orders, closed positions, the profile; and nobody else's rows."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit import MigratedTemplate, TestServers, User
from tests.kit.functions import Answer, bearer, call, function_environment, http_event, load_function, make_token
from tests.kit.orders import Market

ORDERS, HISTORY = "/api/v1/orders", "/api/orders/history"
POSITIONS = "/api/v1/positions"


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def market(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, servers: TestServers, redis_url: str
) -> Iterator[Market]:
    shared.prepare()
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url):
        yield shared


def get(path: str, user: User | uuid.UUID, **query: str) -> Answer:
    event = http_event(
        f"GET {path}",
        query={name.rstrip("_"): value for name, value in query.items()},
        headers=bearer(make_token(user, tier="unmetered")),
    )
    return call(load_function("manage_orders"), event)


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    return [row["id"] for row in answer.body["data"]]


class Book:
    """Four orders of one trader, and as many of another that must never be seen."""

    def __init__(self, market: Market) -> None:
        self.user, self.other = market.user(position_mode="netting"), market.user(position_mode="netting")
        for user in (self.other, self.user):
            self.bought = market.trade(user, client_order_id="mine-1")["order_id"]
            self.sold = market.trade(user, symbol="AAPL", side="sell")["order_id"]
            self.denied = market.trade(user, quantity="900")["order_id"]
            self.resting = market.place(user)["order_id"]


@pytest.fixture
def book(market: Market) -> Book:
    return Book(market)


class TestOrders:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({}, ["resting", "denied", "sold", "bought"]),
            ({"symbol": "aapl"}, ["sold"]),
            ({"side": "SELL"}, ["sold"]),
            ({"side": "buy"}, ["resting", "denied", "bought"]),
            ({"order_type": "LIMIT"}, ["resting"]),
            ({"order_type": "stop"}, []),
            ({"client_order_id": "mine-1"}, ["bought"]),
            ({"client_order_id": "mine-2"}, []),
            ({"status": "PENDING"}, ["resting"]),
            ({"status": "PARTIAL"}, []),
            ({"status": "PENDING", "symbol": "AAPL"}, []),
            ({"status": "PENDING,REJECTED"}, ["resting", "denied"]),
            ({"symbol": "EURUSD", "side": "BUY", "status": "FILLED"}, ["bought"]),
            ({"symbol": "EURUSD", "client_order_id": "mine-1", "side": "SELL"}, []),
            ({"symbol": "GBPUSD"}, []),
        ],
    )
    def test_each_filter_narrows_and_all_together(self, book: Book, query: dict[str, str], expected: list[str]) -> None:
        assert ids(get(ORDERS, book.user, **query)) == [getattr(book, name) for name in expected]

    def test_a_period_has_its_beginning_and_not_its_end(self, market: Market, book: Book) -> None:
        # given the moment at which an order was made
        created = next(row["created_at"] for row in market.rows("orders", book.user) if str(row["id"]) == book.sold)
        moment = created.isoformat()
        abroad = created.astimezone(datetime.strptime("+05:30", "%z").tzinfo).isoformat()
        just_after = (created + timedelta(microseconds=1)).isoformat()
        # then it is in the period that begins there, and not in the one that ends there
        assert book.sold in ids(get(ORDERS, book.user, from_=moment))
        assert book.bought not in ids(get(ORDERS, book.user, from_=moment))
        assert ids(get(ORDERS, book.user, to=moment)) == [book.bought]
        assert ids(get(ORDERS, book.user, from_=abroad, to=just_after)) == [book.sold]

    @pytest.mark.parametrize("field", ["from", "to"])
    @pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z"])
    def test_any_moment_is_one(self, book: Book, field: str, moment: str) -> None:
        found = ids(get(ORDERS, book.user, **{field + "_": moment}))

        assert len(found) == (4 if (field == "to") == moment.startswith("9") else 0)

    def test_working_orders_are_found_however_many_are_closed_between_them(self, market: Market, book: Book) -> None:
        # given an order that has rested for long, and one that has just begun to
        old, _ = book.resting, market.trade(book.user)
        young = market.place(book.user, limit_price="1.04")["order_id"]
        # then both are found, and by what they are
        assert ids(get(ORDERS, book.user, status="PENDING,PARTIAL")) == [young, old]
        assert ids(get(ORDERS, book.user, status="PENDING,PARTIAL", limit="1", cursor=young)) == [old]

    def test_filters_hold_over_pages(self, book: Book) -> None:
        first = get(ORDERS, book.user, side="BUY", limit="2")
        second = get(ORDERS, book.user, side="BUY", limit="2", cursor=first.body["next_cursor"])

        assert ids(first) + ids(second) == [book.resting, book.denied, book.bought]
        assert second.body["next_cursor"] is None

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("symbol", "EUR/USD"),
            ("side", "long"),
            ("order_type", "iceberg"),
            ("from", "yesterday"),
            ("from", "2026-01-01T00:00:00"),
            ("from", "2026-13-01T00:00:00Z"),
            ("to", "1767225600"),
            ("to", "0001-01-01T00:00:00+01:00"),
            ("client_order_id", "x" * 129),
            ("client_order_id", "a b"),
            ("client_order_id", "ä"),
        ],
    )
    def test_a_wrong_filter_is_refused_by_name(self, market: Market, field: str, value: str) -> None:
        answer = get(ORDERS, market.user(), **{field + "_": value})

        assert (answer.status, answer.body["error"]) == (400, "VALIDATION_FAILED")
        assert (answer.body["details"]["field"], answer.body["details"]["value"]) == (field, value[:100])
        assert answer.body["message"]

    def test_nobody_finds_anothers_order_by_any_filter(self, book: Book, market: Market) -> None:
        nobody = market.user()

        for query in ({}, {"client_order_id": "mine-1"}, {"symbol": "AAPL"}, {"account_id": str(book.user.account_id)}):
            assert ids(get(ORDERS, nobody, **query)) == []
            assert ids(get(HISTORY, nobody, **query)) == []
            assert set(ids(get(ORDERS, book.other, **query))).isdisjoint(ids(get(ORDERS, book.user)))

    def test_the_last_releases_call_still_reads(self, book: Book, market: Market) -> None:
        def listed(*arguments: object) -> Any:
            row = market.trader.execute("SELECT list_orders(%s, %s, %s, %s, %s)", arguments).fetchone()
            assert row is not None
            return row[0]

        page = listed(book.user.user_id, None, ["filled", "new"], None, 2)
        rest = listed(book.user.user_id, book.user.account_id, ["filled", "new"], page["next"], 2)

        assert [order["id"] for order in page["orders"] + rest["orders"]] == [book.resting, book.sold, book.bought]


class TestHistory:
    def test_it_holds_what_is_closed(self, book: Book) -> None:
        assert ids(get(HISTORY, book.user)) == [book.denied, book.sold, book.bought]
        assert ids(get(HISTORY, book.user, status="FILLED", symbol="AAPL")) == [book.sold]

    def test_what_still_works_is_no_word_of_it(self, book: Book) -> None:
        answer = get(HISTORY, book.user, status="PENDING")

        assert (answer.status, answer.body["details"]["field"]) == (400, "status")
        assert answer.body["details"]["constraint"] == "FILLED, CANCELLED, EXPIRED, REPLACED, REJECTED"

    def test_it_comes_in_pages(self, book: Book) -> None:
        first = get(HISTORY, book.user, limit="2")
        second = get(HISTORY, book.user, limit="2", cursor=first.body["next_cursor"])

        assert ids(first) + ids(second) == [book.denied, book.sold, book.bought]


class TestPositions:
    @pytest.fixture
    def user(self, market: Market) -> User:
        """A netting trader with a closed position in AAPL, one in GBPUSD, and an open one in EURUSD."""
        user = market.user(position_mode="netting")
        market.trade(user, symbol="AAPL", quantity="10")
        market.quote("AAPL", "160", "160.02")
        market.trade(user, symbol="AAPL", quantity="10", side="sell")
        market.trade(user, symbol="GBPUSD", side="sell")
        market.trade(user, symbol="GBPUSD")
        market.trade(user, stop_loss="1.05")
        return user

    def test_closed_ones_show_what_they_brought(self, market: Market, user: User) -> None:
        pound, apple = get(POSITIONS, user, status="closed").body["data"]

        (row,) = [row for row in market.rows("positions", user) if row["symbol"] == "AAPL"]
        assert (pound["symbol"], apple["symbol"]) == ("GBPUSD", "AAPL")
        assert (apple["status"], apple["side"]) == ("CLOSED", "LONG")
        assert (apple["quantity"], apple["opened_quantity"]) == ("0", "10")
        assert Decimal(apple["realized_pnl"]) == row["realized_pnl"] > 99
        assert (apple["current_price"], apple["unrealized_pnl"], apple["margin_used"]) == (None, None, "0.00")
        assert datetime.fromisoformat(apple["closed_at"]) <= datetime.now(UTC)

    def test_open_ones_are_the_rule_and_come_whole(self, user: User) -> None:
        said, unsaid = get(POSITIONS, user, status="OPEN").body, get(POSITIONS, user).body

        assert said == unsaid
        assert said["total"] == 1
        assert (said["data"][0]["symbol"], said["data"][0]["status"]) == ("EURUSD", "OPEN")
        assert said["data"][0]["closed_at"] is None
        assert said["data"][0]["unrealized_pnl"] is not None

    def test_all_of_them_newest_first_in_pages(self, user: User) -> None:
        pages: list[Any] = [get(POSITIONS, user, status="all", limit="2").body]
        pages.append(get(POSITIONS, user, status="all", limit="2", cursor=pages[0]["next_cursor"]).body)

        assert [one["symbol"] for page in pages for one in page["data"]] == ["EURUSD", "GBPUSD", "AAPL"]
        assert [one["status"] for page in pages for one in page["data"]] == ["OPEN", "CLOSED", "CLOSED"]
        # the open one is marked as in its own list
        assert pages[0]["data"][0] == get(POSITIONS, user).body["data"][0]
        assert pages[1]["next_cursor"] is None

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"status": "half"}, "status"),
            ({"status": "closed", "limit": "101"}, "limit"),
            ({"status": "closed", "cursor": "x"}, "cursor"),
            ({"limit": "1"}, "limit"),
            ({"status": "open", "cursor": str(uuid.uuid4())}, "cursor"),
        ],
    )
    def test_a_wrong_query_is_refused_by_name(self, user: User, query: dict[str, str], field: str) -> None:
        answer = get(POSITIONS, user, **query)

        assert (answer.status, answer.body["details"]["field"]) == (400, field)

    def test_the_plain_path_serves_the_same(self, user: User) -> None:
        assert get("/api/positions", user).text == get(POSITIONS, user).text

    def test_nobody_sees_anothers(self, market: Market, user: User) -> None:
        stranger = market.user()

        for status in ("open", "closed", "all"):
            assert get(POSITIONS, stranger, status=status).body["data"] == []
            assert get(POSITIONS, stranger, status=status, account_id=str(user.account_id)).body["data"] == []


class TestProfile:
    def test_who_i_am_and_what_binds_me(self, market: Market) -> None:
        user = market.user(
            tier="silver", kyc="pending", currency="EUR", risk={"max_positions": None, "max_daily_loss": "500.5"}
        )

        profile = get("/api/user/profile", user).body

        assert profile["id"] == str(user.user_id)
        assert (profile["email"], profile["kyc_status"], profile["account_status"]) == (user.email, "pending", "active")
        # commission follows the account's tier, the rate limit the token's
        assert (profile["tier"], profile["rate_limit_tier"], profile["role"]) == ("silver", "unmetered", "trader")
        assert "orders:write" in profile["permissions"]
        (account,) = profile["accounts"]
        assert (account["id"], account["currency"], account["leverage"]) == (str(user.account_id), "EUR", "100")
        assert account["limits"] == {
            "max_position_size": "100000",
            "max_positions": None,
            "max_working_orders": 100,
            "daily_trade_limit": 100,
            "max_daily_loss": "500.50",
            "margin_call_threshold": "50",
        }

    def test_each_sees_their_own(self, market: Market) -> None:
        one, other = market.user(), market.user()

        assert get("/api/user/profile", one).body["email"] == one.email
        assert str(one.account_id) not in get("/api/user/profile", other).text

    def test_who_is_no_user_has_none(self, market: Market) -> None:
        answer = get("/api/user/profile", uuid.uuid4())

        assert (answer.status, answer.body["error"]) == (404, "NOT_FOUND")


def test_the_plain_path_of_health_is_the_liveness(market: Market) -> None:
    answer = call(load_function("health"), http_event("GET /api/health"))

    assert (answer.status, answer.body["status"]) == (200, "ok")
