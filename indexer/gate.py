"""What a rebuilt model must hold before anybody sees it: finite numbers, an index that finds, answers to requests."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from indexer.moments import keys_of, moments_of
from recsys.data.histories import Histories
from recsys.encode.text import TextEncoder
from recsys.errors import SnapshotError
from recsys.match.neighbours import Neighbours
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.types import Candidate, Event, User

QUERIES, ANSWERS = 256, 100
_BLOCK_KEYS = 65_536
_ROUNDING = 1e-5
"""A found key that scores as well as the last that should be found is as good: many moments are alike."""


class Refused(SnapshotError):
    """A rebuilt model is not fit to serve; the one before goes on serving."""


def judge(model: Model, encoder: TextEncoder, *, least_recall: float) -> dict[str, float]:
    """Figures for the manifest. Raises Refused, saying what is wrong."""
    _finite(model)
    figures = {}
    neighbours = next((each for each in model.flow.matchers if isinstance(each, Neighbours)), None)
    if neighbours is not None and len(neighbours.memory.following):
        found = recall(neighbours)
        figures[f"moments_recall@{ANSWERS}"] = found
        if found < least_recall:
            raise Refused(
                f"recall={found:.4f}: the index of moments finds fewer than {least_recall} of what exact search finds"
            )
    canaries(model, encoder)
    return figures


def recall(neighbours: Neighbours, queries: int = QUERIES, k: int = ANSWERS) -> float:
    """The share of the exact k nearest moments that the index finds, asked with evenly spaced keys of its own."""
    told, moments = neighbours.histories, moments_of(neighbours.histories)
    asked = moments[np.linspace(0, len(moments) - 1, min(queries, len(moments))).astype(np.int64)]
    keys = keys_of(told, asked, neighbours.codes, neighbours.config)
    bar = _exact_bar(neighbours, told, moments, keys, k)
    _, rows = neighbours.memory.index.search(keys, min(k, len(moments)))
    right = 0
    for key, least, found in zip(keys, bar, rows, strict=True):
        known = np.unique(found[found >= 0])
        scores = keys_of(told, moments[known], neighbours.codes, neighbours.config) @ key
        right += int((scores >= least - _ROUNDING * max(abs(least), 1.0)).sum())
    return min(right / (len(asked) * min(k, len(moments))), 1.0)


def _exact_bar(
    neighbours: Neighbours, told: Histories, moments: Int64[np.ndarray, " M"], keys: Float32[np.ndarray, "Q D"], k: int
) -> Float32[np.ndarray, " Q"]:
    """The k-th best score of each query over all moments, whose keys are made block by block."""
    size = min(k, len(moments))
    best = [np.zeros(0, np.float32) for _ in keys]
    bar = np.full(len(keys), -np.inf, np.float32)
    for at in range(0, len(moments), _BLOCK_KEYS):
        block = keys_of(told, moments[at : at + _BLOCK_KEYS], neighbours.codes, neighbours.config)
        for query, scores in enumerate(keys @ block.T):
            found = np.concatenate([best[query], scores[scores > bar[query]]])
            if len(found) > size:
                found = np.partition(found, len(found) - size)[len(found) - size :]
            best[query] = found
            if len(found) == size:
                bar[query] = found.min()
    return np.array([each.min() for each in best], np.float32)


def canaries(model: Model, encoder: TextEncoder) -> None:
    """Asks for what will be asked: a user with a long life, one with a short, a stranger with one event, nobody."""
    if not len(model.items.base):
        raise Refused("items=0: there is nothing to recommend")
    engine = Recommender.of(model, encoder)
    lengths = model.histories.lengths
    users = [User(user_id=model.users.ids[int(row)]) for row in {int(lengths.argmax()), int(lengths.argmin())}]
    first = model.items.catalogue.ids.ids[0]
    users += [User(events=(Event(user_id="", item_id=first),)), User()]
    for user in users:
        who = user.user_id or "a stranger"
        page = engine.recommend(user, k=10, include_seen=True)
        ranked = engine.rank(user, [Candidate(item_id=first)])
        scores = [row.score for row in (*page.items, *ranked.items)]
        if not ranked.items or not np.isfinite(scores).all():
            raise Refused(f"canary={who}: its answer holds no score, or one that is not finite")
        if user.user_id and not page.items:
            raise Refused(f"canary={who}: nothing is recommended to somebody who is known")


def _finite(model: Model) -> None:
    arrays = {"vectors": model.items.base, "times": model.histories.times}
    for matcher in model.flow.matchers:
        if isinstance(matcher, Neighbours):
            arrays["codes"] = matcher.codes
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Refused(f"{name}: NaN or infinity")
