"""Figures in words that need no knowledge of the engine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys.types import Event

# By the matcher that a feature's name begins with: what it says where it raises a score, and what it looked at where it
# lowers one.
_PHRASES = {
    "interest": ("it is where this history is heading", "where this history is heading"),
    "neighbours": ("people who were at this point went on to it", "what people did who were at this point"),
    "transitions": ("it tends to follow the latest items", "what tends to follow the latest items"),
    "linear": ("it goes with everything met so far", "what goes with everything met so far"),
    "text": ("its description is close to recent ones", "its description beside recent ones"),
    "kinship": ("texts like its follow texts like the recent ones", "what texts like the recent ones lead to"),
    "lexical": ("its title shares words with recent ones", "the words of its title beside recent ones"),
    "facets": ("same category or series as recent ones", "its category or series beside recent ones"),
    "recall": ("something very like it lies in the past", "how much like it lies in the past"),
    "repeat": ("it comes back time and again", "whether and when it comes back"),
    "popularity": ("many people take it", "how many people take it"),
    "context": ("length and pace of the history", "length and pace of the history"),
}
_SPANS = (("year", 365.25 * 86_400), ("month", 30.44 * 86_400), ("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0))


def reasons(contributions: Mapping[str, float], k: int = 3) -> list[tuple[str, float]]:
    """(phrase, share of the score) of the k matchers that moved the score most, the phrase as the sign wants."""
    shares: dict[str, float] = {}
    for feature, share in contributions.items():
        name = feature.partition("_")[0]
        shares[name] = shares.get(name, 0.0) + share
    strongest = sorted(shares.items(), key=lambda pair: -abs(pair[1]))
    return [(_phrase(name, share), share) for name, share in strongest[:k] if share]


def _phrase(name: str, share: float) -> str:
    speaking_for, looked_at = _PHRASES.get(name, (name, name))
    return speaking_for if share > 0 else f"against it: {looked_at}"


def span(seconds: float) -> str:
    """A length of time in its largest unit, "13 years"; "moments" below a minute."""
    for name, size_s in _SPANS:
        if seconds >= size_s:
            count = int(seconds / size_s)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "moments"


def day(timestamp: float | None) -> str:
    """The date in UTC; "" where only an order is known."""
    return "" if timestamp is None else str(np.datetime64(int(timestamp), "s").astype("datetime64[D]"))


def earlier(timestamp: float | None, now: float | None) -> str:
    """How long before `now` something was, "13 years earlier"; "" where only an order is known."""
    if timestamp is None or now is None:
        return ""
    return f"{span(max(now - timestamp, 0.0))} earlier"


def what_happened(event: Event) -> str:
    """The type of an event, and its value if it has one: "rating 4.5"."""
    return event.event_type if event.value is None else f"{event.event_type} {event.value:g}"


def size(size_bytes: int) -> str:
    """Bytes in a unit that leaves at most four digits."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
