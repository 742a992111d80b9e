"""Functions of a running local system, invoked by hand as `aws lambda invoke` does it in a deployment."""

import json
from contextlib import closing
from typing import Any

from local.environment import State
from local.gateway.local_values import STACK
from local.processes import StartError

# A function that feeds prices runs for minutes.
ANSWER_SECONDS_MAX = 900


class UnknownFunctionError(Exception):
    """The template has no such function; the text is for the person at the terminal."""


class FailedFunctionError(Exception):
    """The function gave no result; the text is Lambda's error object, or why it was not run."""


def invoke(state: State, function: str, *, wait: bool = True) -> Any:
    """Run the function of that logical id in template.yaml, as a schedule does; what it returned.

    Without `wait` nothing is known of how it ends, and None returned. Raises UnknownFunctionError, FailedFunctionError,
    and StartError where no system is up.
    """
    from botocore.exceptions import ClientError, EndpointConnectionError

    with closing(_client(state)) as client:
        try:
            answer = client.invoke(
                FunctionName=f"{STACK}-{function}",
                InvocationType="RequestResponse" if wait else "Event",
                Payload=b"{}",
            )
        except EndpointConnectionError:
            raise _down(state) from None
        except client.exceptions.ResourceNotFoundException:
            raise UnknownFunctionError(f"FUNCTION {function or '(empty)'} is no function of template.yaml.") from None
        except ClientError as error:
            raise FailedFunctionError(str(error)) from None
        body = answer["Payload"].read()
    if "FunctionError" in answer:
        raise FailedFunctionError(body.decode())
    return json.loads(body) if wait else None


def _client(state: State) -> Any:
    import boto3
    from botocore.config import Config

    try:
        lines = (state.folder / "aws").read_text().splitlines()
    except FileNotFoundError:
        raise _down(state) from None
    aws = dict(line.split("=", 1) for line in lines)
    return boto3.client(
        "lambda",
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        region_name=aws["AWS_REGION"],
        aws_access_key_id=aws["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"max_attempts": 0}, read_timeout=ANSWER_SECONDS_MAX),
    )


def _down(state: State) -> StartError:
    return StartError(f"No local system is up on {state.folder}: run `make start` first.")
