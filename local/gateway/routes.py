"""Which route of an HTTP API answers a request."""

import re
from collections.abc import Mapping, Sequence

from local.gateway.stack import HttpRoute

_PARAMETER = re.compile(r"\{([^}+]+)(\+?)\}")


class RouteTable:
    """The routes, most specific first: full paths, then parameters, then a greedy one, then $default.

    Of two routes of one path the one that names the method wins over ANY.
    """

    def __init__(self, routes: Sequence[HttpRoute]) -> None:
        self._default: HttpRoute | None = None
        self._full: dict[str, dict[str, HttpRoute]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, HttpRoute]]] = {}
        for route in routes:
            if route.key == "$default":
                self._default = route
                continue
            method, path = route.key.split(" ", 1)
            if "{" in path:
                pattern = _pattern(path)
                self._patterns.setdefault(path, (pattern, {}))[1][method] = route
            else:
                self._full.setdefault(path, {})[method] = route
        ordered = sorted(self._patterns, key=lambda path: ("+}" in path, path.count("{"), -len(path)))
        self._patterns = {path: self._patterns[path] for path in ordered}

    def match(self, method: str, path: str) -> tuple[HttpRoute, Mapping[str, str]] | None:
        """The route and its path parameters, or None where the API answers 404."""
        route = _of_method(self._full.get(path, {}), method)
        if route is not None:
            return route, {}
        for pattern, methods in self._patterns.values():
            route = _of_method(methods, method)
            found = pattern.fullmatch(path) if route is not None else None
            if route is not None and found is not None:
                return route, found.groupdict()
        return None if self._default is None else (self._default, {})


def _of_method(methods: Mapping[str, HttpRoute], method: str) -> HttpRoute | None:
    return methods.get(method) or methods.get("ANY")


def _pattern(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    for found in _PARAMETER.finditer(path):
        name, greedy = found.groups()
        parts.append(re.escape(path[end : found.start()]))
        parts.append(f"(?P<{name}>{'.+' if greedy else '[^/]+'})")
        end = found.end()
    return re.compile("".join([*parts, re.escape(path[end:])]))
