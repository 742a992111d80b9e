"""What a function loads before its first request: nothing heavy that it may not need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted(folder.name for folder in (ROOT / "functions").iterdir() if (folder / "app.py").exists())

# Each costs from a tenth to a third of a second, and is imported by the step that needs it.
HEAVY = (
    "aws_xray_sdk",
    "boto3",
    "botocore.session",
    "cryptography",
    "http.client",
    "jwt",
    "multiprocessing",
    "redis",
    "urllib.request",
    "urllib3",
    "xml.etree",
)
# What every function stands on. A new one here is a new part of every cold start.
PACKAGES = {
    "annotated_types",
    "aws_lambda_powertools",
    "botocore",  # Powertools names one class of its configuration
    "cython_runtime",
    "jmespath",
    "psycopg",
    "psycopg_binary",
    "pydantic",
    "pydantic_core",
    "trading",
    "typing_extensions",
    "typing_inspection",
}
# Of Python 3.13, with a little room; the standard library's own modules are most of it.
MODULES_MAX = 460
MODULES_MAX_OF = {"process_updates": 490, "route_orders": 480}  # it reads batches


def modules_loaded_by(function: str) -> set[str]:
    """The modules that importing a function's app loads, in an interpreter that was told nothing."""
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('app', {str(ROOT / 'functions' / function / 'app.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "assert callable(module.handler)\n"
        "print(*sys.modules)\n"
    )
    # No variable of a function is set: reading the environment while being imported would fail here.
    environment = {"PYTHONPATH": str(ROOT / "layers" / "trading")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_there_are_functions() -> None:
    assert {"execute_order", "get_price", "health", "manage_orders"} <= set(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_loads_nothing_heavy_before_its_first_request(function: str) -> None:
    loaded = modules_loaded_by(function)

    assert loaded.isdisjoint(HEAVY)
    assert {package for name in loaded if is_foreign(package := name.partition(".")[0])} <= PACKAGES
    assert len(loaded) <= MODULES_MAX_OF.get(function, MODULES_MAX)


def is_foreign(package: str) -> bool:
    """Whether a top-level module is neither Python's own nor a compiled part that a wheel names by its build."""
    return package not in {*sys.stdlib_module_names, "__main__", "app"} and not package.startswith("_")
