from __future__ import annotations

import pytest
from google.rpc import code_pb2, status_pb2

from recsys import errors
from recsys.wire.status import from_status, to_status

ERRORS = [
    errors.NotFound("no snapshot 's9'"),
    errors.SnapshotError("x"),
    errors.DamagedSnapshot("ranker.txt"),
    errors.MixedSnapshot("two encoders"),
    errors.StoreError("disk full"),
    errors.Conflict("request_id 'r'"),
    errors.DeadlineExceeded("no time"),
    errors.Unavailable("loading"),
    errors.RecsysError("of its own"),
]


@pytest.mark.parametrize("error", ERRORS[:-1], ids=lambda error: type(error).__name__)
def test_errors_come_back_with_class_and_message(error: errors.RecsysError) -> None:
    back = from_status(to_status(error))
    assert (type(back), str(back)) == (type(error), str(error))


def test_violations_come_back() -> None:
    error = errors.InvalidInput(
        [errors.Violation("events[1].value", "nan", "must be finite: always"), errors.Violation("top_k", "-1", "no")]
    )
    back = from_status(to_status(error))
    assert isinstance(back, errors.InvalidInput)
    assert back.violations == error.violations


def test_the_delay_of_an_overload_comes_back() -> None:
    back = from_status(to_status(errors.Overloaded("full", retry_after_s=1.25)))
    assert isinstance(back, errors.Overloaded)
    assert back.retry_after_s == 1.25


def test_nothing_of_the_unexpected_is_told() -> None:
    status = to_status(ValueError("secret"))
    assert status.code == code_pb2.INTERNAL
    assert "secret" not in str(status)
    assert type(from_status(status)) is errors.RecsysError


def test_subclasses_share_the_status_of_their_parent() -> None:
    assert to_status(errors.InvalidData([])).code == code_pb2.INVALID_ARGUMENT


@pytest.mark.parametrize("text", ["x" * 100_000, "🙂" * 50_000, "\udc80" * 9_000])
def test_details_fit_into_the_headers(text: str) -> None:
    many = errors.InvalidInput([errors.Violation(text, text, text) for _ in range(100)])
    for error in (many, errors.NotFound(text), errors.Conflict(text)):
        status = to_status(error)
        # Base64 of the details, and the message percent-encoded: both below gRPC's 8 KiB.
        assert status.ByteSize() * 4 / 3 + len(status.message.encode()) * 3 < 8_000


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (code_pb2.UNAVAILABLE, "failed to connect", errors.Unavailable),
        (code_pb2.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineExceeded),
        (code_pb2.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", errors.Overloaded),
        (code_pb2.RESOURCE_EXHAUSTED, "Sent message larger than max (5 vs. 4)", errors.InvalidInput),
        (code_pb2.INVALID_ARGUMENT, "of a proxy", errors.InvalidInput),
        (code_pb2.UNIMPLEMENTED, "Method not found!", errors.RecsysError),
        (code_pb2.CANCELLED, "", errors.RecsysError),
    ],
)
def test_a_status_of_other_origin_has_the_nearest_error(code: int, message: str, kind: type[Exception]) -> None:
    error = from_status(status_pb2.Status(code=code, message=message))
    assert type(error) is kind
    assert message in str(error)
