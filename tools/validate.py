"""Validate template.yaml, without an AWS account.

    python -m tools.validate

Twice, because each finds what the other does not: `sam validate` expands the SAM resources, and `--lint` holds the
result against the CloudFormation resource specifications and never expands an event of a function.
"""

import subprocess
import sys

from tools.sam import run_sam

# The expansion asks for credentials, and uses them for nothing.
NOBODY = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_EC2_METADATA_DISABLED": "true"}
REGION = "eu-west-1"


def main() -> None:
    """Entry of `python -m tools.validate`."""
    try:
        # Without --config-env no `lint = true` of samconfig.toml applies.
        run_sam("validate", "--config-env", "expansion", "--region", REGION, environment=NOBODY)
        run_sam("validate", "--lint", "--region", REGION, environment=NOBODY)
    except FileNotFoundError as error:
        sys.exit(f"{error.filename} is missing: run `make lint`")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
