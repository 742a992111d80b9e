"""What happens to a build before it is shipped."""

import importlib.util
import os
from pathlib import Path

import pytest

from tools import build
from tools.build import BuildError, check_size, compile_artifacts

# The second word of a .pyc: bit 0 says that it is checked by hash, bit 1 that this check is made at import.
UNCHECKED_HASH = 0b01


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A function and a layer as `sam build` leaves them."""
    for path, text in {
        "RiskFunction/app.py": "handler = len\n",
        "TradingLayer/python/trading/risk.py": "LEVEL = 50\n",
        "TradingLayer/python/requirements.in": "pydantic\n",
        "template.yaml": "Resources: {}\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def bytecode_of(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def test_every_module_gets_bytecode_that_no_time_makes_stale(built: Path) -> None:
    # Given / when
    compile_artifacts(built)
    # Then
    for source in ("RiskFunction/app.py", "TradingLayer/python/trading/risk.py"):
        flags = int.from_bytes(bytecode_of(built / source).read_bytes()[4:8], "little")
        assert flags == UNCHECKED_HASH


def test_bytecode_names_the_file_as_it_lies_on_lambda(built: Path) -> None:
    compile_artifacts(built)
    assert b"/opt/python/trading/risk.py" in bytecode_of(built / "TradingLayer/python/trading/risk.py").read_bytes()
    assert b"/var/task/app.py" in bytecode_of(built / "RiskFunction/app.py").read_bytes()


def test_bytecode_of_an_earlier_build_is_replaced(built: Path) -> None:
    # Given bytecode, and a source that changed within the same second
    compile_artifacts(built)
    source = built / "RiskFunction" / "app.py"
    before = bytecode_of(source).read_bytes()
    status = source.stat()
    source.write_text("handler = max\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    # When
    compile_artifacts(built)
    # Then
    assert bytecode_of(source).read_bytes() != before


def test_what_no_handler_reads_is_left_out(built: Path) -> None:
    compile_artifacts(built)
    assert not (built / "TradingLayer/python/requirements.in").exists()
    assert (built / "template.yaml").exists()


def test_a_module_that_does_not_compile_is_not_shipped(built: Path) -> None:
    (built / "RiskFunction" / "app.py").write_text("def handler(:\n")
    with pytest.raises(BuildError, match="RiskFunction"):
        compile_artifacts(built)


def test_a_build_that_lambda_would_refuse_is_refused_here(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a build that fits to the byte
    size = sum(file.stat().st_size for part in ("RiskFunction", "TradingLayer") for file in (built / part).rglob("*.*"))
    monkeypatch.setattr(build, "ARTIFACT_BYTES_MAX", size)
    check_size(built)
    # When it grows by one
    with (built / "RiskFunction" / "app.py").open("a") as module:
        module.write("#")
    # Then
    with pytest.raises(BuildError, match="unpacked"):
        check_size(built)
