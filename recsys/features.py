"""From matcher scores and context to the ranker's rows. One ordered list of names, one function, to train and to serve.

A relative signal is seen as its share of the best candidate's (`_norm`), as its place among the candidates (`_rank`)
and as it is (`_value`), which tells how sure the matcher is: without it NDCG@10 on Amazon Beauty's validation is 1.9 %
lower. An absolute one is seen as it is and as its place. Places count strictly better candidates, so ties share a place
and no order of rows or ids can leak into a feature; what differs by rounding only is a tie.

Letters: B users, K candidates, S signals of all matchers together, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys._kernel import kernel
from recsys.match import Reading, Signal, States

CONTEXT = ("context_length", "context_gap", "context_variety", "context_found_by", "context_cold")
RELATIVE, ABSOLUTE = np.float32(1e-5), np.float32(1e-7)
"""Scores nearer to each other than this share of themselves, or of the best, are equal: a sum of the same float32 terms
comes out differently by where it stands in a matrix, and that must not decide a place."""


def feature_names(signals: Sequence[Signal]) -> tuple[str, ...]:
    """FEATURES for these signals, in the order of the columns."""
    values = [s.name if s.absolute else f"{s.name}_norm" for s in signals]
    raw = [f"{s.name}_value" for s in signals if not s.absolute]
    return (*values, *(f"{s.name}_rank" for s in signals), *raw, *CONTEXT)


def read_scores(readings: Sequence[Reading], candidates: Int32[np.ndarray, "B K"]) -> Float32[np.ndarray, "B K S"]:
    """Every matcher's signals side by side; 0 for padding."""
    return np.concatenate([reading.score(candidates) for reading in readings], axis=-1)


class Columns:
    """The ranker's columns for some signals."""

    def __init__(self, signals: Sequence[Signal]) -> None:
        self.signals = tuple(signals)
        self.names = feature_names(self.signals)
        self._absolute = np.array([s.absolute for s in signals], bool)
        self._proposes = np.array([s.proposes > 0 for s in signals], bool)

    def rows(
        self,
        states: States,
        candidates: Int32[np.ndarray, "B K"],
        scores: Float32[np.ndarray, "B K S"],
        met: Bool[np.ndarray, " N"],
    ) -> Float32[np.ndarray, "B K F"]:
        """The ranker's rows; rows of padding candidates (-1) are to be left out. `met`: which items anybody had met at
        the fit; the others, and those that came since, are cold."""
        rows, table = np.ascontiguousarray(candidates), np.ascontiguousarray(scores)
        places = _places(table, rows >= 0)
        out = np.empty((*rows.shape, len(self.names)), np.float32)
        _fill(self._absolute, self._proposes, rows, table, places, _context(states), np.ascontiguousarray(met), out)
        return out


def build_features(
    signals: Sequence[Signal],
    states: States,
    candidates: Int32[np.ndarray, "B K"],
    scores: Float32[np.ndarray, "B K S"],
    met: Bool[np.ndarray, " N"],
) -> Float32[np.ndarray, "B K F"]:
    """`Columns.rows` for signals that are asked for once."""
    return Columns(signals).rows(states, candidates, scores, met)


VARIETY_OF = 100
"""Latest events whose distinct items are counted."""
FOUND = 50
"""A matcher has found a candidate that is among its so many best."""


@kernel
def _fill(absolute, proposes, candidates, scores, places, context, met, out):  # type: ignore[no-untyped-def]
    """Values, places, raw values, context: in the order of `feature_names`."""
    B, K, S = scores.shape
    best = np.empty(S, np.float32)
    for user in range(B):
        best[:] = 0.0
        for at in range(K):
            if candidates[user, at] >= 0:
                for signal in range(S):
                    best[signal] = max(best[signal], scores[user, at, signal])
        for signal in range(S):
            best[signal] = 1.0 if absolute[signal] else max(best[signal], np.float32(1e-9))
        for at in range(K):
            found_by, column = 0, 2 * S
            for signal in range(S):
                score, place = scores[user, at, signal], places[user, signal, at]
                out[user, at, signal] = score if absolute[signal] else score / best[signal]
                out[user, at, S + signal] = place
                found_by += proposes[signal] and score > 0.0 and place < FOUND
                if not absolute[signal]:
                    out[user, at, column] = score
                    column += 1
            for fact in range(context.shape[1]):
                out[user, at, column] = context[user, fact]
                column += 1
            out[user, at, column] = found_by
            row = candidates[user, at]
            out[user, at, column + 1] = 0.0 if 0 <= row < len(met) and met[row] else 1.0


