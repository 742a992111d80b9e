"""Run the benchmarks, or those that are named: `python -m benchmarks [NAME ...] [--rounds 7] [--seconds 2]`."""

import argparse
import importlib

from benchmarks.rounds import ROUNDS, SLICE_SECONDS

# In the order of the layers that they measure.
MODULE_BY_NAME = {
    "procedure": "benchmarks.order_procedure",
    "limits": "benchmarks.limits",
    "reads": "benchmarks.database_reads",
    "ticks": "benchmarks.ticks",
    "risk": "benchmarks.risk",
    "handler": "benchmarks.handler",
    "http": "benchmarks.over_http",
    "traders": "benchmarks.traders",
    "frames": "benchmarks.frames",
    "imports": "benchmarks.imports",
}


def main() -> None:
    """Entry of `make bench`."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULE_BY_NAME)}; all if none is given"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SLICE_SECONDS, help="of each slice")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MODULE_BY_NAME]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(MODULE_BY_NAME)}")
    for name in given.names or MODULE_BY_NAME:
        importlib.import_module(MODULE_BY_NAME[name]).run(given.rounds, given.seconds)


if __name__ == "__main__":
    main()
