"""docs/api/openapi.json: what the code says, valid, whole, with examples that are true; and a checker that can fail."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from local.gateway.template import load_template
from tests.kit.openapi import DOCUMENT, PATH, check_answer, check_value, dereferenced, operations
from tools.openapi.document import text
from tools.openapi.errors import EXAMPLES
from trading.edge.envelope import STATUS_BY_CODE
from trading.edge.security_headers import SECURITY_HEADERS
from trading.errors import ErrorCode

TEMPLATE = load_template(Path(__file__).parents[2] / "template.yaml")
EXECUTED = DOCUMENT["paths"]["/functions/v1/execute-order"]["post"]
HEADERS = {"content-type": "application/json", "x-request-id": "1"} | {
    name.lower(): value for name, value in SECURITY_HEADERS.items()
}


def template_routes() -> set[str]:
    return {
        f"{event['Properties']['Method']} {event['Properties']['Path']}"
        for resource in TEMPLATE["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }


def examples() -> Iterator[tuple[str, Any]]:
    """Each example of the document, with the pointer of the schema that it has to fit."""
    for described in operations():
        escaped = described.path.replace("/", "~1")
        pointer = f"#/paths/{escaped}/{described.method}"
        body = described.operation.get("requestBody")
        if body is not None:
            at = f"{pointer}/requestBody/content/application~1json/schema"
            yield at, body["content"]["application/json"]["example"]
        for status, response in described.operation["responses"].items():
            content = dereferenced(response)["content"]["application/json"]
            at = f"{response.get('$ref', f'{pointer}/responses/{status}')}/content/application~1json/schema"
            if "example" in content:
                yield at, content["example"]
            for example in content.get("examples", {}).values():
                yield at, dereferenced(example)["value"]


class TestDocument:
    def test_it_is_what_the_code_says(self) -> None:
        assert PATH.read_text() == text(), "docs/api/openapi.json is stale: run `make openapi` and commit it"

    def test_it_is_valid_openapi(self) -> None:
        validate(DOCUMENT, cls=OpenAPIV31SpecValidator)

    def test_it_has_the_routes_of_the_template_and_no_other(self) -> None:
        described = {f"{each.method.upper()} {each.path}" for each in operations()}
        assert described == template_routes(), "add it to tools/openapi/routes, then run `make openapi`"

    def test_each_operation_has_a_name_of_its_own(self) -> None:
        names = [each.operation["operationId"] for each in operations()]
        assert len(set(names)) == len(names)

    def test_every_code_has_a_status_and_an_example(self) -> None:
        assert set(ErrorCode) == set(STATUS_BY_CODE) == set(EXAMPLES)
        assert all(code is error.code for code, error in EXAMPLES.items())

    def test_every_example_fits_its_schema(self) -> None:
        found = list(examples())
        assert len(found) > 2 * len(operations())
        for pointer, example in found:
            check_value(pointer, example)

    def test_a_front_end_may_send_and_read_the_headers_that_it_names(self) -> None:
        cors = TEMPLATE["Resources"]["HttpApi"]["Properties"]["CorsConfiguration"]
        components = DOCUMENT["components"]
        sent = {"Authorization", components["securitySchemes"]["csrf"]["name"], *components["parameters"]}
        assert sent <= set(cors["AllowHeaders"])
        assert set(components["headers"]) - set(SECURITY_HEADERS) == set(cors["ExposeHeaders"])


def answered(**changes: object) -> dict[str, Any]:
    """The example of an executed order, with other members in its data."""
    example = json.loads(json.dumps(EXECUTED["responses"]["200"]["content"]["application/json"]["example"]))
    example["data"] |= changes
    return example


def check(status: int, body: object, headers: Mapping[str, str] = HEADERS, path: str = "execute-order") -> None:
    check_answer("POST", f"/functions/v1/{path}", status, headers, json.dumps(body))


class TestChecker:
    def test_it_takes_what_is_described(self) -> None:
        check(200, answered())
        check(200, answered(), HEADERS | {"idempotency-replayed": "true", "x-ratelimit-remaining": "9"})
        check(502, {"message": "Bad Gateway"}, {"content-type": "application/json"})
        check(404, {"message": "Not Found"}, path="nothing-there")

    @pytest.mark.parametrize(
        "body",
        [
            answered(more="than described"),
            answered(status="FILLED"),
            answered(order_id="1"),
            answered(position_id=None),
            {"success": True, "data": answered()["data"]},
            answered()["data"],
        ],
    )
    def test_it_refuses_a_body_that_is_not_described(self, body: object) -> None:
        with pytest.raises(AssertionError):
            check(200, body)

    @pytest.mark.parametrize(
        "headers",
        [
            {name: value for name, value in HEADERS.items() if name != "x-request-id"},
            {name: value for name, value in HEADERS.items() if name != "x-frame-options"},
            HEADERS | {"x-frame-options": "SAMEORIGIN"},
            HEADERS | {"idempotency-replayed": "yes"},
            HEADERS | {"x-ratelimit-remaining": "many"},
            HEADERS | {"content-type": "text/html"},
        ],
    )
    def test_it_refuses_headers_that_are_not_described(self, headers: Mapping[str, str]) -> None:
        with pytest.raises(AssertionError):
            check(200, answered(), headers)

    def test_it_refuses_a_status_that_is_not_described(self) -> None:
        with pytest.raises(AssertionError, match="not a status"):
            check(201, answered())
        with pytest.raises(AssertionError, match="not described"):
            check(200, answered(), path="nothing-there")

    @pytest.mark.parametrize(
        "details",
        [
            {},
            {"field": "quantity", "value": "1,5"},
            {"field": "quantity", "value": "1,5", "constraint": ""},
            {"field": "quantity", "value": 1.5, "constraint": "a number"},
            {"field": "quantity", "value": "1,5", "constraint": "a number", "query": "SELECT"},
        ],
    )
    def test_it_refuses_an_error_that_does_not_say_what_is_wrong(self, details: Mapping[str, object]) -> None:
        context = {"requestId": "1", "executionTime": 1}
        error = {"code": "VALIDATION_FAILED", "message": "Send a number.", "details": details}
        with pytest.raises(AssertionError):
            check(400, {"success": False, "error": error, "context": context})
