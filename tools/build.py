"""Build what `sam deploy` ships: `sam build`, then bytecode beside every module.

    python -m tools.build

Without bytecode a cold start compiles every import. It is unchecked-hash bytecode because zipping resets the times of
files, which would make timestamped bytecode stale; Python 3.13 bytecode is the same on every processor.
"""

import compileall
import py_compile
import subprocess
import sys
from pathlib import Path

from tools.sam import ROOT, run_sam

PYTHON = (3, 13)
# Files of the source folders that no handler reads.
LEFT_OUT = ("requirements.in",)
# Where each built artifact lies on Lambda, so that a traceback names the file that is there.
LAYER_ROOT = "/opt"
FUNCTION_ROOT = "/var/task"
ARTIFACT_BYTES_MAX = 250 * 1024 * 1024  # Lambda's limit on a function and its layers, unpacked


class BuildError(Exception):
    """The build cannot be shipped; the message says why."""


def build(root: Path = ROOT) -> Path:
    """Run `sam build` on `root` and compile what it built; the folder of the built artifacts."""
    run_sam("build", root=root)
    folder = root / ".aws-sam" / "build"
    compile_artifacts(folder)
    check_size(folder)
    return folder


def compile_artifacts(folder: Path) -> None:
    """Leave out what no handler reads and put unchecked-hash bytecode into every artifact under `folder`."""
    if sys.version_info[:2] != PYTHON:
        raise BuildError(f"the bytecode is of Python 3.13, and this is {sys.version.split()[0]}")
    for artifact in artifacts(folder):
        layer = (artifact / "python").is_dir()
        for name in LEFT_OUT:
            for unused in artifact.glob(f"**/{name}"):
                unused.unlink()
        compiled = compileall.compile_dir(
            artifact,
            quiet=1,
            force=True,
            stripdir=str(artifact),
            prependdir=LAYER_ROOT if layer else FUNCTION_ROOT,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        if not compiled:
            raise BuildError(f"{artifact.name} has a module that does not compile")


def check_size(folder: Path) -> None:
    """BuildError when the layer and the largest function are more than Lambda takes."""
    sizes = {artifact.name: _bytes(artifact) for artifact in artifacts(folder)}
    layers = sum(size for name, size in sizes.items() if (folder / name / "python").is_dir())
    functions = max((size for name, size in sizes.items() if not (folder / name / "python").is_dir()), default=0)
    if layers + functions > ARTIFACT_BYTES_MAX:
        raise BuildError(f"{layers + functions} bytes unpacked; Lambda takes {ARTIFACT_BYTES_MAX}")


def artifacts(folder: Path) -> list[Path]:
    """The folders of the built functions and layers."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Entry of `python -m tools.build`."""
    try:
        build()
    except FileNotFoundError as error:
        sys.exit(f"{error.filename} is missing: run `make build`")
    except (BuildError, subprocess.CalledProcessError) as error:
        sys.exit(f"The build failed: {error}")


if __name__ == "__main__":
    main()
