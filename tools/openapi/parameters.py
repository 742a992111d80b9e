"""Parameters that several routes share."""

from tools.openapi.forms import IDENTIFIER, Schema
from tools.openapi.operation import Parameter
from trading.edge.reading_dialects import PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX

ACCOUNT_ID = Parameter("account_id", IDENTIFIER, "Which of your accounts; may be left out by whoever has one.")
PAGE_LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": PAGE_ROWS_MAX, "default": PAGE_ROWS_DEFAULT},
    "How many of them.",
)
CURSOR = Parameter("cursor", IDENTIFIER, "The next_cursor of the page before.")


def path_id(what: str) -> Parameter:
    """The id in a path."""
    return Parameter("id", IDENTIFIER, f"The id of {what}.", required=True, in_path=True)


def some_of(name: str, words: tuple[str, ...], description: str) -> Parameter:
    """Words with commas between them."""
    schema: Schema = {"type": "array", "items": {"type": "string", "enum": list(words)}, "minItems": 1}
    return Parameter(name, schema, description)


def one_of(name: str, words: tuple[str, ...], description: str) -> Parameter:
    """One word; its case is ignored."""
    return Parameter(name, {"type": "string", "enum": list(words)}, description)
