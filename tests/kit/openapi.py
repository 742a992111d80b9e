"""Answers held against docs/api/openapi.json."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

PATH = Path(__file__).resolve().parents[2] / "docs" / "api" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(PATH.read_text())

_ROOT = "urn:openapi"
_REGISTRY = jsonschema_rs.Registry([(_ROOT, DOCUMENT)])
_JSON = "application/json"
_NOT_FOUND = {"message": "Not Found"}


@dataclass(frozen=True, slots=True)
class Described:
    """An operation of the document and where it stands in it."""

    method: str
    path: str
    operation: Mapping[str, Any]


def operations() -> list[Described]:
    """Every operation of the document."""
    return [
        Described(method, path, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def operation_at(method: str, path: str) -> Described | None:
    """The operation that answers at a real path, None where the document has none; a full path goes first."""
    found = [each for each in operations() if each.method == method.lower() and _pattern(each.path).fullmatch(path)]
    return min(found, key=lambda each: each.path.count("{"), default=None)


def check_answer(method: str, path: str, status: int, headers: Mapping[str, str], text: str) -> None:
    """AssertionError unless the document says that this request may be answered so."""
    described = operation_at(method, path)
    told = f"{method} {path} -> {status} {text[:1000]}"
    if described is None:
        assert status == 404, f"not described, and not a 404: {told}"
        assert method == "HEAD" or json.loads(text) == _NOT_FOUND, told
        return
    assert str(status) in described.operation["responses"], f"not a status that is described: {told}"
    response, pointer = _resolved(described, str(status))
    assert headers.get("content-type", "").split(";")[0] == _JSON, told
    _check_schema(f"{pointer}/content/{_escaped(_JSON)}/schema", json.loads(text, parse_float=Decimal), told)
    for name, given in response["headers"].items():
        _check_header(name, given, headers.get(name.lower()), told)


def check_value(pointer: str, value: object) -> None:
    """AssertionError unless `value` fits the schema at `pointer`, as #/components/schemas/Order."""
    _check_schema(pointer.removeprefix("#"), value, pointer)


def dereferenced(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What stands where `node` points, or `node` itself."""
    return _at(node["$ref"].removeprefix("#")) if "$ref" in node else node


def _resolved(described: Described, status: str) -> tuple[Mapping[str, Any], str]:
    """A response and its pointer."""
    response = described.operation["responses"][status]
    if "$ref" in response:
        return dereferenced(response), response["$ref"].removeprefix("#")
    return response, f"/paths/{_escaped(described.path)}/{described.method}/responses/{status}"


def _check_header(name: str, given: Mapping[str, Any], text: str | None, told: str) -> None:
    header = dereferenced(given)
    if text is None:
        assert not header["required"], f"{name} is missing: {told}"
        return
    value = int(text) if header["schema"].get("type") == "integer" and text.isdecimal() else text
    pointer = given["$ref"].removeprefix("#")
    _check_schema(f"{pointer}/schema", value, f"{name}: {text} in {told}")


def _check_schema(pointer: str, value: object, told: str) -> None:
    error = next(_validator(pointer).iter_errors(value), None)
    if error is not None:
        where = "/".join(str(part) for part in error.instance_path)
        raise AssertionError(f"{where}: {_reason(error)}\n  in {told}")


def _reason(error: jsonschema_rs.ValidationError) -> str:
    """The message; of a choice, what is wrong with each of its members."""
    context = getattr(error.kind, "context", None) or []
    more = [f"\n    {'/'.join(map(str, each.instance_path))}: {each.message}" for branch in context for each in branch]
    return error.message[:500] + "".join(more)


@cache
def _validator(pointer: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"{_ROOT}#{_percent(pointer)}"}, registry=_REGISTRY, validate_formats=True
    )


@cache
def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]+\}", path)
    return re.compile("[^/]+".join(re.escape(part) for part in parts))


def _at(pointer: str) -> Any:
    node: Any = DOCUMENT
    for part in pointer.split("/")[1:]:
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _percent(pointer: str) -> str:
    """A pointer as the fragment of a URI."""
    return pointer.replace("{", "%7B").replace("}", "%7D")