def competition_rank(
    scores: Float32[np.ndarray, "*rows K"], valid: Bool[np.ndarray, "*#rows K"]
) -> Float32[np.ndarray, "*rows K"]:
    """How many valid candidates of the row score strictly higher, by more than the rounding of a sum."""
    shape = (math.prod(scores.shape[:-1]), scores.shape[-1])
    kept = np.ascontiguousarray(np.broadcast_to(valid, scores.shape)).reshape(shape)
    return _places(np.ascontiguousarray(scores).reshape(*shape, 1), kept).reshape(scores.shape)


MOST_PLACE_BITS = 11
"""Up to 2,048 candidates leave 21 bits for the score, which tell apart what differs by a share of 1 / 4,096."""


def _places(scores: Float32[np.ndarray, "B K S"], valid: Bool[np.ndarray, "B K"]) -> Float32[np.ndarray, "B S K"]:
    """`competition_rank` of each signal.

    A key is a score, falling, above its place: whole numbers, which NumPy sorts many at a time. Of the score it holds
    what 32 bits have room for, since twice the width takes three times as long; `_count` puts the rest in order.
    """
    B, K, S = scores.shape
    place_bits = max(K - 1, 1).bit_length()
    narrow = place_bits <= MOST_PLACE_BITS
    keys = np.empty((B, S, K), np.uint32 if narrow else np.uint64)
    dropped, place_bits = (place_bits, place_bits) if narrow else (0, 32)
    _pack(scores.view(np.uint32), valid, np.uint64(dropped), np.uint64(place_bits), keys)
    keys.sort(axis=-1)
    ranks = np.zeros(keys.shape, np.float32)
    _count(keys, scores, valid.sum(axis=1), np.uint64((1 << place_bits) - 1), ranks)
    return ranks


@kernel
def _pack(bits, valid, dropped, place_bits, keys):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    """What is not valid stands last."""
    for user in range(keys.shape[0]):
        for signal in range(keys.shape[1]):
            for place in range(keys.shape[2]):
                score = bits[user, place, signal]
                falling = score if score >> np.uint32(31) else ~(score | np.uint32(1 << 31)) & np.uint32(0xFFFFFFFF)
                if not valid[user, place]:
                    falling = np.uint32(0xFFFFFFFF)
                keys[user, signal, place] = np.uint64(falling) >> dropped << place_bits | np.uint64(place)


@kernel
def _count(keys, scores, lengths, place_mask, ranks):  # type: ignore[no-untyped-def]
    order, fallen = np.empty(keys.shape[2], np.int64), np.empty(keys.shape[2], np.float32)
    for user in range(keys.shape[0]):
        for signal in range(keys.shape[1]):
            for at in range(lengths[user]):
                place = np.int64(np.uint64(keys[user, signal, at]) & place_mask)
                score, to = scores[user, place, signal], at
                while to > 0 and fallen[to - 1] < score:  # hardly ever: only where the keys were too short
                    order[to], fallen[to] = order[to - 1], fallen[to - 1]
                    to -= 1
                order[to], fallen[to] = place, score
            first = 0
            for at in range(lengths[user]):
                if at > 0 and fallen[at - 1] - fallen[at] > RELATIVE * abs(fallen[at - 1]) + ABSOLUTE * abs(fallen[0]):
                    first = at
                ranks[user, signal, order[at]] = first


def _context(states: States) -> Float32[np.ndarray, "B 3"]:
    """log length, log seconds since the last event, share of distinct items among the last 100 events."""
    histories, met = states.histories, states.meetings
    last_s = np.where(met.lengths > 0, met.last_times, np.inf)
    since = np.maximum(states.now - last_s, 0.0)
    variety = np.empty(len(histories))
    _vary(histories.items, histories.indptr, variety)
    return np.stack([np.log1p(met.lengths), np.log1p(since), variety], axis=1).astype(np.float32)


@kernel
def _vary(items, ends, out):  # type: ignore[no-untyped-def]
    for user in range(len(out)):
        recent = np.sort(items[max(ends[user], ends[user + 1] - VARIETY_OF) : ends[user + 1]])
        distinct = 0
        for at in range(len(recent)):
            distinct += at == 0 or recent[at] != recent[at - 1]
        out[user] = distinct / max(len(recent), 1)
