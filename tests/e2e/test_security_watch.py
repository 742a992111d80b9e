"""A brute force from one address: it is blocked by the scheduled function, and everybody else trades on."""

import httpx

from tests.kit.local_system import LocalSystem
from tests.kit.traders import EXECUTE_ORDER, Traders, exact, execute

# Loopback is a network: another address of it is another caller to the gateway.
ATTACKER = "127.0.0.66"


def from_address(system: LocalSystem, address: str, **options: object) -> httpx.Client:
    return system.client(transport=httpx.HTTPTransport(local_address=address), **options)


def test_a_brute_force_is_blocked_while_the_others_trade_on(local_system: LocalSystem, traders: Traders) -> None:
    trader = traders.new()
    token = {"Authorization": f"Bearer {trader.token}"}
    with from_address(local_system, ATTACKER) as attacker:
        # given ten guesses from one address, which says that it is another
        for number in range(10):
            guess = {"Authorization": f"Bearer guess-{number}", "X-Forwarded-For": "198.51.100.77"}
            assert attacker.post(EXECUTE_ORDER, json={}, headers=guess).status_code == 401
        assert attacker.get("/api/v1/account", headers=token).status_code == 200
        # when the watch runs
        assert local_system.invoke("SecurityWatchFunction")["failed"] == []
        blocks = (
            "SELECT i.id, host(p.ip_address) AS address FROM interventions AS i "
            "JOIN security_pii AS p ON p.row_id = i.id WHERE i.rule = 'brute_force' AND i.undone_at IS NULL"
        )
        found = execute(local_system, blocks)
        # then that address is blocked, whatever it says it is and whatever token it has
        assert [row["address"] for row in found] == [ATTACKER]
        answer = attacker.get("/api/v1/account", headers=token | {"X-Forwarded-For": "198.51.100.78"})
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert exact(answer)["error"] == "IP_BLOCKED"
        # and its owner trades on from elsewhere
        assert trader.order().status_code == 200
        # when an officer takes the block back, over HTTP, then the address may come again
        risk = traders.named("risk@example.com")
        undone = risk.http.delete(f"/api/v1/risk/interventions/{found[0]['id']}")
        assert (undone.status_code, exact(undone)["rule"]) == (200, "brute_force")
        assert attacker.get("/api/v1/account", headers=token).status_code == 200
    # and what happened can be read
    events = risk.read("/api/v1/risk/security-events?event_type=authentication_failure&address=" + ATTACKER)["data"]
    assert sum(event["occurrences"] for event in events) == 10
