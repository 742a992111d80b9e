"""Every intrinsic that the gateway knows, and that it names the ones that it does not."""

from typing import Any

import pytest

from local.gateway.intrinsics import NO_VALUE, Resolver, TemplateError

TEMPLATE = {
    "Conditions": {
        "Yes": {"Fn::Equals": ["a", {"Ref": "A"}]},
        "No": {"Fn::Not": [{"Condition": "Yes"}]},
        "Both": {"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]},
        "Either": {"Fn::Or": [{"Condition": "No"}, {"Condition": "Yes"}]},
        "Odd": {"Fn::Xor": ["a", "b"]},
        "Number": {"Fn::Equals": [1, "1"]},
        "Truth": {"Fn::Equals": [True, "true"]},
    },
    "Mappings": {"Sizes": {"a": {"small": 1}}},
}


class Known:
    """Ref A is "a", AWS::NoValue is nothing, GetAtt R.Arn is "arn"."""

    def ref(self, name: str, resolver: Resolver) -> Any:
        return {"A": "a", "Number": 7, "List": ["x", "y"], "AWS::NoValue": NO_VALUE}[name]

    def attribute(self, name: str, attribute: str, resolver: Resolver) -> Any:
        return {("R", "Arn"): "arn", ("R", "Deep.Name"): "deep"}[name, attribute]


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(TEMPLATE, Known())


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ("plain", "plain"),
        ({"Ref": "A"}, "a"),
        ({"Fn::GetAtt": ["R", "Arn"]}, "arn"),
        ({"Fn::GetAtt": "R.Deep.Name"}, "deep"),
        ({"Fn::Sub": "x-${A}-${R.Arn}-${!A}-${Number}"}, "x-a-arn-${A}-7"),
        ({"Fn::Sub": ["${B}${A}", {"B": {"Ref": "Number"}}]}, "7a"),
        ({"Fn::Join": ["-", ["x", {"Ref": "A"}, {"Ref": "AWS::NoValue"}]]}, "x-a"),
        ({"Fn::Join": ["", {"Ref": "List"}]}, "xy"),
        ({"Fn::Split": [",", "a,b"]}, ["a", "b"]),
        ({"Fn::Select": ["1", {"Fn::Split": [",", "a,b"]}]}, "b"),
        ({"Fn::If": ["Yes", {"Ref": "A"}, {"Ref": "Missing"}]}, "a"),
        ({"Fn::If": ["No", {"Ref": "Missing"}, "other"]}, "other"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "A"}, "small"]}, 1),
        ({"k": {"Ref": "AWS::NoValue"}, "l": [{"Ref": "AWS::NoValue"}, 1]}, {"l": [1]}),
    ],
)
def test_a_value_is_evaluated(resolver: Resolver, node: Any, value: Any) -> None:
    assert resolver.resolve(node) == value


@pytest.mark.parametrize(
    ("name", "holds"),
    [("Yes", True), ("No", False), ("Both", False), ("Either", True), ("Number", True), ("Truth", True)],
)
def test_a_condition_is_evaluated(resolver: Resolver, name: str, holds: bool) -> None:
    assert resolver.condition(name) is holds


@pytest.mark.parametrize(
    ("node", "named"),
    [
        ({"deep": [{"Fn::Cidr": ["10.0.0.0/8"]}]}, "Fn::Cidr"),
        ({"Fn::If": ["Odd", 1, 2]}, "Fn::Xor"),
        ({"Fn::If": ["Missing", 1, 2]}, "Missing"),
        ({"Fn::FindInMap": ["Sizes", "b", "small"]}, "Sizes.b.small"),
    ],
)
def test_what_is_not_known_is_named(resolver: Resolver, node: Any, named: str) -> None:
    with pytest.raises(TemplateError, match=named.replace(".", r"\.")):
        resolver.resolve(node)
