"""Brings the whole system up on this machine, keeps it up, and takes it down in order.

    python -m local.supervisor [--port 8000] [--state .local]

DATABASE_URL and REDIS_URL in the environment name servers to use instead of the embedded ones; TRADE_ALWAYS=0 keeps
market hours; IP_REQUESTS_PER_MINUTE limits the calls from this machine; QUOTE_PROVIDER=replay plays the quotes of
QUOTE_REPLAY_FILE at QUOTE_REPLAY_SPEED; PARAMETERS="Name=value ..." sets parameters of the template.
"""

import argparse
import json
import os
import shlex
import signal
import sys
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psycopg

from local import environment, tokens
from local.demo_accounts import load_demo_accounts
from local.demo_rates import load_demo_rates
from local.environment import State
from local.gateway_server import Gateway
from local.launching_parent import LaunchingParent
from local.parameters import check_forms, check_settings
from local.processes import StartError
from local.servers import Postgres, Redis, Server, port_is_free

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WATCH_SECONDS = 0.25
PORT_SECONDS = 2.0
RESTARTS_MAX = 5
RESTARTS_WINDOW_SECONDS = 60.0
WORKERS_MAX = 4
DEMO_EMAIL = "gold@example.com"


class Stopped(BaseException):
    """A signal asked to stop. No Exception, so that nothing takes it for a fault."""


def say(text: str) -> None:
    """Tell the person at the terminal, if there still is one."""
    try:
        print(text, flush=True)
    except OSError:
        # The terminal or the pipe went first; the system is taken down in order all the same.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@dataclass
class Restarts:
    """Counts the restarts of one server, so that a server that cannot live is given up."""

    times: deque[float] = field(default_factory=deque)

    def allow(self, now: float) -> bool:
        """Whether it may be started once more at `now` (seconds on a monotonic clock)."""
        while self.times and now - self.times[0] > RESTARTS_WINDOW_SECONDS:
            self.times.popleft()
        self.times.append(now)
        return len(self.times) <= RESTARTS_MAX


