"""Every error the engine raises on purpose. Nothing here knows of gRPC; `recsys.serve` maps them to status codes.

RecsysError
├── InvalidInput        the caller's value is wrong: names field, value and reason (one or several violations)
│   └── InvalidData     rows of a data set are wrong: carries the validation report
├── NotFound            a named resource (snapshot, user, ranking) does not exist
├── SnapshotError       a snapshot cannot be served
│   ├── DamagedSnapshot     a file is missing, of another size or of another SHA-256
│   ├── MixedSnapshot       parts were made by different encoders, feature lists or format versions
│   └── ReplayRefused       it answers the requests of late too differently, too slowly or not at all
├── StoreError          the event store failed; the write was not acknowledged
├── Conflict            the same idempotency key came with another body
├── Overloaded          try again later (retry_after_s)
│   └── LimitExceeded       the caller's own rate or quota is used up
├── Unauthenticated     no credential, or one that does not hold
├── Forbidden           the credential does not cover what was asked
├── DeadlineExceeded    too little time is left to do the work
├── Unavailable         not ready: no snapshot is loaded and warmed
└── MissingExtra        an optional dependency is not installed: names the extra
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RecsysError(Exception):
    """Root of the tree: catch it to catch all that the engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong value: `field` is a path such as `candidates[3].text`, `value` its shortened repr."""

    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}: {self.reason}"


_SHOWN_CHARS = 80


def shorten(value: object) -> str:
    """The repr of `value`, cut to 80 characters: errors name values, they do not repeat a megabyte."""
    text = repr(value[:_SHOWN_CHARS]) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


class InvalidInput(RecsysError):
    """The caller's input is wrong. `violations` lists each wrong field."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(map(str, self.violations)))

    @classmethod
    def of(cls, field: str, value: object, reason: str) -> InvalidInput:
        """An error about one field."""
        return cls([Violation(field, shorten(value), reason)])


class InvalidData(InvalidInput):
    """Rows of a data set are wrong and the mode is strict; the message is the validation report, where there is one."""

    def __init__(self, violations: Sequence[Violation], report: str = "") -> None:
        super().__init__(violations)
        if report:
            self.args = (report,)


class NotFound(RecsysError):
    """A named resource does not exist."""


class SnapshotError(RecsysError):
    """A snapshot cannot be served."""


class DamagedSnapshot(SnapshotError):
    """A snapshot's file is missing, or its size or SHA-256 differs from the manifest."""


class MixedSnapshot(SnapshotError):
    """A snapshot's parts do not belong together, or its format version is unknown."""


class ReplayRefused(SnapshotError):
    """A new snapshot answers requests of late too differently, too slowly or not at all; the message has figures."""


class StoreError(RecsysError):
    """The event store failed; nothing of the write was acknowledged."""


class Conflict(RecsysError):
    """The same idempotency key came with another body."""


class Overloaded(RecsysError):
    """The service is full; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LimitExceeded(Overloaded):
    """The caller's rate or quota is used up; there is more after `retry_after_s` seconds."""


class Unauthenticated(RecsysError):
    """The call brings no credential, or one that does not hold. Why stands in the server's log alone."""


class Forbidden(RecsysError):
    """The credential holds, and does not cover what was asked."""


class DeadlineExceeded(RecsysError):
    """Too little time is left to do the work."""


class Unavailable(RecsysError):
    """No snapshot is loaded and warmed."""


class MissingExtra(RecsysError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'longrec[{extra}]'")
