"""Free text that staff write: it is kept for ever, and shown on terminals, in mails and by chats."""

import re

from pydantic import AfterValidator

# But tab and line feed, which lay text out.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def said(value: str) -> str:
    """`value`, when it says something and does nothing else; else ValueError."""
    if not value.strip():
        raise ValueError("must say something")
    if CONTROL.search(value):
        raise ValueError("must not hold control characters")
    return value


def text_taken(characters_max: int) -> str:
    """What such a field takes, in the words of an answer that refuses another."""
    return f"text of 1 to {characters_max} characters, no control characters among them"


SAID = AfterValidator(said)
