"""`make bench`: all measurements, one after the other; `python -m benchmarks.NAME --help` for one alone."""

from benchmarks import order_procedure

if __name__ == "__main__":
    order_procedure.main()
