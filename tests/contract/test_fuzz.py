"""The maker of requests leaves the document that it makes them from as it is."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings

from tests.kit.fuzz import Sent, fitting
from tests.kit.openapi import DOCUMENT, Described, operations

WITH_BODIES = [each for each in operations() if "requestBody" in each.operation]


@pytest.mark.parametrize("described", WITH_BODIES, ids=lambda each: each.operation["operationId"])
def test_requests_that_fit_do_not_change_the_document(described: Described) -> None:
    # given the document, and values that none of its examples has
    before = copy.deepcopy(DOCUMENT)

    # when requests are made with these
    @settings(
        max_examples=15, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(fitting(described, {"symbol": ["GBPUSD"], "quantity": ["0.77"]}))
    def made(sent: Sent) -> None:
        assert sent.method == described.method.upper()

    made()
    # then it is as before
    assert before == DOCUMENT
