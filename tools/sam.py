"""The SAM command line, in the environment of its own that requirements/deploy.txt describes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
SAM = ROOT / ".venv-deploy" / "bin" / "sam"


def run_sam(*arguments: str, root: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
    """Run `sam` in `root`, with the Python that runs this as the `python3.13` that it looks for.

    Raises CalledProcessError when it refuses, FileNotFoundError when it is not installed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"PATH": path, "SAM_CLI_TELEMETRY": "0"}
    subprocess.run([SAM, *arguments], cwd=root, env=os.environ | quiet | dict(environment or {}), check=True)
