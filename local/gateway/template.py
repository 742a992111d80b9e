"""template.yaml, read into what the gateway runs: functions, routes, queues, event sources and schedules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from local.gateway.intrinsics import Resolver, TemplateError
from local.gateway.local_values import LocalValues

_SECTION_OF_TYPE = {
    "AWS::Serverless::Function": "Function",
    "AWS::Serverless::HttpApi": "HttpApi",
    "AWS::Serverless::WebSocketApi": "WebSocketApi",
    "AWS::Serverless::LayerVersion": "LayerVersion",
}


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short tags."""


def _short_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if name == "Fn::GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _short_tag)


def load_template(path: Path) -> dict[str, Any]:
    """Parse a template; TemplateError says where it is wrong."""
    try:
        template = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except FileNotFoundError:
        raise TemplateError(f"{path} is missing.") from None
    except yaml.YAMLError as error:
        raise TemplateError(f"{path}: {error}") from None
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise TemplateError(f"{path} has no Resources.")
    return template


def merge(base: Any, own: Any) -> Any:
    """A resource's property over the one of Globals: maps are merged, lists joined, anything else replaced."""
    if isinstance(base, dict) and isinstance(own, dict):
        if _is_intrinsic(base) or _is_intrinsic(own):
            return own
        return base | {key: merge(base[key], value) if key in base else value for key, value in own.items()}
    if isinstance(base, list) and isinstance(own, list):
        return base + own
    return own


def _is_intrinsic(node: Mapping[str, Any]) -> bool:
    return len(node) == 1 and next(iter(node)).startswith(("Fn::", "Ref"))


class Template:
    """A parsed template with the values of this machine."""

    def __init__(self, template: Mapping[str, Any], values: LocalValues, folder: Path) -> None:
        self.folder = folder
        self.values = values
        self.resolver = Resolver(template, values)
        self._globals: Mapping[str, Any] = template.get("Globals", {})
        self._resources = {
            name: resource
            for name, resource in template["Resources"].items()
            if "Condition" not in resource or self.resolver.condition(resource["Condition"])
        }

    def of_type(self, kind: str) -> list[str]:
        """The logical ids of the resources of one type, in the template's order."""
        return [name for name, resource in self._resources.items() if resource["Type"] == kind]

    def properties(self, logical_id: str, *names: str) -> dict[str, Any]:
        """The resolved properties `names` of a resource, Globals merged in; one that is not set is left out."""
        resource = self._resources[logical_id]
        section = _SECTION_OF_TYPE.get(resource["Type"], "")
        defaults, own = self._globals.get(section, {}), resource.get("Properties", {})
        found: dict[str, Any] = {}
        for name in names:
            if name in own:
                found[name] = merge(defaults[name], own[name]) if name in defaults else own[name]
            elif name in defaults:
                found[name] = defaults[name]
        return self.resolver.resolve(found)
