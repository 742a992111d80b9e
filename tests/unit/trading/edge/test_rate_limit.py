"""Whom a count belongs to."""

import pytest

from trading.edge.rate_limit import address_key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.113.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.1", "::ffff:203.0.113.2", False),
        ("not an address", "not another", False),
    ],
)
def test_addresses_of_one_subscriber_share_a_count(one: str, other: str, *, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same