class Supervisor:
    """One local system on one state folder."""

    def __init__(self, state: State, port: int, variables: dict[str, str]) -> None:
        self._state = state
        self._port = port
        self._variables = variables
        self._parent = LaunchingParent()
        self._started: list[Server] = []
        self._restarts: dict[str, Restarts] = {}
        self._ending = False

    def run(self) -> int:
        """Start, watch until a signal, stop. The exit code: 0 after a signal, 1 after a fault."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._watch()
        except Stopped:
            pass
        except StartError as error:
            print(error, file=sys.stderr, flush=True)
            return 1
        finally:
            self._ending = True
            self._stop()
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Only the first one interrupts; impatience does not cut the way down short.
        if not self._ending:
            self._ending = True
            raise Stopped

    def _start(self) -> None:
        state = self._state
        ip_requests_per_minute = environment.address_limit(self._variables)
        asked = environment.parameter_overrides(self._variables)
        check_forms(asked)
        quotes = environment.with_quotes_of(self._variables, asked)
        overrides = asked | environment.quote_parameters(quotes, datetime.now(UTC))
        check_settings(environment.local_parameters(ip_requests_per_minute, overrides))
        self._port_must_be_free()
        state.env.unlink(missing_ok=True)
        owner_url = self._start_postgres()
        redis_url = self._start_redis()
        say("Migrating the database.")
        self._prepare_database(owner_url)
        role_urls = environment.grant_logins(state, owner_url)
        environment.write_gateway_file(
            state,
            port=self._port,
            role_urls=role_urls,
            redis_url=redis_url,
            workers=WORKERS_MAX,
            ip_requests_per_minute=ip_requests_per_minute,
            overrides=overrides,
        )
        say("Starting the gateway.")
        self._bring_up(Gateway(state, self._port))
        values = environment.write_env(state, port=self._port, owner_url=owner_url, redis_url=redis_url)
        self._greet(values)

    def _port_must_be_free(self) -> None:
        deadline = time.monotonic() + PORT_SECONDS  # one that was just killed may hold it a moment longer
        while not port_is_free(self._port):
            if time.monotonic() < deadline:
                time.sleep(WATCH_SECONDS)
                continue
            raise StartError(
                f"Port {self._port} of 127.0.0.1 is taken. Stop what listens there, or choose another: "
                f"make start PORT={self._port + 1}"
            )

    def _start_postgres(self) -> str:
        external = self._variables.get("DATABASE_URL")
        if external:
            say("Using the PostgreSQL of DATABASE_URL.")
            return external
        state = self._state
        say("Starting PostgreSQL.")
        server = Postgres(state.postgres, state.logs / "postgres.log", state.secret("trading_admin.password"))
        self._bring_up_at_its_port(server)
        return server.url()

    def _start_redis(self) -> str:
        external = self._variables.get("REDIS_URL")
        if external:
            say("Using the Redis of REDIS_URL.")
            return external
        state = self._state
        say("Starting Redis.")
        server = Redis(state.redis, state.logs / "redis.log", state.secret("redis.password"))
        self._bring_up_at_its_port(server)
        return server.url()

    def _bring_up_at_its_port(self, server: Postgres | Redis) -> None:
        ports = self._state.remembered_ports()
        server.port = ports.get(server.name)
        self._bring_up(server)
        assert server.port is not None
        self._state.remember_ports(ports | {server.name: server.port})

    def _bring_up(self, server: Server) -> None:
        self._started.append(server)
        server.start()

    def _prepare_database(self, owner_url: str) -> None:
        from database.apply import apply

        try:
            apply(owner_url)
            with psycopg.connect(owner_url, autocommit=True) as connection:
                environment.set_trade_always(connection, self._variables.get("TRADE_ALWAYS", "1") != "0")
                environment.never_block_this_machine(connection)
                load_demo_accounts(connection)
                load_demo_rates(connection)
                if "DATABASE_URL" not in self._variables:
                    # The feed of a run that was killed is dead for sure: nobody has to wait for its lease to run out.
                    connection.execute("UPDATE feed_leases SET expires_at = least(expires_at, clock_timestamp())")
        except psycopg.OperationalError as error:
            raise StartError(f"The database cannot be prepared: {error}") from error

    def _greet(self, values: dict[str, str]) -> None:
        with psycopg.connect(values["DATABASE_URL"], autocommit=True) as connection:
            token = tokens.issue(self._state, connection, DEMO_EMAIL).token
        order = {"symbol": "EURUSD", "order_type": "market", "side": "buy", "quantity": 0.1}
        body = json.dumps(order | {"idempotency_key": str(uuid.uuid4())})
        line = shlex.join(
            [
                *("curl", "-s", f"{values['API_URL']}/functions/v1/execute-order"),
                *("-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json", "-d", body),
            ]
        )
        say(
            f"\nThe system is up. Ctrl-C stops it.\n\n"
            f"  HTTP       {values['API_URL']}\n"
            f"  WebSocket  {values['WEBSOCKET_URL']}\n"
            f"  All URLs   {self._state.env}\n"
            f"  Logs       {self._state.logs}\n\n"
            f"A token of {DEMO_EMAIL} (`make -s token` prints others):\n\n{token}\n\n"
            f"An order:\n\n{line}\n"
        )

    def _watch(self) -> None:
        while not self._parent.gone():
            for server in self._started:
                if not server.running():
                    self._start_again(server)
            time.sleep(WATCH_SECONDS)

    def _start_again(self, server: Server) -> None:
        if not self._restarts.setdefault(server.name, Restarts()).allow(time.monotonic()):
            raise StartError(
                f"{server.name} ended {RESTARTS_MAX + 1} times in {RESTARTS_WINDOW_SECONDS:.0f} s: giving up. "
                f"See {self._state.logs}."
            )
        say(f"{server.name} ended by itself; starting it again.")
        server.start_again()

    def _stop(self) -> None:
        self._state.env.unlink(missing_ok=True)
        for server in reversed(self._started):  # the gateway with its workers, Redis, PostgreSQL
            server.stop()
        if self._started:
            say("Stopped.")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"PORT is a number from 1 to 65535, not {text!r}")
    return int(text)


def main(arguments: list[str], variables: dict[str, str]) -> int:
    """Entry of `python -m local.supervisor`; the exit code."""
    parser = argparse.ArgumentParser(prog="local.supervisor", description=__doc__)
    parser.add_argument("--port", type=_port, default=8000, metavar="PORT")
    parser.add_argument("--state", type=Path, default=Path(".local"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    state = State(options.state.absolute())
    try:
        state.create()
        with state.lock():
            return Supervisor(state, options.port, variables).run()
    except StartError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
