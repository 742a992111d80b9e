"""What the gateway is told by its supervisor."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.processes import StartError

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Settings:
    """The content of STATE/gateway.json.

    `secrets` maps a template's secret to the reference that functions are given, `parameters` overrides template
    parameters, `workers_max` bounds the processes of each function whatever concurrency the template reserves.
    Port 0 takes a free one.
    """

    state: Path
    template: Path
    port: int
    secrets: Mapping[str, str]
    parameters: Mapping[str, object]
    workers_max: int

    @property
    def logs(self) -> Path:
        """The folder of the functions' logs and the access log."""
        return self.state / "logs"


def load_settings(state: Path, *, template: Path | None = None, port: int | None = None) -> Settings:
    """Read STATE/gateway.json; `template` and `port` win over it. StartError says what is wrong with it."""
    path = state / "gateway.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise StartError(f"{path} is missing: the supervisor writes it before it starts the gateway.") from None
    except json.JSONDecodeError as error:
        raise StartError(f"{path} is no JSON: {error}") from None
    if content.get("host", HOST) != HOST:
        raise StartError(f"{path}: host {content['host']!r}: the gateway binds {HOST} only.")
    workers_max = content.get("workers_max", 4)
    if not isinstance(workers_max, int) or workers_max < 1:
        raise StartError(f"{path}: workers_max must be a whole number from 1.")
    return Settings(
        state=state.resolve(),
        template=(template or ROOT / "template.yaml").resolve(),
        port=content["port"] if port is None else port,
        secrets=content.get("secrets", {}),
        parameters=content.get("parameters", {}),
        workers_max=workers_max,
    )
