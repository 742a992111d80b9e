"""The state folder of a local system: its secrets, ports and the files that tell others how to reach it."""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from local.processes import StartError
from local.servers import HOST, LOGIN_ROLES
from trading.quotes.providers import PROVIDERS
from trading.quotes.replay import open_recording
from trading.settings import ConfigurationError, Settings, required

JWT_ISSUER = "https://issuer.local"
JWT_AUDIENCE = "trading-api"
API_CLIENT_ID = "local-cli"
SECRET_BYTES = 32
# Here all callers share one address, the load of a benchmark included: as wide as the setting goes.
IP_REQUESTS_PER_MINUTE = 1_000_000

# The logical id of each secret in template.yaml, and the login role whose URL it holds.
ROLE_OF_SECRET = {
    "TraderDatabaseSecret": "function_trader",
    "RelayDatabaseSecret": "function_relay",
    "PricesDatabaseSecret": "function_prices",
    "RiskDatabaseSecret": "function_risk",
    "RouterDatabaseSecret": "function_router",
    "OperatorDatabaseSecret": "function_operator",
    "RiskOfficerDatabaseSecret": "function_risk_officer",
    "TriggersDatabaseSecret": "function_triggers",
    "SecurityDatabaseSecret": "function_security",
    "IncidentsDatabaseSecret": "function_incidents",
    "AlertsDatabaseSecret": "function_alerts",
    "EndOfDayDatabaseSecret": "function_end_of_day",
}

# The keys, each made at the first start.
KEYS = ("JwtSecret", "CsrfSecret")

# Variable -> parameter of template.yaml.
QUOTE_PARAMETERS = {
    "QUOTE_PROVIDER": "QuoteProvider",
    "QUOTE_REPLAY_FILE": "QuoteReplayFile",
    "QUOTE_REPLAY_SPEED": "QuoteReplaySpeed",
    "QUOTE_REPLAY_START": "QuoteReplayStart",
}


@dataclass(frozen=True, slots=True)
class State:
    """Paths below one state folder. All of it is private to the user but the folder itself, which servers pass."""

    folder: Path

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data."""
        return self.folder / "postgres"

    @property
    def redis(self) -> Path:
        """Redis's working folder."""
        return self.folder / "redis"

    @property
    def logs(self) -> Path:
        """The servers' logs."""
        return self.folder / "logs"

    @property
    def secrets(self) -> Path:
        """One file a secret."""
        return self.folder / "secrets"

    @property
    def env(self) -> Path:
        """KEY=value lines for people and scripts; there only while all is up."""
        return self.folder / "env"

    @property
    def gateway(self) -> Path:
        """What the gateway needs to know."""
        return self.folder / "gateway.json"

    @property
    def ports(self) -> Path:
        """The servers' ports, so that a restart keeps them."""
        return self.folder / "ports.json"

    def create(self) -> None:
        """Make the folders that are missing; those that are there keep their modes."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            self.folder.chmod(0o711)  # run as root, the servers' user has to pass
        for private in (self.logs, self.secrets):
            private.mkdir(mode=0o700, exist_ok=True)

    def lock(self) -> TextIO:
        """Hold the folder for this process; StartError when another one does. Closing the file lets go."""
        handle = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise StartError(
                f"A local system is running on {self.folder} already. Stop it first, or start another copy with "
                "another STATE= and PORT=."
            ) from None
        return handle

    def secret(self, name: str) -> str:
        """The random secret `name`, made at the first call and kept over restarts."""
        path = self.secrets / name
        try:
            return path.read_text()
        except FileNotFoundError:
            value = secrets.token_urlsafe(SECRET_BYTES)
            write_private(path, value)
            return value

    def write_secret(self, name: str, value: str) -> str:
        """Store `value` as the secret `name`; the reference by which functions are told of it."""
        path = self.secrets / name
        write_private(path, value)
        return f"file:{path}"

    def remembered_ports(self) -> dict[str, int]:
        """The ports of the last run by server name; empty at the first."""
        try:
            return json.loads(self.ports.read_text())
        except FileNotFoundError:
            return {}

    def remember_ports(self, ports: Mapping[str, int]) -> None:
        """Keep the ports of this run for the next."""
        write_private(self.ports, json.dumps(dict(ports)))

    def read_env(self) -> dict[str, str]:
        """The lines of `env`; StartError when the system is not up."""
        try:
            text = self.env.read_text()
        except FileNotFoundError:
            raise StartError(f"No local system is up on {self.folder}: run `make start` first.") from None
        return dict(line.split("=", 1) for line in text.splitlines() if line)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, in one step, so that nobody ever sees half of it."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(path)


def set_role_passwords(connection: psycopg.Connection[Any], passwords: Mapping[str, str]) -> None:
    """Give login roles their passwords; `connection` is the owner's."""
    for role, password in passwords.items():
        connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)),
        )


