"""The embedded servers: whom they run as, what they keep, what they survive."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from local import processes
from local.processes import StartError
from local.servers import Postgres, Redis, free_port
from tests.kit.servers import TestServers


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres", tmp_path / "logs" / "postgres.log", "it's a/secret")
    server.start()
    yield server
    server.stop()


def fetch(url: str, query: str) -> tuple:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row


def test_acknowledged_rows_survive_an_immediate_stop(postgres: Postgres) -> None:
    # given a committed row on a server that syncs
    assert fetch(postgres.url(), "SELECT current_setting('fsync'), current_setting('synchronous_commit')") == (
        "on",
        "on",
    )
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    port = postgres.port
    # when it is stopped as in a crash and started again
    postgres.stop_at_once()
    postgres.start()
    # then the row is there, at the same port
    assert postgres.port == port
    assert fetch(postgres.url(), "SELECT answer FROM kept") == (42,)


def test_the_owner_is_no_superuser_and_the_superuser_cannot_log_in(postgres: Postgres) -> None:
    # when the owner looks at itself
    rights = fetch(
        postgres.url(),
        "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user",
    )
    # then it can make roles and nothing beyond
    assert rights == (False, False, False, True)
    # and the superuser is turned away
    with pytest.raises(psycopg.OperationalError, match="reject"):
        psycopg.connect(postgres.url("postgres", "anything", "postgres"))


def test_a_wrong_password_is_refused(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url(password="wrong"))


def test_a_taken_port_is_given_up_for_another(tmp_path: Path, servers: TestServers) -> None:
    # given the port of a server that runs
    taken = servers.redis.port
    server = Redis(tmp_path / "redis", tmp_path / "redis.log", "secret", port=taken)
    # when a second one should take it
    server.start()
    # then it serves at another
    try:
        assert server.port != taken
        with redis.Redis.from_url(server.url()) as client:
            assert client.ping()
    finally:
        server.stop()


def test_redis_asks_for_its_password(servers: TestServers) -> None:
    with (
        redis.Redis.from_url(f"redis://127.0.0.1:{servers.redis.port}/0") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_a_pid_file_with_a_strangers_number_does_not_stop_the_start(postgres: Postgres) -> None:
    # given a pid file left by a crash, whose number another process has by now
    postgres.stop_at_once()
    pid_file = postgres.folder / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{postgres.folder}\n0\n1\n\n127.0.0.1\n0 0\nready\n")
    os.chown(pid_file, postgres.folder.stat().st_uid, postgres.folder.stat().st_gid)
    # when it starts
    postgres.start()
    # then it serves
    assert fetch(postgres.url(), "SELECT 1") == (1,)


def test_a_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    # given what an interrupted first start leaves
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    server = Postgres(tmp_path / "postgres", tmp_path / "postgres.log", "secret", durable=False)
    # when it starts
    server.start()
    # then it is whole
    try:
        assert fetch(server.url(), "SELECT current_database()") == ("trading",)
        assert not (tmp_path / "postgres.new").exists()
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as somebody else")
class TestAsRoot:
    def test_closed_folders_above_keep_their_mode(self, tmp_path: Path) -> None:
        # given data below a folder that only root may enter
        closed = tmp_path / "home"
        closed.mkdir(mode=0o700)
        (closed / "state").mkdir(mode=0o711)
        server = Postgres(closed / "state" / "postgres", closed / "state" / "postgres.log", "secret", durable=False)
        # when PostgreSQL starts there
        server.start()
        # then it serves, as another user, and the folder is as closed as before
        try:
            assert fetch(server.url(), "SELECT 1") == (1,)
            assert server.folder.stat().st_uid != 0
            assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        finally:
            server.stop()

    def test_without_the_capability_the_way_out_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # given a root with no capability to hand on, as in some containers
        monkeypatch.setattr(processes, "held_capabilities", lambda: 0)
        tmp_path.chmod(0o700)
        # when a server should run below a closed folder, then the message says what to do
        with pytest.raises(StartError, match="STATE="):
            processes.server_identity(tmp_path / "postgres")

    def test_open_folders_need_no_capability(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # given root without capabilities, and a folder that everyone may pass
        monkeypatch.setattr(processes, "held_capabilities", lambda: 0)
        # when asked who runs the server
        identity = processes.server_identity(Path("/var/postgres"))
        # then it is a plain user
        assert identity is not None
        assert identity.user != 0
        assert identity.capability is None


def test_a_free_port_can_be_listened_on() -> None:
    assert 1024 <= free_port() <= 65535
