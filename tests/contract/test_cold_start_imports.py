"""What a function loads before its first request: nothing heavy that it may not need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted(folder.name for folder in (ROOT / "functions").iterdir() if (folder / "app.py").exists())

# Each costs from a tenth to a third of a second, and is imported by the step that needs it.
HEAVY = ("boto3", "botocore.session", "redis", "jwt", "cryptography", "aws_xray_sdk", "urllib.request", "xml.etree")


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
    assert modules_loaded_by(function).isdisjoint(HEAVY)
