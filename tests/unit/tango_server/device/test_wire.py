"""What is refused at Tango's boundary before anybody looks into it."""

import pytest
import tango

from tango_server.application import NotServingError
from tango_server.conversion.errors import OutsideRootsError
from tango_server.device.wire import from_wire, require_at_most, translated
from tango_server.jobs.capacity import BacklogFullError, DiskFullError
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerDamagedError
from tango_server.jobs.ledger.history import UnknownIdError
from tango_server.limits import LONGEST_TEXT, MOST_PATHS
from tango_server.messages import ReportsQuery, SubmitQuery
from tango_server.recipe import Recipe


def refusal(caught: "pytest.ExceptionInfo[tango.DevFailed]") -> tuple[str, str]:
    return caught.value.args[0].reason, caught.value.args[0].desc


def test_a_text_that_is_too_long_is_not_even_parsed() -> None:
    with pytest.raises(tango.DevFailed) as caught:
        from_wire(SubmitQuery, " " * (LONGEST_TEXT + 1), "Submit")
    reason, text = refusal(caught)
    assert reason == "PETIF_TooMuch"
    assert text.startswith("Submit: 16777217 bytes of JSON")
    assert "at most 16777216" in text


@pytest.mark.parametrize("model", [SubmitQuery, ReportsQuery, Recipe])
@pytest.mark.parametrize("opening", ["[", '{"requests":[{"metadata":{"a":', '{"a":'])
def test_endless_nesting_is_an_error_like_every_other(model: type, opening: str) -> None:
    with pytest.raises(tango.DevFailed) as caught:
        from_wire(model, opening * 100_000, "Submit")
    reason, text = refusal(caught)
    assert reason == "PETIF_BadArgument"
    assert "nested too deeply" in text
    assert "32 levels" in text
    assert len(text) < 500


def test_list_that_is_too_long_is_refused_with_limit_and_length() -> None:
    require_at_most(MOST_PATHS, 100_000, "paths", "AddFiles")
    with pytest.raises(tango.DevFailed) as caught:
        require_at_most(MOST_PATHS, 100_001, "paths", "AddFiles")
    assert refusal(caught)[0] == "PETIF_TooMuch"
    assert "AddFiles: 100001 paths are too many (at most 100000)" in refusal(caught)[1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotServingError("why"), "PETIF_Fault"),
        (LedgerDamagedError("why"), "PETIF_Fault"),
        (LedgerBusyError("why"), "PETIF_Busy"),
        (TimeoutError(), "PETIF_Busy"),
        (BacklogFullError("why"), "PETIF_BacklogFull"),
        (DiskFullError("why"), "PETIF_DiskFull"),
        (UnknownIdError("why"), "PETIF_UnknownId"),
        (OutsideRootsError("/etc", "why", "Ask."), "PETIF_BadPath"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_the_service_raises_has_a_reason_that_clients_tell_apart(error: Exception, reason: str) -> None:
    with pytest.raises(tango.DevFailed) as caught, translated("Submit"):
        raise error
    assert refusal(caught) == (reason, str(error) or "Timed out: the server is still working on it. Check QueueLength.")
    assert caught.value.args[0].origin == "Submit"


def test_a_mistake_of_ours_is_not_taken_for_an_answer() -> None:
    with pytest.raises(ZeroDivisionError), translated("Submit"):
        raise ZeroDivisionError
