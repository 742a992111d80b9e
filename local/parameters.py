"""What template.yaml lets its parameters be, and functions their settings: judged before anything starts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.environment import KEYS, ROLE_OF_SECRET
from local.gateway.local_values import LocalValues
from local.gateway.stack import read_stack
from local.gateway.template import Template, load_template
from local.processes import StartError
from trading.settings import ConfigurationError, Settings

TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"
NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")
# Stand-ins in what is resolved for its form alone.
SECRETS = dict.fromkeys([*ROLE_OF_SECRET, "RedisSecret", *KEYS], "file:")
NOWHERE = "127.0.0.1:9"


def check_forms(asked: Mapping[str, str]) -> None:
    """StartError names the parameter that the template has not, or has in another form."""
    parameters = load_template(TEMPLATE)["Parameters"]
    for name, value in asked.items():
        declared = parameters.get(name)
        if declared is None:
            raise StartError(f"PARAMETERS: the template has no parameter {name}.")
        form = _form_missed(declared, value)
        if form is not None:
            told = f"PARAMETERS: {name} has to be {form}, not {value!r}."
            raise StartError(f"{told} {declared.get('Description', '')}".rstrip())


def check_settings(parameters: Mapping[str, str]) -> None:
    """StartError names the variable that a function would refuse: all that `parameters` come to together."""
    content = load_template(TEMPLATE)
    values = LocalValues(content, SECRETS, parameters, f"http://{NOWHERE}", NOWHERE)
    for function in read_stack(Template(content, values, TEMPLATE.parent)).functions.values():
        try:
            Settings.from_environment(function.environment)
        except ConfigurationError as error:
            raise StartError(f"PARAMETERS: {error}") from None


def _form_missed(declared: Mapping[str, Any], value: str) -> str | None:
    """What CloudFormation would miss in `value`; None where nothing."""
    allowed = [str(each) for each in declared.get("AllowedValues", ())]
    if allowed and value not in allowed:
        return f"one of {', '.join(each or 'nothing' for each in allowed)}"
    if declared["Type"] == "Number":
        low, high = declared.get("MinValue"), declared.get("MaxValue")
        if not NUMBER.fullmatch(value):
            return "a number"
        if low is not None and float(value) < low:
            return f"at least {low}"
        if high is not None and float(value) > high:
            return f"at most {high}"
    pattern = declared.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        return f"of the form {pattern}"
    return None
