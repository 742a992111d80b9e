"""What is said of one route beside what the code says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.openapi.forms import Schema
from trading.edge.envelope import Dialect, dialect_of
from trading.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or with `in_path` of the path."""

    name: str
    schema: Schema
    description: str
    required: bool = False
    in_path: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A success: its data, unwrapped as a handler returns it, and a real one of these.

    `headers` are names of components.headers. `bare` data is not wrapped whatever the dialect. What is answered to a
    key is `kept` under it, unless it says that nothing was done.
    """

    description: str
    data: Schema
    example: object
    headers: tuple[str, ...] = ()
    bare: bool = False
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """One route of template.yaml.

    `route` is its key; `operation_id` the name that clients are generated with. `answers` are the successes by status.
    `errors` are the codes beyond those that follow from the rest: see `codes`. `body` is the request's; a change whose
    path says it all `may_lack_body`. What is `keyed` changes something, and takes an idempotency key, in the body too
    when that has a member for it; other changes are `state_changing`.
    """

    route: str
    operation_id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    needs_token: bool = True
    # Of several, one will do.
    permission: str | tuple[str, ...] | None = None
    state_changing: bool = False
    keyed: bool = False
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    body_example: object = None
    may_lack_body: bool = False
    errors: frozenset[ErrorCode] = field(default_factory=frozenset[ErrorCode])

    @property
    def method(self) -> str:
        """In lower case, as the document has it."""
        return self.route.split(" ", 1)[0].lower()

    @property
    def path(self) -> str:
        """With its parameters in braces."""
        return self.route.split(" ", 1)[1]

    @property
    def needs_csrf_token(self) -> bool:
        """Of a browser session."""
        return self.state_changing or self.keyed

    @property
    def dialect(self) -> Dialect:
        """Whose envelope its answers have."""
        return dialect_of(self.path)

    def codes(self) -> frozenset[ErrorCode]:
        """Every code that this route may answer."""
        found = set(self.errors) | {ErrorCode.IP_BLOCKED, ErrorCode.RATE_LIMIT_EXCEEDED, ErrorCode.INTERNAL_ERROR}
        if self.needs_token:
            # Maintenance is also what a token gets that cannot be checked at the moment.
            found |= {ErrorCode.UNAUTHENTICATED, ErrorCode.DATABASE_UNAVAILABLE, ErrorCode.MAINTENANCE}
        if self.permission is not None:
            found.add(ErrorCode.FORBIDDEN)
        if self.needs_csrf_token:
            found.add(ErrorCode.CSRF_FAILED)
        if self.keyed:
            found |= {ErrorCode.VALIDATION_FAILED, ErrorCode.IDEMPOTENCY_KEY_REUSED}
        if self.parameters:
            found.add(ErrorCode.VALIDATION_FAILED)
        if self.body is not None:
            found |= {ErrorCode.VALIDATION_FAILED, ErrorCode.PAYLOAD_TOO_LARGE}
        return frozenset(found)
