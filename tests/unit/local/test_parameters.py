"""Template parameters of a local system: what CloudFormation would refuse, and what the functions would."""

import pytest

from local.environment import local_parameters
from local.parameters import check_forms, check_settings
from local.processes import StartError


@pytest.mark.parametrize(
    ("name", "right", "wrong", "form"),
    [
        ("VenueTimeoutMs", ["50", "5000"], ["49"], "at least 50"),
        ("VenueTimeoutMs", [], ["5001"], "at most 5000"),
        ("VenueTimeoutMs", [], ["", "many", "5e2", "NaN", "٥٠"], "a number"),
        ("LogRetentionDays", ["30"], ["31"], "one of 1, 3, 7"),
        ("QuoteStandbyProvider", ["", "replay"], ["nobody"], "one of nothing, simulated, replay"),
        ("QuoteReplaySpeed", ["0.5"], ["fast", "1 "], "of the form"),
        ("AllowedOrigins", ["", "https://a.example,https://b.example"], [], ""),
    ],
)
def test_a_parameter_has_the_form_that_the_template_says(
    name: str, right: list[str], wrong: list[str], form: str
) -> None:
    for value in right:
        check_forms({name: value})
    for value in wrong:
        with pytest.raises(StartError, match=f"^PARAMETERS: {name} has to be {form}.*not {value!r}"):
            check_forms({name: value})


def test_the_message_says_what_the_parameter_is() -> None:
    with pytest.raises(StartError, match=r"'paper'\. Comma-separated venue:provider"):
        check_forms({"Venues": "paper"})


def test_a_parameter_that_there_is_not_is_named() -> None:
    with pytest.raises(StartError, match=r"no parameter Venue\."):
        check_forms({"Venue": "paper:paper"})


def test_what_functions_would_refuse_together_is_named() -> None:
    # given what a local system is started with
    check_settings(local_parameters(600, {}))
    # when one parameter does not go with another
    with pytest.raises(StartError, match="VENUES names the mock venue") as caught:
        check_settings(local_parameters(600, {"AllowMockVenue": "false"}))
    # then it is told in one line
    assert "\n" not in str(caught.value)
