"""What importing execute_order costs, against importing the libraries that it cannot do without.

Each import runs in a fresh interpreter with bytecode compiled, and its CPU time is taken from the child's resource
usage, without that of an interpreter that imports nothing. What the first order imports beyond the start is found by
having one executed, and counted in a row of its own.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.handler import check_executed, headers_of, order_event, set_relay_sign
from benchmarks.market import make_accounts, prepared_market
from benchmarks.rounds import Ratio, table
from tests.kit.functions import function_variables

ROOT = Path(__file__).resolve().parents[1]
PAIRS_MIN = 15
AIM = 1.15
RUNTIME = "import awslambdaric.bootstrap"
APP = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("app", {str(ROOT / "functions" / "execute_order" / "app.py")!r})
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)
"""
PROGRAMS = {
    "the libraries": f"""
{RUNTIME}
import psycopg, redis, jwt
from pydantic import BaseModel
from aws_lambda_powertools import Logger, Metrics
class Order(BaseModel):
    symbol: str
    quantity: float
""",
    "execute_order, at its start": f"{RUNTIME}\n{APP}",
}
FIRST_ORDER = "execute_order, and what its first order imports"
"""A list of modules follows the start, in the order in which the first order loaded them."""
NOTHING = "an interpreter"


def modules_of_the_first_order() -> list[str]:
    """What an order that is executed has loaded beyond the import of the function; nothing that queues, as when a relay
    is awake.
    """
    program = f"""
{RUNTIME}
{APP}
import json
from types import SimpleNamespace
context = SimpleNamespace(function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="id")
known = set(sys.modules)
answer = app.handler(json.loads(sys.stdin.read()), context)
sys.stderr.write(json.dumps([answer, [name for name in sys.modules if name not in known]]))
"""
    with prepared_market() as market:
        with market.database.connect() as owner:
            (user,) = make_accounts(owner, 1)
        redis_url = market.servers.redis.url()
        set_relay_sign(redis_url, present=True)
        variables = function_variables(market.folder, market.database.url_for("function_trader"), redis_url)
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(order_event(headers_of(user))),
            env=_environment(variables),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    answer, modules = json.loads(done.stderr)
    check_executed(answer)
    return modules


def cpu_seconds(program: str) -> float:
    """The CPU time of a fresh interpreter that runs `program`."""
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", program], _environment({}))
    _, status, used = os.wait4(process, 0)
    if status != 0:
        raise RuntimeError(f"this program failed:\n{program}")
    return used.ru_utime + used.ru_stime


def run(rounds: int, seconds: float) -> None:  # noqa: ARG001 - an import takes as long as it takes
    """Measure and print."""
    loaded = "".join(f"import {name}\n" for name in modules_of_the_first_order())
    start = PROGRAMS["execute_order, at its start"]
    programs = {NOTHING: "", **PROGRAMS, FIRST_ORDER: f"{start}\n{loaded}"}
    for program in programs.values():
        cpu_seconds(program)  # compiles what is not compiled yet
    used: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(max(rounds, PAIRS_MIN)):
        names = list(programs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            used[name].append(cpu_seconds(programs[name]))
    _report(used)


def _report(used: Mapping[str, Sequence[float]]) -> None:
    bare = statistics.median(used[NOTHING])
    base = [seconds - bare for seconds in used["the libraries"]]
    rows: list[Sequence[str]] = []
    for name, seconds in used.items():
        if name == NOTHING:
            continue
        own = [each - bare for each in seconds]
        aim = "-" if name == "the libraries" else f"≤ {AIM:.2f}"
        rows.append((name, f"{statistics.median(own) * 1000:.0f}", str(Ratio.of(own, base)), aim))
    title = f"CPU time of imports, {len(base)} rounds; a bare interpreter's {bare * 1000:.0f} ms are taken off"
    table(title, ("imported", "CPU ms", "ratio (lowest–highest)", "aim"), rows)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": f"{ROOT / 'layers' / 'trading'}:{ROOT}", **variables}
