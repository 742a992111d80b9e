"""A feed that writes no more, end to end: who listens to prices is told when they are stale, and when they are back."""

from tests.kit.local_system import LocalSystem
from tests.kit.traders import Message, Traders, error_of, execute, of_type

# The feed orders looks 15 s ahead.
STALE_SECONDS_MAX = 40
BACK_SECONDS_MAX = 30
SYMBOL = "EURCHF"


def test_a_feed_that_dies_is_told_of_and_so_is_the_next_one(local_system: LocalSystem, traders: Traders) -> None:
    # given a trader who hears prices
    trader = traders.new()
    with trader.stream("market_data", symbols=[SYMBOL]) as stream:
        stream.wait_for(of_type("market_data"))

        # when a copy takes the feed over that does nothing with it
        execute(
            local_system,
            "UPDATE feed_leases SET fence = fence + 1, expires_at = clock_timestamp() + interval '1 hour' "
            "WHERE name = 'quotes' RETURNING fence",
        )

        # then the trader is told, and whoever comes then; and nothing can be traded
        stale = stream.wait_for(of_type("prices_stale"), STALE_SECONDS_MAX).message
        with trader.stream("market_data", symbols=[SYMBOL]) as late:
            told_late = late.wait_for(of_type("prices_stale")).message
        refused = trader.order(symbol=SYMBOL, order_type="market", side="buy", quantity="0.01")
        # when the copy is gone and the next one starts
        execute(
            local_system, "UPDATE feed_leases SET expires_at = clock_timestamp() WHERE name = 'quotes' RETURNING fence"
        )
        local_system.invoke("StreamPricesFunction", wait=False)

        # then prices come again, with word that they do
        back = stream.wait_for(_is_left, BACK_SECONDS_MAX).message

    assert stale["data"]["state"] == told_late["data"]["state"] == "entered"
    assert stale["data"]["symbols"] == told_late["data"]["symbols"] == back["data"]["symbols"] == [SYMBOL]
    assert (refused.status_code, error_of(refused)["code"]) == (503, "MARKET_DATA_UNAVAILABLE"), refused.text
    assert [message["data"]["state"] for message in stream.messages() if message["type"] == "prices_stale"] == [
        "entered",
        "left",
    ]


def _is_left(message: Message) -> bool:
    return message.get("type") == "prices_stale" and message["data"]["state"] == "left"
