"""Commands for people and scripts against a running local system: tokens, quotes, invocations, checks, reports.

    python -m local.commands token --email gold@example.com [--session]
    python -m local.commands quote --symbol EURUSD [--bid 1.1 --ask 1.1002]
    python -m local.commands load-accounts --count 1000 [--balance 100000]
    python -m local.commands invoke --function RiskMonitoringFunction
    python -m local.commands verify audit|books
    python -m local.commands diagnose --email gold@example.com
    python -m local.commands account-risk --email gold@example.com
    python -m local.commands replay --order 01a1fc5d-1d64-7e88-9637-cfcbef0b90a9
    python -m local.commands measure [--from 2026-11-01] [--to 2026-11-30] [--email gold@example.com]
    python -m local.commands realized-pnl [--from 2026-11-01] [--to 2026-11-30]
    python -m local.commands execution-report --from 2026-11-01 --to 2026-11-30 [--out report.csv]

`verify` and the last six only read. With DATABASE_URL in the environment they read that database instead, as its owner
or compliance.

Exit codes: 0 done; 1 no system is up, a function failed, or a check found faults; 2 a value is wrong, with one line on
standard error that says which.
"""

import argparse
import json
import os
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from database import verify as books
from local import invoking, reports, tokens
from local.demo_accounts import LOAD_ACCOUNTS_MAX, LOAD_BALANCE, make_load_accounts
from local.environment import State
from local.processes import StartError

QUOTE_ATTEMPTS = 20
DEFAULT_EMAIL = "gold@example.com"


class WrongValueError(Exception):
    """A value given on the command line is wrong; the text is the one line that the caller gets."""


