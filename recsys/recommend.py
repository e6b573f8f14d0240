"""Recommender: the whole flow in one process. The service, the command line and notebooks only wrap it.

External ids come in and go out here; everything beneath is int rows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from recsys.data.packed import PackedIds
from recsys.encode.cache import VectorCache
from recsys.encode.items import ItemTable
from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput, MixedSnapshot, RecsysError
from recsys.evidence import evidence
from recsys.flow import Field, Usual, allowed_mask, fallback_scores, rank_field
from recsys.lives import Lives
from recsys.match import States
from recsys.model import Model
from recsys.snapshot import Snapshot, open_snapshot
from recsys.states import events_of, news, remembered, user_state, without_each
from recsys.types import (
    MAX_ID_BYTES,
    Candidate,
    CandidateColumns,
    Event,
    Explanation,
    Fallback,
    Item,
    RankedColumns,
    Ranking,
    Remembered,
    User,
)
from recsys.watch import stage, staged

_log = logging.getLogger(__name__)

_NO_ID = "-" * (MAX_ID_BYTES + 1)
"""Longer than any id may be: the id, inside, of a candidate that has only a text."""


MAX_LEFT_OUT = 32
"""Events that one explanation leaves out in turn."""
_LEFT_OUT_BATCH = 8  # dense scores of a batch are [B, N]
_LEFT_OUT_EVENTS = 500_000  # read in all: of a very long history fewer events are left out


class _Spoke(NamedTuple):
    """An event, by its place in the history, that speaks for an item."""

    event: int
    weight: float
    source: str


def _taken(ids: Sequence[str], order: np.ndarray) -> Sequence[str]:
    return ids.take(order) if isinstance(ids, PackedIds) else [ids[i] for i in order.tolist()]


def _encoder(model: Model, cache: VectorCache | None) -> TextEncoder:
    settings = model.settings
    return TextEncoder.load(settings.encoder, max_tokens=settings.encoder_max_tokens, cache=cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommender:
    """A model and its text encoder, behind ids. Immutable: `with_items` makes another; calls may run in parallel."""

    model: Model
    encoder: TextEncoder
    items: ItemTable
    snapshot_id: str = "unsaved"
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    lives: Lives = field(default_factory=Lives, compare=False, repr=False)

    @classmethod
    def of(cls, model: Model, encoder: TextEncoder) -> Self:
        """A recommender over a model in memory. Raises MixedSnapshot where another encoder made the vectors."""
        wanted = model.settings.encoder_fingerprint
        if encoder.fingerprint != wanted:
            raise MixedSnapshot(f"the item vectors come from encoder {wanted}, but {encoder.fingerprint} is loaded")
        fingerprints = {"encoder": wanted}
        return cls(model=model, encoder=encoder, items=model.items, fingerprints=fingerprints, created=time.time())

    @classmethod
    def open(
        cls,
        root: str | Path,
        snapshot_id: str | None = None,
        *,
        encoder: TextEncoder | None = None,
        cache: VectorCache | None = None,
    ) -> Self:
        """The snapshot that `root`/CURRENT names (or `snapshot_id`), verified before anything is parsed.

        `encoder` None loads the one that the snapshot names, with `cache` for vectors of texts met later.
        Raises NotFound, DamagedSnapshot, MixedSnapshot.
        """
        snapshot: Snapshot = open_snapshot(Path(root), snapshot_id)
        model = Model.load(snapshot.path)
        made = cls.of(model, encoder or _encoder(model, cache))
        manifest = snapshot.manifest
        return replace(
            made,
            snapshot_id=manifest.snapshot_id,
            fingerprints=dict(manifest.fingerprints),
            created=manifest.created,
        )

    @property
    def num_users(self) -> int:
        return len(self.model.users)

    @property
    def user_ids(self) -> Sequence[str]:
        """The users of the snapshot by row, those left out since among them."""
        return self.model.users.ids

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def num_memories(self) -> int:
        return self.model.histories.num_events

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.model.settings.metrics

    @property
    def store_seq(self) -> int:
        return self.model.settings.store_seq

    def rank(self, user: User, candidates: Sequence[Candidate], *, top_k: int = 0, parts: bool = False) -> Ranking:
        """Order `candidates` for `user`; every row is answered, the unknown ones with their fallback named.

        `top_k` 0 returns all. Raises InvalidInput for no candidates, one with neither id nor text, a negative `top_k`.
        """
        if not candidates:
            raise InvalidInput.of("candidates", candidates, "must not be empty")
        if top_k < 0:
            raise InvalidInput.of("top_k", top_k, "must be at least 0")
        asked = CandidateColumns.of(candidates)
        view, rows, notes = self._resolve(asked)
        states, life = self.lives.state(self.model, view, user)
        usual, absent = Usual(self.model.settings.include_seen, len(self.items)), set[str]()
        field_ = self.model.flow.field(states, usual, rows[None], kept=life.kept, absent=absent)
        self.lives.keep(user, life)
        places, scores = self._places(field_, rows)
        order = self._order(scores, rows)[: top_k or None]
        indices = order.tolist()
        ranked = RankedColumns(
            item_ids=_taken(asked.item_ids, order),
            scores=scores[order].tolist(),
            indices=indices,
            fallbacks={place: notes[i] for place, i in enumerate(indices) if i in notes} if notes else {},
            parts=self._parts(field_, places[order]) if parts else (),
        )
        return self._ranking(states, ranked, absent)

    def recommend(
        self,
        user: User,
        *,
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        include_seen: bool | None = None,
        parts: bool = False,
    ) -> Ranking:
        """The k best items for `user`, all of them of one of `categories` where any are given.

        `include_seen`: also items the user has met; None does as the data does (a shop repeats, films do not).
        Fewer than k come back only where fewer are allowed.
        """
        if k < 1:
            raise InvalidInput.of("k", k, "must be at least 1")
        states, life = self.lives.state(self.model, self.items, user)
        seen = self.model.settings.include_seen if include_seen is None else include_seen
        allowed, absent = self._allowed(states, seen, exclude, categories), set[str]()
        field_ = self.model.flow.field(states, allowed, kept=life.kept, absent=absent)
        self.lives.keep(user, life)
        if field_.candidates.shape[1] < min(k, int(allowed.sum())):
            popular = self._popular(allowed, k)
            field_ = self.model.flow.field(states, allowed, popular, kept=life.kept, absent=absent)
        scores = self._scores(field_)[0]
        order = self._order(scores, field_.candidates[0])[: min(k, int(field_.valid.sum()))]
        rows = field_.candidates[0, order]
        ids = self.items.catalogue.ids.ids
        ranked = RankedColumns(
            item_ids=[ids[row] for row in rows.tolist()],
            scores=scores[order].tolist(),
            indices=[-1] * len(order),
            fallbacks=dict.fromkeys(np.flatnonzero(rows >= self.model.flow.num_fitted).tolist(), (Fallback.COLD_ITEM,)),
            parts=self._parts(field_, order) if parts else (),
        )
        return self._ranking(states, ranked, absent)

    def explain(self, user: User, item_ids: Sequence[str], *, max_memories: int = 5) -> list[Explanation]:
        """Why each item has its score: contributions of the features, and the user's events that speak for it.

        The heaviest events, `MAX_LEFT_OUT` in all, also say what the score would change by without them: everything is
        ranked again with the event left out. Costs about a thousand times a ranking row, and a ranking for each event
        left out. Raises InvalidInput for an unknown item or without a ranker.
        """
        if self.model.ranker is None:
            raise InvalidInput.of("snapshot_id", self.snapshot_id, "has no ranker to explain")
        rows = self.items.catalogue.ids.rows(list(item_ids))
        states = user_state(self.model, self.items, user)
        field_ = self.model.flow.field(
            states, self._allowed(states, self.model.settings.include_seen), np.unique(rows)[None]
        )
        places, _ = self._places(field_, rows)
        shares = self.model.ranker.explain(field_.features[0, places])
        spoke = [self._heaviest(states, int(row), max_memories) for row in rows]
        changes = self._changes(states, rows, spoke)
        return [
            Explanation(
                item_id=item_id,
                score=float(share.sum()),
                base=float(share[-1]),
                contributions=dict(zip(self.model.flow.features, map(float, share[:-1]), strict=True)),
                memories=self._memories(states, user, heaviest, changes, place),
            )
            for place, (item_id, share, heaviest) in enumerate(zip(item_ids, shares, spoke, strict=True))
        ]

    def history(self, user: User) -> list[Event]:
        """All that is remembered of the user, oldest first; an event without a time has just happened."""
        held = remembered(self.model, user)
        past, fresh = events_of(held, self.model.items, user.user_id), news(self.model, held, user)
        if self.model.histories.clock != "timestamp":
            return [*past, *sorted(fresh, key=lambda event: event.timestamp or 0.0)]
        return sorted([*past, *fresh], key=lambda event: np.inf if event.timestamp is None else event.timestamp)

    def search_history(self, user: User, text: str, k: int) -> list[Remembered]:
        """The user's k events whose item texts are closest to `text`, the closest first."""
        states = user_state(self.model, self.items, user)
        past = states.histories
        similarity = self.items.vectors(past.items) @ self.encode_texts([text])[0]
        best = np.argsort(-similarity, kind="stable")[:k]
        events = events_of(past, self.items, user.user_id)
        return [self._remembered(events[i], int(past.items[i]), float(similarity[i]), "text") for i in best]

    @staged("texts")
    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """Unit vectors of `texts`."""
        return self.encoder.encode(list(texts))

    def with_items(self, items: Sequence[Item]) -> Self:
        """A recommender that also knows `items`, by their texts, at once; the rest is shared.

        Of an item that is known already, title, categories and text change now, its vector with the next rebuild.
        """
        known = self.items.catalogue.ids
        fresh = list({item.item_id: item for item in items if known.get(item.item_id) is None}.values())
        changed = [item for item in items if known.get(item.item_id) is not None]
        table = self.items.replaced(changed) if changed else self.items
        if fresh:
            table = table.extended(fresh, self.encode_texts([item.text for item in fresh]))
        return replace(self, items=table)

    def without_users(self, user_ids: Sequence[str]) -> Self:
        """A recommender that does not know `user_ids`, and in which their moments have no vote; the rest is shared."""
        return replace(self, model=self.model.without_users(user_ids), lives=Lives())

    def item(self, item_id: str) -> Item | None:
        """The item, None where it is unknown."""
        return self.items.catalogue.get(item_id)

    def warm_up(self) -> None:
        """Run each path once, so that the first caller does not wait for lazy loading.

        The text encoder then loads in the background: it takes longer than all the rest, and known items need none of
        it.
        """
        busiest = int(self.model.histories.lengths.argmax()) if self.num_users else -1
        user = User(user_id=self.model.users.ids[busiest] if busiest >= 0 else "")
        best = self.recommend(user, k=1).items
        if best:
            self.rank(user, CandidateColumns(PackedIds.of([best[0].item_id]), [""]))
        threading.Thread(target=self._load_encoder, name="encoder", daemon=True).start()

    def _load_encoder(self) -> None:
        try:
            self.encoder.warm_up()
        except (RecsysError, RuntimeError, OSError):
            _log.exception("the text encoder failed")  # whoever asks for a text is told

    def _resolve(
        self, asked: CandidateColumns
    ) -> tuple[ItemTable, Int32[np.ndarray, " K"], dict[int, tuple[Fallback, ...]]]:
        """Rows of the candidates in a view of the items that holds, after all others, those known by text alone, and
        what the others had to do without, by place."""
        rows = self.items.catalogue.ids.rows(asked.item_ids, unknown=-1)
        cold = np.flatnonzero(rows >= self.model.flow.num_fitted).tolist()
        notes: dict[int, tuple[Fallback, ...]] = dict.fromkeys(cold, (Fallback.COLD_ITEM,))
        unknown = np.flatnonzero(rows < 0).tolist()
        if not unknown:
            return self.items, rows, notes
        for i in unknown:
            if not asked.item_ids[i] and not asked.texts[i]:
                raise InvalidInput.of(f"candidates[{i}]", asked[i], "needs an item_id or a text")
            notes[i] = (Fallback.COLD_ITEM,) if asked.texts[i] else (Fallback.UNKNOWN_ITEM,)
        rows[unknown] = len(self.items) + np.arange(len(unknown))
        late = [Item(item_id=f"{_NO_ID}{i}", description=asked.texts[i]) for i in unknown]
        try:
            vectors = self.encode_texts([item.text for item in late])
        except (RecsysError, RuntimeError, OSError):
            # Without the encoder a text is ranked by its words alone; the answer says so.
            _log.exception("the text encoder failed")
            vectors = np.zeros((len(late), self.items.dimension), np.float32)
            notes = {i: (*note, Fallback.ENCODER_UNAVAILABLE) for i, note in notes.items()}
        return self.items.extended(late, vectors), rows, notes

    def _allowed(
        self, states: States, include_seen: bool, exclude: Sequence[str] = (), categories: Sequence[str] = ()
    ) -> Bool[np.ndarray, "1 N"]:
        # Rows known only to this request may be judged, not proposed.
        allowed = Usual(include_seen, len(self.items)).mask(states)
        if exclude:
            rows = self.items.catalogue.ids.rows(list(exclude), unknown=-1)
            allowed[:, rows[rows >= 0]] = False
        if categories:
            allowed &= self.items.of_categories(categories)
        return allowed

    def _popular(self, allowed: Bool[np.ndarray, "1 N"], k: int) -> Int32[np.ndarray, "1 P"]:
        """The allowed items met most often, to fill an answer that the matchers cannot."""
        counts = np.bincount(self.model.histories.items, minlength=allowed.shape[1])[: allowed.shape[1]]
        rows = np.argsort(-np.where(allowed[0], counts, -1), kind="stable")[: min(k, int(allowed.sum()))]
        return rows[None].astype(np.int32)

    @staged("rank")
    def _scores(self, field_: Field) -> Float64[np.ndarray, "B K"]:
        if self.model.ranker is None:
            return fallback_scores(field_, self.model.flow.signals)
        return rank_field(field_, self.model.ranker)

    def _places(self, field_: Field, rows: Int32[np.ndarray, " K"]) -> tuple[np.ndarray, Float64[np.ndarray, " K"]]:
        """Where each asked row stands in the field, and its score."""
        rising = field_.candidates[0, ::-1]  # `distinct` leaves them falling
        places = len(rising) - 1 - np.searchsorted(rising, rows)
        if self.model.ranker is None:
            return places, self._scores(field_)[0, places]
        with stage("rank"):  # of the others only the features are wanted
            return places, self.model.ranker.score(field_.features[0, places])

    def _order(self, scores: Float64[np.ndarray, " K"], rows: Int32[np.ndarray, " K"]) -> np.ndarray:
        """Best first; of equal scores the more popular, so that what nobody knows stands last."""
        counts = self.model.popularity
        known = rows < len(counts)
        return np.lexsort((-np.where(known, counts[np.where(known, rows, 0)], -1), -scores))

    def _parts(self, field_: Field, places: np.ndarray) -> list[dict[str, float]]:
        names = [signal.name for signal in self.model.flow.signals]
        return [dict(zip(names, row, strict=True)) for row in field_.scores[0, places].tolist()]

    def _ranking(self, states: States, ranked: RankedColumns, absent: set[str]) -> Ranking:
        fallbacks = [Fallback.UNKNOWN_USER] if states.histories.num_events == 0 else []
        fallbacks += [Fallback.MATCHER_UNAVAILABLE] if absent else []
        fallbacks += [Fallback.RANKER_UNAVAILABLE] if self.model.ranker is None else []
        fallbacks += dict.fromkeys(note for place in sorted(ranked.fallbacks) for note in ranked.fallbacks[place])
        return Ranking(items=ranked, snapshot_id=self.snapshot_id, fallbacks=tuple(fallbacks))

    def _heaviest(self, states: States, row: int, k: int) -> list[_Spoke]:
        """The k events that speak most for item `row`, the heaviest first."""
        weights, sources = evidence(self.model.flow.matchers, states, row)
        best = np.argsort(-weights, kind="stable")[:k]
        return [_Spoke(int(i), float(weights[i]), sources[i]) for i in best if weights[i] > 0]

    def _memories(
        self,
        states: States,
        user: User,
        heaviest: Sequence[_Spoke],
        changes: Mapping[int, Float64[np.ndarray, " Q"]],
        place: int,
    ) -> tuple[Remembered, ...]:
        shown = np.isin(np.arange(states.histories.num_events), [each.event for each in heaviest])
        events = events_of(states.histories.keep(shown), self.items, user.user_id)
        by_event = dict(zip(np.flatnonzero(shown).tolist(), events, strict=True))
        return tuple(
            replace(
                self._remembered(
                    by_event[each.event], int(states.histories.items[each.event]), each.weight, each.source
                ),
                score_change=float(changes[each.event][place]) if each.event in changes else None,
            )
            for each in heaviest
        )

    def _changes(
        self, states: States, rows: Int32[np.ndarray, " Q"], spoke: Sequence[Sequence[_Spoke]]
    ) -> dict[int, Float64[np.ndarray, " Q"]]:
        """By event, what the scores of `rows` change by where it is left out; for the heaviest events of all rows."""
        weights: dict[int, float] = {}
        for each in (each for heaviest in spoke for each in heaviest):
            weights[each.event] = max(weights.get(each.event, 0.0), each.weight)
        most = min(MAX_LEFT_OUT, max(_LEFT_OUT_EVENTS // max(states.histories.num_events, 1), 1))
        chosen = sorted(weights, key=lambda event: (-weights[event], event))[:most]
        if not chosen:
            return {}
        before = self._scores_of(states, rows)[0]
        changes: dict[int, Float64[np.ndarray, " Q"]] = {}
        for start in range(0, len(chosen), _LEFT_OUT_BATCH):
            events = chosen[start : start + _LEFT_OUT_BATCH]
            after = self._scores_of(without_each(states, events), rows)
            changes.update(zip(events, after - before, strict=True))
        return changes

    def _scores_of(self, states: States, rows: Int32[np.ndarray, " Q"]) -> Float64[np.ndarray, "B Q"]:
        """The scores of the same items for each of a batch of states."""
        asked = np.tile(np.unique(rows).astype(np.int32), (len(states), 1))
        allowed = allowed_mask(states, include_seen=self.model.settings.include_seen)
        field_ = self.model.flow.field(states, allowed, asked)
        scores = self._scores(field_)
        places = (field_.candidates[:, None, :] == rows[None, :, None]).argmax(axis=2)
        return np.take_along_axis(scores, places, axis=1)

    def _remembered(self, event: Event, row: int, weight: float, source: str) -> Remembered:
        return Remembered(event=event, title=self.items.item(row).title, weight=weight, source=source)