def role_url(owner_url: str, role: str, password: str) -> str:
    """The owner's connection URL with another user in it."""
    parts = urlsplit(owner_url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{address}"))


def grant_logins(state: State, owner_url: str) -> dict[str, str]:
    """Set each login role's password as the state folder remembers it; the roles' URLs."""
    passwords = {role: state.secret(f"{role}.password") for role in LOGIN_ROLES}
    with psycopg.connect(owner_url, autocommit=True) as connection:
        set_role_passwords(connection, passwords)
    return {role: role_url(owner_url, role, password) for role, password in passwords.items()}


def never_block_this_machine(connection: psycopg.Connection[Any]) -> None:
    """Let no failed sign-in block the address that all callers share here; another of 127.0.0.0/8 may be blocked."""
    request = {
        "version": 1,
        "action": "add",
        "network": f"{HOST}/32",
        "actor": "local system",
        "reason": "callers on this machine share it",
    }
    connection.execute("SELECT change_never_blocked(%s)", (Jsonb(request),))


def set_trade_always(connection: psycopg.Connection[Any], wanted: bool) -> None:
    """Let the demonstration trade outside market hours, or keep them."""
    request = {"version": 1, "trade_always": wanted, "actor": "local system", "reason": "TRADE_ALWAYS at the start"}
    connection.execute("SELECT set_trade_always(%s)", (Jsonb(request),))


def address_limit(variables: Mapping[str, str]) -> int:
    """The address limit that IP_REQUESTS_PER_MINUTE asks for, by default one that is never met; StartError."""
    text = variables.get("IP_REQUESTS_PER_MINUTE") or str(IP_REQUESTS_PER_MINUTE)
    if not (text.isascii() and text.isdecimal() and len(text) <= 7 and 1 <= int(text) <= IP_REQUESTS_PER_MINUTE):
        raise StartError(f"IP_REQUESTS_PER_MINUTE is a number from 1 to {IP_REQUESTS_PER_MINUTE}, not {text!r}.")
    return int(text)


def quote_parameters(variables: Mapping[str, str], started_at: datetime) -> dict[str, str]:
    """The template's parameters of QUOTE_PROVIDER and QUOTE_REPLAY_*; a recording begins when the system does.

    StartError names what is wrong, with a recording the line.
    """
    given = {name: variables[name] for name in QUOTE_PARAMETERS if variables.get(name)}
    if "QUOTE_REPLAY_FILE" in given:
        given["QUOTE_REPLAY_FILE"] = str(Path(given["QUOTE_REPLAY_FILE"]).absolute())
    try:
        read = Settings.from_environment(given)
        if read.quote_provider not in PROVIDERS:
            raise ConfigurationError(f"QUOTE_PROVIDER is {' or '.join(PROVIDERS)}, not {read.quote_provider!r}")
        if read.quote_provider == "replay":
            open_recording(Path(required(read.quote_replay_file, "QUOTE_REPLAY_FILE")))
            given.setdefault("QUOTE_REPLAY_START", started_at.isoformat())
    except ConfigurationError as error:
        raise StartError(str(error)) from None
    return {QUOTE_PARAMETERS[name]: value for name, value in given.items()}


def with_quotes_of(variables: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
    """The variables, and what the template parameters `overrides` say of quotes, which wins."""
    said = {variable: overrides[name] for variable, name in QUOTE_PARAMETERS.items() if name in overrides}
    return {**variables, **said}


def parameter_overrides(variables: Mapping[str, str]) -> dict[str, str]:
    """The template parameters that PARAMETERS sets, "Name=value" with spaces between; StartError for another form."""
    overrides: dict[str, str] = {}
    for entry in variables.get("PARAMETERS", "").split():
        name, separator, value = entry.partition("=")
        if not separator or not name.isalnum():
            raise StartError(f'PARAMETERS is "Name=value ..." of template parameters, not {entry!r}.')
        overrides[name] = value
    return overrides


def local_parameters(ip_requests_per_minute: int, overrides: Mapping[str, str]) -> dict[str, str]:
    """The template's parameters on this machine; `overrides` win."""
    return {
        "Stage": "local",
        "JwtAlgorithm": "HS256",
        "JwtIssuer": JWT_ISSUER,
        "JwtAudience": JWT_AUDIENCE,
        "ApiClientIds": API_CLIENT_ID,
        # The tokens of load accounts ask for it, and the only issuer is on this machine.
        "AllowUnmeteredTier": "true",
        "IpRequestsPerMinute": str(ip_requests_per_minute),
        "Venues": "paper:paper,mock:mock",
        "AllowMockVenue": "true",
        "AlertSink": "log",
        "AlertCloudWatch": "false",
        **overrides,
    }


def write_gateway_file(
    state: State,
    *,
    port: int,
    role_urls: Mapping[str, str],
    redis_url: str,
    workers: int,
    ip_requests_per_minute: int = IP_REQUESTS_PER_MINUTE,
    overrides: Mapping[str, str] | None = None,
) -> None:
    """Write the secrets that functions read, and gateway.json that names them; `overrides` set template parameters."""
    parameters = local_parameters(ip_requests_per_minute, overrides or {})
    references = {secret: state.write_secret(secret, role_urls[role]) for secret, role in ROLE_OF_SECRET.items()}
    references["RedisSecret"] = state.write_secret("RedisSecret", redis_url)
    for name in KEYS:
        state.secret(name)
        references[name] = f"file:{state.secrets / name}"
    content = {"host": HOST, "port": port, "secrets": references, "parameters": parameters, "workers_max": workers}
    write_private(state.gateway, json.dumps(content, indent=2) + "\n")


def write_env(state: State, *, port: int, owner_url: str, redis_url: str) -> dict[str, str]:
    """Write the file that says that all is up, and where."""
    values = {
        "API_URL": f"http://{HOST}:{port}",
        "WEBSOCKET_URL": f"ws://{HOST}:{port}/realtime",
        "DATABASE_URL": owner_url,
        "REDIS_URL": redis_url,
    }
    write_private(state.env, "".join(f"{name}={value}\n" for name, value in values.items()))
    return values
