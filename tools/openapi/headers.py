"""The headers that requests and answers carry."""

from collections.abc import Mapping

from tools.openapi.forms import Schema, constant, word, words_of
from trading.edge.http import REQUEST_ID_FORM
from trading.edge.security_headers import SECURITY_HEADERS
from trading.order_entry import KEY_CHARACTERS_MAX
from trading.prices import CacheStatus

# Components by their names, which are the headers' too.
ANSWER_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "X-Request-ID": ("The request's own, or one made here: name it to support.", {"type": "string"}),
    "X-RateLimit-Limit": ("Requests a minute of your tier; absent where nothing limits you.", {"type": "integer"}),
    "X-RateLimit-Remaining": ("How many of them are left.", {"type": "integer", "minimum": 0}),
    "X-RateLimit-Reset": ("The second (Unix time) at which the next place becomes free.", {"type": "integer"}),
    "Retry-After": ("Seconds after which to send the same request again.", {"type": "integer", "minimum": 1}),
    "Idempotency-Replayed": ("This answer was given before, under the same key.", word(["true"])),
    "X-Cache": ("stale: a price is older than its instrument allows for trading.", word(words_of(CacheStatus))),
    **{name: ("Sent with every answer.", constant(value)) for name, value in SECURITY_HEADERS.items()},
}
ALWAYS = ("X-Request-ID", *SECURITY_HEADERS)
LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

REQUEST_PARAMETERS: Mapping[str, Mapping[str, object]] = {
    "X-Request-ID": {
        "name": "X-Request-ID",
        "in": "header",
        "description": (
            f"A name of your own for this request, echoed and kept with what it changes. One that does not match "
            f"{REQUEST_ID_FORM.pattern} is replaced."
        ),
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": (
            "A name of your own for what you want done: the same key with the same content is answered as the first "
            "time and changes nothing again. Also taken as idempotency_key in a body that has it; where both come "
            "they are the same."
        ),
        "schema": {
            "type": "string",
            "pattern": r"^[\x21-\x7e]+$",
            "minLength": 1,
            "maxLength": KEY_CHARACTERS_MAX,
        },
    },
}
