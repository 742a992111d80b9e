"""CORS as an HTTP API does it: from its configuration, whatever the function answers."""

from collections.abc import Mapping

from local.gateway.stack import Cors

Headers = list[tuple[bytes, bytes]]


def preflight(cors: Cors, method: str, headers: Mapping[str, str]) -> Headers | None:
    """The headers of the 204 that answers a preflight request (none for a stranger), None for any other request."""
    if method != "OPTIONS" or "origin" not in headers or "access-control-request-method" not in headers:
        return None
    answer = _allowed_origin(cors, headers["origin"])
    if not answer:
        return []
    if cors.methods:
        answer.append((b"access-control-allow-methods", ",".join(cors.methods).encode()))
    if cors.headers:
        answer.append((b"access-control-allow-headers", ",".join(cors.headers).lower().encode()))
    if cors.seconds is not None:
        answer.append((b"access-control-max-age", str(cors.seconds).encode()))
    return answer


def response_headers(cors: Cors, headers: Mapping[str, str]) -> Headers:
    """The headers that any other response to this request gets."""
    answer = _allowed_origin(cors, headers["origin"]) if "origin" in headers else []
    if answer and cors.exposed:
        answer.append((b"access-control-expose-headers", ",".join(cors.exposed).lower().encode()))
    return answer


def _allowed_origin(cors: Cors, origin: str) -> Headers:
    if "*" in cors.origins:
        answer = [(b"access-control-allow-origin", b"*")]
    elif any(_matches(allowed, origin) for allowed in cors.origins):
        answer = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
    else:
        return []
    if cors.credentials:
        answer.append((b"access-control-allow-credentials", b"true"))
    return answer


def _matches(allowed: str, origin: str) -> bool:
    if allowed in {"http://*", "https://*"}:
        return origin.startswith(allowed[:-1])
    return allowed == origin
