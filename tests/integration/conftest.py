"""The HTTP API on a market of the module's own; a module with more to say of it makes its own `api` of this one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import MigratedTemplate, User
from tests.kit.functions import function_environment, load_function
from tests.kit.orders import Market
from tests.kit.trading_api import TradingApi


@pytest.fixture(scope="module")
def shared(migrated: MigratedTemplate) -> Iterator[Market]:
    with Market.checked(migrated) as market:
        yield market


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Market, redis_url: str) -> Iterator[TradingApi]:
    shared.prepare()
    with function_environment(monkeypatch, tmp_path, database=shared.database, redis_url=redis_url):
        yield TradingApi(shared, load_function("execute_order"), load_function("manage_orders"))


@pytest.fixture
def user(api: TradingApi) -> User:
    return api.market.user()
