"""`recsys rank`, `recommend` and `explain`: of a snapshot here, or of a running server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from recsys.cli.output import Output, table
from recsys.cli.snapshots import current_snapshot, store_exists
from recsys.cli.words import day, earlier, reasons, what_happened
from recsys.client import RecsysClient
from recsys.config import Settings
from recsys.errors import InvalidInput
from recsys.recommend import Recommender
from recsys.store import EventStore
from recsys.types import Candidate, Event, Explanation, Fallback, Item, RankedItem, User

CALL_TIMEOUT_S = 10.0
"""A person waits, not a page: the first call of a cold server may take its time."""

_WITHOUT = {
    Fallback.UNKNOWN_USER: "nothing is known of this user: popularity and context decide",
    Fallback.UNKNOWN_ITEM: "an item is unknown and has no text",
    Fallback.COLD_ITEM: "an item is ranked by its text alone",
    Fallback.MATCHER_UNAVAILABLE: "a matcher failed: the others decide",
    Fallback.RANKER_UNAVAILABLE: "there is no ranker: matcher scores decide",
}


class Answer(Protocol):
    """Rows by falling score, and what the answer had to do without."""

    @property
    def items(self) -> Sequence[RankedItem]: ...
    @property
    def fallbacks(self) -> tuple[Fallback, ...]: ...


class Engine(Protocol):
    """Whoever answers."""

    def rank(self, user: User, candidates: Sequence[Candidate], top_k: int) -> Answer: ...
    def recommend(
        self, user: User, k: int, exclude: Sequence[str], categories: Sequence[str], include_seen: bool | None
    ) -> Answer: ...
    def explain(self, user: User, item_ids: Sequence[str], max_memories: int) -> Sequence[Explanation]: ...
    def item(self, item_id: str) -> Item | None:
        """What is known of an item here; None where only a server knows."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """A snapshot in this process; `later` gives the events that the store has beyond it."""

    recommender: Recommender
    later: Callable[[str], Sequence[Event]]

    def rank(self, user: User, candidates: Sequence[Candidate], top_k: int) -> Answer:
        return self.recommender.rank(self._whole(user), candidates, top_k=top_k)

    def recommend(
        self, user: User, k: int, exclude: Sequence[str], categories: Sequence[str], include_seen: bool | None
    ) -> Answer:
        return self.recommender.recommend(
            self._whole(user), k=k, exclude=exclude, categories=categories, include_seen=include_seen
        )

    def explain(self, user: User, item_ids: Sequence[str], max_memories: int) -> Sequence[Explanation]:
        return self.recommender.explain(self._whole(user), item_ids, max_memories=max_memories)

    def item(self, item_id: str) -> Item | None:
        return self.recommender.item(item_id)

    def _whole(self, user: User) -> User:
        stored = self.later(user.user_id) if user.user_id else ()
        return replace(user, events=(*stored, *user.events))


@dataclass(frozen=True, slots=True)
class There:
    """A running server."""

    client: RecsysClient

    def rank(self, user: User, candidates: Sequence[Candidate], top_k: int) -> Answer:
        return self.client.rank_items(user, candidates, top_k=top_k)

    def recommend(
        self, user: User, k: int, exclude: Sequence[str], categories: Sequence[str], include_seen: bool | None
    ) -> Answer:
        return self.client.recommend_items(
            user, page_size=k, exclude=exclude, categories=categories, include_seen=include_seen
        )

    def explain(self, user: User, item_ids: Sequence[str], max_memories: int) -> Sequence[Explanation]:
        return self.client.explain(user, item_ids, max_memories=max_memories)

    def item(self, item_id: str) -> Item | None:
        return None


@contextmanager
def engine(settings: Settings, target: str | None) -> Iterator[Engine]:
    """The server at `target`, else the current snapshot with what the store has beyond it, if there is a store."""
    if target is not None:
        with RecsysClient.from_environment(target, timeout_s=CALL_TIMEOUT_S) as client:
            yield There(client)
        return
    root = settings.paths.snapshots
    recommender = Recommender.open(root, current_snapshot(root))
    if not store_exists(settings.paths.store):
        yield Here(recommender, lambda user_id: ())
        return
    with EventStore.open(settings.paths.store) as store:
        seq = recommender.store_seq
        items = store.items(after_seq=seq)
        known = recommender.with_items(items) if items else recommender
        known = known.without_users(sorted(store.erased_among(known.user_ids, after_seq=seq)))
        yield Here(known, lambda user_id: store.user_events(user_id, after_seq=seq))


def user_of(user_id: str, events: Sequence[str]) -> User:
    """Who asks, now, with item ids of this moment as inline history, oldest first."""
    history = tuple(Event(user_id=user_id, item_id=item_id) for item_id in events)
    return User(user_id=user_id, events=history, now=time.time())


def rank(
    settings: Settings,
    output: Output,
    *,
    target: str | None,
    user: User,
    item_ids: Sequence[str],
    texts: Sequence[str],
    top_k: int,
) -> None:
    candidates = [*(Candidate(item_id=each) for each in item_ids), *(Candidate(text=each) for each in texts)]
    if not candidates:
        raise InvalidInput.of("ITEM", list(item_ids), "name items, or texts with --text")
    with engine(settings, target) as found:
        _show(output, found, found.rank(user, candidates, top_k), candidates, [*_unknown_events(found, user)])


def recommend(
    settings: Settings,
    output: Output,
    *,
    target: str | None,
    user: User,
    k: int,
    exclude: Sequence[str],
    categories: Sequence[str],
    include_seen: bool | None,
) -> None:
    with engine(settings, target) as found:
        notes = [*_unknown_events(found, user), *_empty_categories(found, user, categories)]
        _show(output, found, found.recommend(user, k, exclude, categories, include_seen), (), notes)


def explain(
    settings: Settings, output: Output, *, target: str | None, user: User, item_ids: Sequence[str], max_memories: int
) -> None:
    with engine(settings, target) as found:
        explanations = found.explain(user, item_ids, max_memories)
        for each in explanations:
            output.heading(f"{title(found.item(each.item_id), each.item_id)}   score {each.score:.3f}")
            show_reasons(output, each, None)
        show_legend(output, explanations)
        output.show(*(f"note: {each}" for each in _unknown_events(found, user)))
    output.result([asdict(each) for each in explanations])


def show_reasons(output: Output, explanation: Explanation, now: float | None) -> None:
    """What moved the score, and the events behind it; ages are counted from `now`."""
    lines = [(phrase, round(share, 3)) for phrase, share in reasons(explanation.contributions)]
    rest = round(explanation.score, 3) - sum(share for _, share in lines)
    output.show(*(f"  {share:+.3f}  {phrase}" for phrase, share in [*lines, ("the rest and the base", rest)]))
    memories = [
        (
            memory.title or memory.event.item_id,
            what_happened(memory.event),
            day(memory.event.timestamp),
            earlier(memory.event.timestamp, now),
            f"{memory.weight:.0%}",
        )
        for memory in explanation.memories
    ]
    if memories:
        output.show(table(("remembered", "event", "when", "", "share"), memories, numbers=(4,)))
        output.show()


def show_legend(output: Output, explanations: Sequence[Explanation]) -> None:
    """Once below all tables of `show_reasons`: what their last column is."""
    if any(each.memories for each in explanations):
        output.show("share: this event's part in all that the user's past says of the item; all of them make 100 %")


def title(item: Item | None, item_id: str) -> str:
    """A name for people: the title and the id, or the id alone."""
    return f"{item.title} [{item_id}]" if item and item.title else item_id


def _show(output: Output, found: Engine, answer: Answer, candidates: Sequence[Candidate], notes: Sequence[str]) -> None:
    rows = [_row(found, row, candidates) for row in answer.items]
    output.show(table(("", "item", "title", "categories", "score"), rows, numbers=(0, 4)))
    output.show(*(f"note: {each}" for each in [*(_WITHOUT.get(each, each) for each in answer.fallbacks), *notes]))
    output.result(
        {
            "items": [asdict(row) for row in answer.items],
            "fallbacks": [str(each) for each in answer.fallbacks],
            "notes": notes,
        }
    )


def _row(found: Engine, row: RankedItem, candidates: Sequence[Candidate]) -> tuple[Any, ...]:
    item = found.item(row.item_id) if row.item_id else None
    text = candidates[row.index].text if row.index >= 0 else ""
    return (row.rank, row.item_id, item.title if item else text, ", ".join(item.categories) if item else "", row.score)


def _unknown_events(found: Engine, user: User) -> Iterator[str]:
    """A note for each event of the command line whose item nobody knows."""
    ids = list(dict.fromkeys(event.item_id for event in user.events))
    asked = found.rank(user, [Candidate(item_id=each) for each in ids], 0).items if ids else ()
    unknown = {row.index for row in asked if Fallback.UNKNOWN_ITEM in row.fallbacks}
    return (f"--event {each}: this item is unknown and says nothing" for i, each in enumerate(ids) if i in unknown)


def _empty_categories(found: Engine, user: User, categories: Sequence[str]) -> Iterator[str]:
    """A note for each category that no item has: even with nothing excluded, nothing is found in it."""
    empty = (each for each in categories if not found.recommend(user, 1, (), (each,), True).items)
    return (f"--category {each}: no item has this category" for each in empty)
