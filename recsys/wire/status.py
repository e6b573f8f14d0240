"""`recsys.errors` <-> `google.rpc.Status`: a code, exactly one ErrorInfo, and details that name fields or a delay.

InvalidInput -> INVALID_ARGUMENT + BadRequest      Conflict -> INVALID_ARGUMENT + BadRequest on request_id
NotFound -> NOT_FOUND                              SnapshotError -> FAILED_PRECONDITION
Overloaded -> RESOURCE_EXHAUSTED + RetryInfo       Unavailable, StoreError -> UNAVAILABLE + RetryInfo
Unauthenticated -> UNAUTHENTICATED                 Forbidden -> PERMISSION_DENIED
DeadlineExceeded -> DEADLINE_EXCEEDED              MissingExtra -> FAILED_PRECONDITION
anything else -> INTERNAL, with nothing about it
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from recsys import errors

DOMAIN = "recsys"
RETRY_AFTER_S = 1.0
# Details travel in HTTP/2 headers, 8 KiB in all: base64 makes 4/3 of the details, percent-encoding up to 3 times the
# message, which is sent twice.
_MESSAGE_BYTES = 600
_VIOLATIONS_BYTES = 3_000

# The first class that fits counts: a leaf stands before its parent.
_KINDS: tuple[tuple[type[errors.RecsysError], int, str], ...] = (
    (errors.InvalidInput, code_pb2.INVALID_ARGUMENT, "INVALID_INPUT"),
    (errors.Conflict, code_pb2.INVALID_ARGUMENT, "REQUEST_ID_CONFLICT"),
    (errors.NotFound, code_pb2.NOT_FOUND, "NOT_FOUND"),
    (errors.DamagedSnapshot, code_pb2.FAILED_PRECONDITION, "DAMAGED_SNAPSHOT"),
    (errors.MixedSnapshot, code_pb2.FAILED_PRECONDITION, "MIXED_SNAPSHOT"),
    (errors.ReplayRefused, code_pb2.FAILED_PRECONDITION, "REPLAY_REFUSED"),
    (errors.SnapshotError, code_pb2.FAILED_PRECONDITION, "SNAPSHOT_ERROR"),
    (errors.LimitExceeded, code_pb2.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    (errors.Overloaded, code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (errors.Unauthenticated, code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (errors.Forbidden, code_pb2.PERMISSION_DENIED, "FORBIDDEN"),
    (errors.DeadlineExceeded, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    (errors.StoreError, code_pb2.UNAVAILABLE, "STORE_FAILED"),
    (errors.Unavailable, code_pb2.UNAVAILABLE, "NOT_READY"),
    (errors.MissingExtra, code_pb2.FAILED_PRECONDITION, "MISSING_EXTRA"),
)
_BY_REASON = {reason: kind for kind, _, reason in _KINDS}
_BY_CODE: dict[int, type[errors.RecsysError]] = {
    code_pb2.NOT_FOUND: errors.NotFound,
    code_pb2.FAILED_PRECONDITION: errors.SnapshotError,
    code_pb2.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    code_pb2.UNAVAILABLE: errors.Unavailable,
    code_pb2.UNAUTHENTICATED: errors.Unauthenticated,
    code_pb2.PERMISSION_DENIED: errors.Forbidden,
}


def to_status(error: BaseException) -> status_pb2.Status:
    """What the caller may know of `error`; of an unexpected one only that it happened."""
    for kind, code, reason in _KINDS:
        if isinstance(error, kind):
            return _status(code, str(error), reason, _details(error))
    return _status(code_pb2.INTERNAL, "internal error: the server's log has it", "INTERNAL", [])


def from_status(status: status_pb2.Status) -> errors.RecsysError:
    """The error that `to_status` was given; for a status of other origin the one nearest to its code."""
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for known in (info, bad_request, retry):
            detail.Unpack(known)
    kind = _BY_REASON.get(info.reason) if info.domain == DOMAIN else None
    return _error(kind or _BY_CODE.get(status.code), status, bad_request, retry)


def _error(
    kind: type[errors.RecsysError] | None,
    status: status_pb2.Status,
    bad_request: error_details_pb2.BadRequest,
    retry: error_details_pb2.RetryInfo,
) -> errors.RecsysError:
    if kind is None and status.code == code_pb2.RESOURCE_EXHAUSTED and "larger than max" in status.message:
        # gRPC's own refusal of a big message: sending it again later does not help.
        return errors.InvalidInput.of("request", "too large", status.message)
    if kind in (errors.Overloaded, errors.LimitExceeded) or status.code == code_pb2.RESOURCE_EXHAUSTED:
        delay = retry.retry_delay
        refused = errors.LimitExceeded if kind is errors.LimitExceeded else errors.Overloaded
        return refused(status.message, retry_after_s=delay.seconds + delay.nanos * 1e-9 or RETRY_AFTER_S)
    if kind is errors.InvalidInput or (kind is None and status.code == code_pb2.INVALID_ARGUMENT):
        return errors.InvalidInput([_violation(v) for v in bad_request.field_violations] or [_whole(status)])
    if kind is errors.MissingExtra or kind is None:
        return errors.RecsysError(status.message)
    return kind(status.message)


def _details(error: errors.RecsysError) -> list[Message]:
    if isinstance(error, errors.InvalidInput):
        rows = [(v.field, f"{v.value}: {v.reason}") for v in error.violations]
    elif isinstance(error, errors.Conflict):
        rows = [("request_id", str(error))]
    elif isinstance(error, errors.Overloaded):
        return [_retry(error.retry_after_s)]
    elif isinstance(error, (errors.StoreError, errors.Unavailable)):
        return [_retry(RETRY_AFTER_S)]
    else:
        return []
    return [_bad_request(rows)]


def _bad_request(rows: list[tuple[str, str]]) -> error_details_pb2.BadRequest:
    """As many rows as fit, one at least."""
    out, size_bytes = error_details_pb2.BadRequest(), 0
    for field, description in rows:
        row = out.FieldViolation(field=_cut(field, 300), description=_cut(description, 600))
        size_bytes += row.ByteSize() + 4
        if out.field_violations and size_bytes > _VIOLATIONS_BYTES:
            break
        out.field_violations.append(row)
    return out


def _cut(text: str, max_bytes: int) -> str:
    """At most `max_bytes` of UTF-8; what UTF-8 cannot hold is replaced."""
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def _retry(delay_s: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=int(delay_s), nanos=int(delay_s % 1 * 1e9)))


def _status(code: int, message: str, reason: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=_cut(message, _MESSAGE_BYTES))
    for detail in [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN), *details]:
        status.details.add().Pack(detail)
    return status


def _violation(row: error_details_pb2.BadRequest.FieldViolation) -> errors.Violation:
    value, found, reason = row.description.partition(": ")
    return errors.Violation(row.field, value, reason) if found else errors.Violation(row.field, "", row.description)


def _whole(status: status_pb2.Status) -> errors.Violation:
    return errors.Violation("request", "", status.message)
