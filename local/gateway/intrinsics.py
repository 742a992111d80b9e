"""CloudFormation's intrinsic functions, evaluated with local values."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from local.processes import StartError

NO_VALUE = object()
_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")


class TemplateError(StartError):
    """The template says something that the local gateway cannot do; the text names it."""


class References(Protocol):
    """Where `Ref` and `Fn::GetAtt` get their values."""

    def ref(self, name: str, resolver: "Resolver") -> Any:
        """The value of `Ref: name`, NO_VALUE for AWS::NoValue."""
        ...

    def attribute(self, name: str, attribute: str, resolver: "Resolver") -> Any:
        """The value of `Fn::GetAtt: [name, attribute]`."""
        ...


class Resolver:
    """Evaluates the intrinsics in a part of one template."""

    def __init__(self, template: Mapping[str, Any], references: References) -> None:
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._mappings: Mapping[str, Any] = template.get("Mappings", {})
        self._references = references
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Fn::Sub": self._sub,
            "Fn::GetAtt": self._attribute,
            "Fn::Join": self._join,
            "Fn::Split": self._split,
            "Fn::Select": self._select,
            "Fn::If": self._if,
            "Fn::FindInMap": self._find_in_map,
        }

    def resolve(self, node: Any) -> Any:
        """`node` with every intrinsic in it replaced by its value; TemplateError names one that is not known."""
        if isinstance(node, list):
            values = [self.resolve(item) for item in node]
            return [value for value in values if value is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name in self._functions:
                return self._functions[name](argument)
            if name.startswith("Fn::"):
                raise TemplateError(f"The intrinsic {name} is not known to the local gateway: {node}")
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not NO_VALUE}

    def condition(self, name: str) -> bool:
        """Whether the condition `name` of the template holds."""
        if name not in self._conditions:
            raise TemplateError(f"The condition {name} is not in the template.")
        return self._holds(self._conditions[name])

    def _holds(self, node: Any) -> bool:
        if not isinstance(node, dict) or len(node) != 1:
            raise TemplateError(f"No condition: {node}")
        ((name, argument),) = node.items()
        match name:
            case "Condition":
                return self.condition(argument)
            case "Fn::Equals":
                first, second = self.resolve(argument)
                return _text(first) == _text(second)
            case "Fn::Not":
                return not self._holds(argument[0])
            case "Fn::And":
                return all(self._holds(item) for item in argument)
            case "Fn::Or":
                return any(self._holds(item) for item in argument)
        raise TemplateError(f"The condition intrinsic {name} is not known to the local gateway: {node}")

    def _ref(self, name: str) -> Any:
        return self._references.ref(name, self)

    def _attribute(self, argument: str | list[str]) -> Any:
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        return self._references.attribute(name, attribute, self)

    def _sub(self, argument: str | list[Any]) -> str:
        text, variables = (argument, {}) if isinstance(argument, str) else argument

        def value(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:
                return "${" + name + "}"
            if name in variables:
                return _text(self.resolve(variables[name]))
            return _text(self._attribute(name) if "." in name else self._ref(name))

        return _VARIABLE.sub(value, text)

    def _join(self, argument: list[Any]) -> str:
        separator, items = self.resolve(argument)
        return separator.join(_text(item) for item in items)

    def _split(self, argument: list[Any]) -> list[str]:
        separator, text = self.resolve(argument)
        return text.split(separator)

    def _select(self, argument: list[Any]) -> Any:
        index, items = self.resolve(argument)
        return items[int(index)]

    def _if(self, argument: list[Any]) -> Any:
        condition, then, otherwise = argument
        return self.resolve(then if self.condition(condition) else otherwise)

    def _find_in_map(self, argument: list[Any]) -> Any:
        name, first, second = self.resolve(argument)
        try:
            return self._mappings[name][_text(first)][_text(second)]
        except KeyError:
            raise TemplateError(f"Fn::FindInMap: {name}.{first}.{second} is not in the template.") from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
