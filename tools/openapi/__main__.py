"""Write docs/api/openapi.json, or with --check say whether it is what would be written.

python -m tools.openapi [--check]
"""

import sys

from tools.openapi.document import PATH, text


def main() -> None:
    """Entry of `python -m tools.openapi`."""
    written = text()
    if "--check" not in sys.argv[1:]:
        PATH.write_text(written)
    elif not PATH.exists() or PATH.read_text() != written:
        sys.exit(f"{PATH.name} is not what the code says any more: run `make openapi` and commit it")


if __name__ == "__main__":
    main()
