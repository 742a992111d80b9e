"""The environment of a function's workers: what Lambda sets, and the template's variables. Nothing of the parent's."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from local.gateway.local_values import REGION
from local.gateway.stack import FunctionSpec


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a worker signs its AWS calls with; this process takes no others."""

    key_id: str
    secret: str


def worker_environment(spec: FunctionSpec, credentials: Credentials, aws_endpoint: str) -> Mapping[str, str]:
    """All variables of a worker but the address of its Runtime API."""
    roots: list[str] = []
    for layer in spec.layers:
        roots += [str(folder) for folder in (layer / "python", layer) if folder.is_dir()]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": os.pathsep.join([*roots, str(spec.folder)]),
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_LAMBDA_LOG_FORMAT": spec.log_format,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "LAMBDA_TASK_ROOT": str(spec.folder),
        "_HANDLER": spec.handler,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": credentials.key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        # Every AWS call comes to this process, which refuses what it does not serve: none leaves the machine.
        "AWS_ENDPOINT_URL": aws_endpoint,
        "AWS_ENDPOINT_URL_SQS": aws_endpoint,
        "POWERTOOLS_TRACE_DISABLED": "true",
    }
    if spec.log_level is not None:
        environment["AWS_LAMBDA_LOG_LEVEL"] = spec.log_level
    return {**environment, **spec.environment}
