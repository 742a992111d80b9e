"""What operators do to accounts: look them up, move money, change what their users are and may. Risk officers look."""

from collections.abc import Mapping

from trading.account_keeping import change_account, move_money, owner_of
from trading.edge.account_dialects import (
    account_change,
    accounts_body,
    change_body,
    money_movement,
    movement_body,
    sought_email,
)
from trading.edge.acts import key_terms, origin_of, relay_waker, told_act
from trading.edge.gate import Caller, admit
from trading.edge.http import Request, Response, http_handler
from trading.edge.reading_dialects import ledger_body, ledger_page, parse_id
from trading.store.accounts import AccountStore
from trading.store.connection import database
from trading.store.reading import ReadingStore

# Who may look, by what permission. An officer stops accounts and limits them: that begins with finding them.
READERS: Mapping[str, str] = {"operator": "accounts:write", "risk_officer": "risk:write"}


def list_accounts(request: Request) -> Response:
    """GET /api/v1/accounts?email=: the accounts of a user."""
    _admit_reader(request)
    return Response(body=accounts_body(_store().find(sought_email(request.query))))


def list_ledger_entries(request: Request) -> Response:
    """GET /api/v1/accounts/{id}/ledger-entries: what moved the balance of anybody's account."""
    _admit_reader(request)
    account_id = parse_id(request.path_parameters["id"], "id")
    page = ledger_page(request.query)
    owner = owner_of(_store(), account_id)
    found = ReadingStore(database()).ledger(owner, account_id, before=page.before, limit=page.limit)
    return Response(body=ledger_body(found))


def get_account_risk(request: Request) -> Response:
    """GET /api/v1/accounts/{id}/risk: exposure, value at risk and drawdown of anybody's account."""
    _admit_reader(request)
    account_id = parse_id(request.path_parameters["id"], "id")
    owner = owner_of(_store(), account_id)
    return Response(body=ReadingStore(database()).account_risk(owner, account_id))


def post_ledger_entry(request: Request) -> Response:
    """POST /api/v1/accounts/{id}/ledger-entries: 201, or why the money is not moved."""
    caller = _admit_operator(request)
    account_id = parse_id(request.path_parameters["id"], "id")
    body = request.json()
    movement = money_movement(request, body)
    act = move_money(
        _store(),
        account_id,
        movement,
        origin_of(request, caller),
        key_terms(request, body),
        relay_waker(request, caller),
    )
    return Response(201, movement_body(told_act(request, act).answer))


def patch_account(request: Request) -> Response:
    """PATCH /api/v1/accounts/{id}: what the account's user is and may now."""
    caller = _admit_operator(request)
    account_id = parse_id(request.path_parameters["id"], "id")
    body = request.json()
    change = account_change(request, body)
    act = change_account(
        _store(), account_id, change, origin_of(request, caller), key_terms(request, body), relay_waker(request, caller)
    )
    return Response(200, change_body(told_act(request, act).answer))


def _admit_reader(request: Request) -> Caller:
    return admit(request, route_group="accounts", state_changing=False, permission=READERS, roles=tuple(READERS))


def _admit_operator(request: Request) -> Caller:
    # The permission alone does not do: it takes the role that the database's own role is for.
    return admit(request, route_group="accounts", state_changing=True, permission="accounts:write", roles=("operator",))


def _store() -> AccountStore:
    return AccountStore(database())


handler = http_handler(
    {
        "GET /api/v1/accounts": list_accounts,
        "GET /api/v1/accounts/{id}/ledger-entries": list_ledger_entries,
        "GET /api/v1/accounts/{id}/risk": get_account_risk,
        "POST /api/v1/accounts/{id}/ledger-entries": post_ledger_entry,
        "PATCH /api/v1/accounts/{id}": patch_account,
    }
)
