"""A message says what must be, what was given, and the way out."""

import pytest

from tramontane.api.errors import InvalidValue, Refused, TramontaneError
from tramontane.api.reasons import BladeReason, InferenceReason, JobReason, PendingReason


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(InvalidValue("must be at least 1", 0), "must be at least 1 (got 0)", id="int"),
        pytest.param(InvalidValue("must be a name", "é"), 'must be a name (got "é")', id="string"),
        pytest.param(InvalidValue("must be set", None), "must be set (got None)", id="none"),
        pytest.param(InvalidValue("must be set"), "must be set", id="nothing-given"),
        pytest.param(
            InvalidValue("must be a duration", "10", "write it as 10s"),
            'must be a duration (got "10"); write it as 10s',
            id="remedy",
        ),
    ],
)
def test_message(error: InvalidValue, text: str) -> None:
    assert str(error) == text


def test_an_invalid_value_is_a_value_error_with_parts() -> None:
    error = InvalidValue("must be at least 1", 0, "raise it")
    assert isinstance(error, ValueError)
    assert isinstance(error, TramontaneError)
    assert (error.must, error.got, error.remedy) == ("must be at least 1", 0, "raise it")


def test_a_refusal_has_a_reason() -> None:
    error = Refused(PendingReason.EXCEEDS_POOL, "needs 12 blades (got 8)")
    assert error.reason == "ExceedsPool"
    assert str(error) == "ExceedsPool: needs 12 blades (got 8)"


@pytest.mark.parametrize("reasons", [PendingReason, BladeReason, JobReason, InferenceReason])
def test_a_member_is_named_like_its_reason(
    reasons: type[PendingReason | BladeReason | JobReason | InferenceReason],
) -> None:
    for reason in reasons:
        assert reason.name.replace("_", "").lower() == reason.value.lower()
