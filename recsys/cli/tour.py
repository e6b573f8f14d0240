"""One user's story, told through the client: who asks, what is proposed and why, and that a new event counts."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.cli.ask import show_legend, show_reasons, title
from recsys.cli.output import Output, table
from recsys.cli.words import day, earlier, what_happened
from recsys.client import RankedPage, RecsysClient
from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.errors import RecsysError
from recsys.types import Event, Remembered, User

_LENGTHS = (100, 500)
_RECENT, _LONG_PAST = 5, 4
_EXPLAINED = 3
_CALLS, _CANDIDATES = 200, 100
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tour:
    """`run` shows it and returns its facts; it raises RecsysError where an answer is not what it must be."""

    dataset: Dataset
    client: RecsysClient
    output: Output

    def run(self) -> dict[str, Any]:
        user_id = self.dataset.users.ids[long_lived(self.dataset.histories)]
        memories = self._memories(user_id)
        last = memories[0].event.timestamp
        # The data may be an archive: whoever asks in it asks a minute after their last event, not today.
        asking = User(user_id=user_id, now=None if last is None else last + _MINUTE_S)
        self._introduce(user_id, memories, last)
        page = self.client.recommend_items(asking, page_size=10)
        self._show_page(f"What is recommended to {user_id}{_on(last)}", page)
        self._explain(page, last)
        written = self._tell(asking, page)
        return {
            "user_id": user_id,
            "recommended": [row.item_id for row in page.items],
            "written": written,
            "latency_ms": self._measure(),
            "liked": [memory.event.item_id for memory in memories[:2]],
        }

    def _memories(self, user_id: str) -> list[Remembered]:
        """All that the server remembers of the user, newest first."""
        found: list[Remembered] = []
        token = ""
        while True:
            page = self.client.list_memories(user_id, page_token=token)
            found += page.memories
            token = page.next_page_token
            if not token:
                return found

    def _introduce(self, user_id: str, memories: Sequence[Remembered], now: float | None) -> None:
        rows = [self._row(memory, now) for memory in memories[:_RECENT]]
        rows += [("...", "", "", "")] if len(memories) > _RECENT + _LONG_PAST else []
        rows += [self._row(memory, now) for memory in memories[_RECENT:][-_LONG_PAST:]]
        self.output.heading(f"User {user_id}, of whom it remembers {len(memories):,} events, newest first")
        self.output.show(table(("item", "event", "when", ""), rows))

    def _row(self, memory: Remembered, now: float | None) -> tuple[str, str, str, str]:
        event = memory.event
        return (self._title(event.item_id), what_happened(event), day(event.timestamp), earlier(event.timestamp, now))

    def _show_page(self, heading: str, page: RankedPage) -> None:
        rows = []
        for row in page.items:
            item = self.dataset.catalogue.get(row.item_id)
            rows.append((row.rank, self._title(row.item_id), ", ".join(item.categories) if item else "", row.score))
        self.output.heading(heading)
        self.output.show(table(("", "item", "categories", "score"), rows, numbers=(0, 3)))

    def _explain(self, page: RankedPage, now: float | None) -> None:
        wanted = [row.item_id for row in page.items[:_EXPLAINED]]
        self.output.heading("Why: what moved each score most, and the events behind it")
        explanations = self.client.explain(page.ranking_id, wanted)
        for explanation in explanations:
            self.output.show(f"{self._title(explanation.item_id)}   score {explanation.score:.3f}")
            show_reasons(self.output, explanation, now)
        show_legend(self.output, explanations)

    def _tell(self, asking: User, page: RankedPage) -> str:
        """Writes that the user took the first recommendation, and sees to it that the next answers know."""
        top = page.items[0].item_id
        histories = self.dataset.histories
        event = Event(
            user_id=asking.user_id,
            item_id=top,
            event_type=histories.event_types[0],
            timestamp=asking.now,
            value=None if np.isnan(histories.values).all() else float(np.nanmax(histories.values)),
        )
        self.client.write_events([event])
        newest = self.client.list_memories(asking.user_id, page_size=1).memories[0].event
        later = replace(asking, now=None if asking.now is None else asking.now + _MINUTE_S)
        after = self.client.recommend_items(later, page_size=10, include_seen=False)
        if newest.item_id != top or top in {row.item_id for row in after.items}:
            raise RecsysError(f"the event on item {top} was written, but the next answer does not know it")
        self._show_page(f"The user takes {self._title(top)}. The very next answer", after)
        new = {row.item_id for row in after.items} - {row.item_id for row in page.items}
        self.output.show(
            f"The event is on disk, it is the newest of the user's memory, and {self._title(top)} is no longer "
            f"proposed.\nIn the new answer {len(new)} of {len(after.items)} were not in the one before."
        )
        return top

    def _measure(self) -> dict[str, float]:
        """Calls one after the other, each for another user with other candidates."""
        rng = np.random.default_rng(0)
        items, users = self.dataset.catalogue.ids.ids, self.dataset.users.ids
        times_ms = []
        for _ in range(_CALLS):
            user = User(user_id=users[int(rng.integers(len(users)))])
            candidates = [items[row] for row in rng.choice(len(items), min(_CANDIDATES, len(items)), replace=False)]
            started = time.perf_counter()
            self.client.rank_items(user, candidates)
            times_ms.append((time.perf_counter() - started) * 1e3)
        found = {name: float(np.percentile(times_ms, share)) for name, share in (("p50", 50), ("p99", 99))}
        self.output.heading(
            f"How fast: {_CALLS} RankItems calls of {min(_CANDIDATES, len(items))} candidates, one by one"
        )
        self.output.show(table(("", "milliseconds"), [(name, f"{at:.1f}") for name, at in found.items()], numbers=(1,)))
        return found

    def _title(self, item_id: str) -> str:
        return title(self.dataset.catalogue.get(item_id), item_id)


def _on(timestamp: float | None) -> str:
    return "" if timestamp is None else f" on {day(timestamp)}"


def long_lived(histories: Histories) -> int:
    """The user whose events lie furthest apart, of those with 100 to 500 events if there are any."""
    low, high = _LENGTHS
    fitting = (histories.lengths >= low) & (histories.lengths <= high)
    wanted = fitting if fitting.any() else histories.lengths > 0
    spans = np.full(len(histories), -1.0)
    some = np.flatnonzero(wanted)
    spans[some] = histories.times[histories.indptr[some + 1] - 1] - histories.times[histories.indptr[some]]
    return int(spans.argmax())


def next_commands(home: Path, user_id: str, liked: Sequence[str]) -> list[tuple[str, str]]:
    """(what for, a command that runs as it stands)."""
    snapshots = f"--snapshots {home / 'snapshots'}"
    events = " ".join(f"--event {item_id}" for item_id in liked)
    store = home / "events.sqlite"
    return [
        ("for someone new, who has just met two items", f"{program()} recommend {snapshots} {events}"),
        ("what the snapshot holds", f"{program()} status {snapshots}"),
        (
            f"a server; ask it with: {program()} recommend --target 127.0.0.1:50051 --user {user_id}",
            f"{program()} serve {snapshots} --store {store}",
        ),
    ]


def program() -> str:
    """How this program is called from a shell here."""
    if shutil.which("recsys"):
        return "recsys"
    return "./run recsys" if Path("run").is_file() else f"{sys.executable} -m recsys.cli"
