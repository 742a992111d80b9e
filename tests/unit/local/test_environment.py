"""The state folder: what is kept, who may read it, who holds it."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local import environment
from local.environment import State
from local.processes import StartError
from local.servers import LOGIN_ROLES


@pytest.fixture
def state(tmp_path: Path) -> State:
    folder = State(tmp_path / "deep" / "state")
    folder.create()
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    # given a folder of somebody's
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o750)
    # when it becomes a state folder
    State(folder).create()
    # then its mode stands, and what we add is private
    assert mode(folder) == 0o750
    assert mode(folder / "secrets") == mode(folder / "logs") == 0o700


def test_a_secret_is_random_private_and_kept(state: State, tmp_path: Path) -> None:
    # when a secret is asked for twice
    first, again = state.secret("JwtSecret"), state.secret("JwtSecret")
    # then it is the same, long, and nobody else's to read
    assert first == again
    assert len(first) >= 43
    assert mode(state.secrets / "JwtSecret") == 0o600
    # and another copy has another
    other = State(tmp_path / "other")
    other.create()
    assert other.secret("JwtSecret") != first


def test_a_held_folder_is_refused_by_name(state: State) -> None:
    # given a folder that one holds
    with state.lock(), pytest.raises(StartError, match=str(state.folder)):
        # when another wants it, then it is told which
        state.lock()
    # and once it is let go, it can be held again
    state.lock().close()


def test_the_env_file_holds_key_value_lines_for_its_owner_alone(state: State) -> None:
    # when it is written
    environment.write_env(state, port=8042, owner_url="postgresql://owner@h/d", redis_url="redis://h/0")
    # then it reads back, value with equals signs or not, and is private
    assert state.read_env() == {
        "API_URL": "http://127.0.0.1:8042",
        "WEBSOCKET_URL": "ws://127.0.0.1:8042/realtime",
        "DATABASE_URL": "postgresql://owner@h/d",
        "REDIS_URL": "redis://h/0",
    }
    assert mode(state.env) == 0o600


def test_without_a_running_system_the_way_to_one_is_named(state: State) -> None:
    with pytest.raises(StartError, match="make start"):
        state.read_env()


def test_ports_are_remembered(state: State) -> None:
    assert state.remembered_ports() == {}
    state.remember_ports({"Redis": 6400})
    assert state.remembered_ports() == {"Redis": 6400}


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("postgresql://admin:pw@h:5/trading", "postgresql://function_risk:a%2Fb@h:5/trading"),
        ("postgresql://h/trading?sslmode=require", "postgresql://function_risk:a%2Fb@h/trading?sslmode=require"),
    ],
)
def test_a_roles_url_differs_from_the_owners_in_the_user_alone(owner: str, expected: str) -> None:
    assert environment.role_url(owner, "function_risk", "a/b") == expected


@pytest.mark.parametrize(("text", "limit"), [(None, 1_000_000), ("", 1_000_000), ("1", 1), ("600", 600)])
def test_the_address_limit_can_be_set(text: str | None, limit: int) -> None:
    assert environment.address_limit({} if text is None else {"IP_REQUESTS_PER_MINUTE": text}) == limit


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", " 600", "٦٠٠", "1000001", "9" * 5000])
def test_a_wrong_address_limit_is_named_in_one_line(text: str) -> None:
    with pytest.raises(StartError, match="IP_REQUESTS_PER_MINUTE") as caught:
        environment.address_limit({"IP_REQUESTS_PER_MINUTE": text})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [("", {}), ("A=1 B=x:y,z=w", {"A": "1", "B": "x:y,z=w"}), (" A= ", {"A": ""})],
)
def test_parameters_of_the_template_can_be_set(text: str, overrides: dict[str, str]) -> None:
    assert environment.parameter_overrides({"PARAMETERS": text}) == overrides


@pytest.mark.parametrize("text", ["A", "=1", "A=1 B", "--x=1"])
def test_parameters_of_another_form_are_named_in_one_line(text: str) -> None:
    with pytest.raises(StartError, match="PARAMETERS") as caught:
        environment.parameter_overrides({"PARAMETERS": text})
    assert "\n" not in str(caught.value)


def test_the_gateway_is_told_of_secrets_by_reference_only(state: State) -> None:
    # given the roles' URLs
    urls = {role: f"postgresql://{role}:hidden@h/d" for role in LOGIN_ROLES}
    # when the gateway's file is written
    environment.write_gateway_file(state, port=8042, role_urls=urls, redis_url="redis://:hidden@h/0", workers=3)
    # then it lets load accounts pass the rate limit, wherever they come from
    parameters = json.loads(state.gateway.read_text())["parameters"]
    assert (parameters["AllowUnmeteredTier"], parameters["IpRequestsPerMinute"]) == ("true", "1000000")
    # and names private files that hold them, and none of their text
    text = state.gateway.read_text()
    assert "hidden" not in text
    content = json.loads(text)
    assert (content["host"], content["port"], content["workers_max"]) == ("127.0.0.1", 8042, 3)
    for reference in content["secrets"].values():
        path = Path(reference.removeprefix("file:"))
        assert path.is_absolute()
        assert mode(path) == 0o600
        assert path.read_text()
    trader = Path(content["secrets"]["TraderDatabaseSecret"].removeprefix("file:"))
    assert trader.read_text() == urls["function_trader"]


class TestQuoteParameters:
    """Which prices a local system has."""

    AT = datetime(2026, 1, 2, tzinfo=UTC)

    @pytest.fixture
    def recording(self, tmp_path: Path) -> Path:
        path = tmp_path / "eurusd.csv"
        path.write_text("timestamp,bid,ask\n2026-01-01T00:00:00Z,1.1,1.2\n")
        return path

    def test_nothing_said_leaves_the_template_s_defaults(self) -> None:
        assert environment.quote_parameters({"QUOTE_PROVIDER": "", "PATH": "/bin"}, self.AT) == {}

    def test_a_recording_begins_when_the_system_does(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # given a path that is told from where we stand
        monkeypatch.chdir(recording.parent)
        variables = {"QUOTE_PROVIDER": "replay", "QUOTE_REPLAY_FILE": recording.name, "QUOTE_REPLAY_SPEED": "2.5"}
        # then functions, which stand elsewhere, are told of it in full
        assert environment.quote_parameters(variables, self.AT) == {
            "QuoteProvider": "replay",
            "QuoteReplayFile": str(recording),
            "QuoteReplaySpeed": "2.5",
            "QuoteReplayStart": "2026-01-02T00:00:00+00:00",
        }

    @pytest.mark.parametrize(
        ("variables", "named"),
        [
            ({"QUOTE_PROVIDER": "nobody"}, "QUOTE_PROVIDER is simulated or replay"),
            ({"QUOTE_PROVIDER": "replay"}, "QUOTE_REPLAY_FILE is not set"),
            ({"QUOTE_PROVIDER": "replay", "QUOTE_REPLAY_FILE": "/nowhere/eurusd.csv"}, "/nowhere/eurusd.csv"),
            ({"QUOTE_PROVIDER": "replay", "QUOTE_REPLAY_SPEED": "fast"}, "QUOTE_REPLAY_SPEED"),
        ],
    )
    def test_what_is_wrong_is_named_in_one_line(self, variables: dict[str, str], named: str) -> None:
        with pytest.raises(StartError, match=named) as caught:
            environment.quote_parameters(variables, self.AT)
        assert "\n" not in str(caught.value)

    def test_a_malformed_recording_is_named_by_its_line(self, recording: Path) -> None:
        recording.write_text(recording.read_text() + "tomorrow,1,2\n")

        with pytest.raises(StartError, match="line 3"):
            environment.quote_parameters({"QUOTE_PROVIDER": "replay", "QUOTE_REPLAY_FILE": str(recording)}, self.AT)

    def test_the_gateway_sets_them(self, state: State, recording: Path) -> None:
        urls = {role: f"postgresql://{role}@h/d" for role in LOGIN_ROLES}
        chosen = {"QuoteProvider": "replay", "QuoteReplayFile": str(recording)}

        environment.write_gateway_file(
            state, port=8042, role_urls=urls, redis_url="redis://h/0", workers=3, overrides=chosen
        )

        parameters = json.loads(state.gateway.read_text())["parameters"]
        assert parameters.items() >= (chosen | {"Stage": "local"}).items()