def main(arguments: list[str]) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    state = State(options.state.absolute())
    try:
        url = reports.report_url(state, os.environ) if options.reads_only else state.read_env()["DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as connection:
            return options.run(state, connection, options)
    except psycopg.OperationalError as error:
        if options.reads_only and "DATABASE_URL" in os.environ:
            return _complain(StartError(f"The database of DATABASE_URL does not answer: {error}"), 1)
        # The file that says where the system is outlives one that was killed.
        down = f"No local system is up on {state.folder}: its database does not answer. Run `make start` first."
        return _complain(StartError(down), 1)
    except (StartError, invoking.FailedFunctionError) as error:
        return _complain(error, 1)
    except (
        WrongValueError,
        invoking.UnknownFunctionError,
        reports.WrongReportError,
        tokens.UnknownAddressError,
    ) as error:
        return _complain(error, 2)


def _complain(error: Exception, code: int) -> int:
    print(str(error).strip(), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local.commands")
    parser.add_argument("--state", type=Path, default=Path(".local"), metavar="FOLDER")
    parser.set_defaults(reads_only=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    token = commands.add_parser("token", help="print an access token alone")
    token.add_argument("--email", default=DEFAULT_EMAIL)
    token.add_argument("--session", action="store_true", help="of a browser session, with its CSRF token below it")
    token.set_defaults(run=_token)
    quote = commands.add_parser("quote", help="hold a symbol at a price, or let the simulator have it back")
    quote.add_argument("--symbol", required=True)
    quote.add_argument("--bid", default="")
    quote.add_argument("--ask", default="")
    quote.set_defaults(run=_quote)
    load = commands.add_parser("load-accounts", help="make accounts for benchmarks and race tests")
    load.add_argument("--count", default="1000")
    load.add_argument("--balance", default="")
    load.set_defaults(run=_load_accounts)
    invoke = commands.add_parser("invoke", help="run a function now, as its schedule would, and print what it returned")
    invoke.add_argument("--function", required=True, metavar="LOGICAL_ID")
    invoke.set_defaults(run=_invoke)
    verify = commands.add_parser("verify", help="check the audit's hash chains, or that the books agree")
    verify.add_argument("what", choices=["audit", "books"])
    verify.set_defaults(run=_verify, reads_only=True)
    _add_reports(commands)
    return parser


def _add_reports(commands: Any) -> None:
    diagnose = commands.add_parser("diagnose", help="say why a user's orders are refused for margin")
    diagnose.add_argument("--email", default=DEFAULT_EMAIL)
    diagnose.set_defaults(run=_diagnose, reads_only=True)
    risk = commands.add_parser("account-risk", help="print exposure, value at risk and drawdown of a user's accounts")
    risk.add_argument("--email", default=DEFAULT_EMAIL)
    risk.set_defaults(run=_account_risk, reads_only=True)
    replay = commands.add_parser("replay", help="show an order's life by the audit, and whether the tables agree")
    replay.add_argument("--order", default="", metavar="ID")
    replay.set_defaults(run=_replay, reads_only=True)
    measure = commands.add_parser("measure", help="print fill rate, error rate, latency and how orders are found")
    realized = commands.add_parser("realized-pnl", help="print realized P&L by FIFO beside the weighted average")
    report = commands.add_parser("execution-report", help="write what happened to orders as CSV")
    for command in (measure, realized, report):
        command.add_argument("--from", dest="first", default="", metavar="DAY")
        command.add_argument("--to", dest="last", default="", metavar="DAY")
    measure.add_argument("--email", default=DEFAULT_EMAIL)
    measure.set_defaults(run=_measure, reads_only=True)
    realized.set_defaults(run=_realized_pnl, reads_only=True)
    report.add_argument("--out", default="", metavar="FILE")
    report.set_defaults(run=_execution_report, reads_only=True)


def _token(state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    issued = tokens.issue(state, connection, options.email.strip().lower() or DEFAULT_EMAIL, session=options.session)
    print(issued.token)
    if issued.csrf_token:
        print(issued.csrf_token)
    return 0


def _load_accounts(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    count = options.count.strip()
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= LOAD_ACCOUNTS_MAX:
        raise WrongValueError(f"N is a whole number from 1 to {LOAD_ACCOUNTS_MAX}, not {count!r}.")
    balance = _positive("BALANCE", options.balance) if options.balance else LOAD_BALANCE
    if balance != round(balance, 2):
        raise WrongValueError(f"BALANCE is in whole cents, not {options.balance}.")
    make_load_accounts(connection, int(count), balance)
    print(f"load-0001@example.com to load-{int(count):04d}@example.com are there.")
    return 0


def _quote(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    symbol = options.symbol.strip().upper()
    known = connection.execute("SELECT FROM instruments WHERE symbol = %s", (symbol,)).fetchone()
    if known is None:
        raise WrongValueError(f"SYMBOL {symbol or '(empty)'} is not an instrument.")
    if not options.bid and not options.ask:
        connection.execute(
            "UPDATE quotes SET source = 'simulated' WHERE symbol = %s AND source = 'manual'",
            (symbol,),
        )
        print(f"{symbol} follows the simulator.")
        return 0
    bid, ask = _positive("BID", options.bid), _positive("ASK", options.ask)
    if ask < bid:
        raise WrongValueError(f"ASK {ask} is below BID {bid}.")
    _hold(connection, symbol, bid, ask)
    print(f"{symbol} is held at {bid} / {ask}. `make quote SYMBOL={symbol}` gives it back to the simulator.")
    return 0


def _invoke(state: State, _connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    print(json.dumps(invoking.invoke(state, options.function.strip())))
    return 0


def _verify(state: State, _connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    return books.main([options.what], reports.report_url(state, os.environ))


def _diagnose(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    reports.diagnose(connection, options.email.strip().lower() or DEFAULT_EMAIL)
    return 0


def _account_risk(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    reports.account_risk(connection, options.email.strip().lower() or DEFAULT_EMAIL)
    return 0


def _replay(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    return 0 if reports.replay(connection, options.order) else 1


def _measure(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    reports.measure(connection, options.first, options.last, options.email.strip().lower() or DEFAULT_EMAIL)
    return 0


def _realized_pnl(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    reports.realized_pnl(connection, options.first, options.last)
    return 0


def _execution_report(_state: State, connection: psycopg.Connection[Any], options: argparse.Namespace) -> int:
    reports.execution_report(connection, options.first, options.last, options.out)
    return 0


def _hold(connection: psycopg.Connection[Any], symbol: str, bid: Decimal, ask: Decimal) -> None:
    request = {
        "version": 1,
        "source": "manual",
        "quotes": [{"symbol": symbol, "bid": str(bid), "ask": str(ask)}],
    }
    # A quote is taken only if it is newer than the last, and the simulator may be some milliseconds ahead.
    for _attempt in range(QUOTE_ATTEMPTS):
        row = connection.execute("SELECT record_quotes(%s)", (Jsonb(request),)).fetchone()
        answer = row[0] if row else {}
        if answer.get("refused"):
            raise WrongValueError(f"The quote is refused: {answer['refused'][0]['reason']}.")
        if answer.get("accepted") == 1:
            return
        connection.execute("SELECT pg_sleep(0.05)")
    raise WrongValueError(f"The quote of {symbol} is not taken: newer ones keep coming.")


def _positive(name: str, text: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value <= 0:
        raise WrongValueError(f"{name} is a positive number, not {text!r}.")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
