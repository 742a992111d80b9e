"""What tests are built with."""

from tests.kit.builders import User, deposit, make_user, order_request, set_quote
from tests.kit.servers import MigratedTemplate, ScratchDatabase, TestServers

__all__ = [
    "MigratedTemplate",
    "ScratchDatabase",
    "TestServers",
    "User",
    "deposit",
    "make_user",
    "order_request",
    "set_quote",
]
