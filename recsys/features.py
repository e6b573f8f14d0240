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


def build_features(
    signals: Sequence[Signal],
    states: States,
    candidates: Int32[np.ndarray, "B K"],
    scores: Float32[np.ndarray, "B K S"],
    met: Bool[np.ndarray, " N"],
) -> Float32[np.ndarray, "B K F"]:
    """The ranker's rows; rows of padding candidates (-1) are to be left out. `met`: which items anybody had met at the
    fit; the others, and those that came since, are cold."""
    absolute = np.array([s.absolute for s in signals], bool)
    proposes = np.array([s.proposes > 0 for s in signals], bool)
    places = competition_rank(scores.transpose(0, 2, 1), (candidates >= 0)[:, None])
    out = np.empty((*candidates.shape, len(feature_names(signals))), np.float32)
    facts = (places, _context(states), np.ascontiguousarray(met))
    _fill(absolute, proposes, np.ascontiguousarray(candidates), np.ascontiguousarray(scores), *facts, out)
    return out


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
    table = np.ascontiguousarray(scores).reshape(shape)
    kept = np.ascontiguousarray(np.broadcast_to(valid, scores.shape)).reshape(shape)
    keys = np.empty(table.shape, np.uint64)
    _pack(table.view(np.uint32), kept, keys)
    keys.sort(axis=-1)  # of whole numbers, which NumPy sorts many at a time
    ranks = np.zeros(table.shape, np.float32)
    _count(keys, table, kept, ranks)
    return ranks.reshape(scores.shape)


@kernel
def _pack(bits, kept, keys):  # type: ignore[no-untyped-def]  # compiled: Numba finds the types
    """The score, falling, above its place in one number; what is not valid stands last."""
    for row in range(bits.shape[0]):
        for place in range(bits.shape[1]):
            score = bits[row, place]
            falling = score if score >> np.uint32(31) else ~(score | np.uint32(1 << 31)) & np.uint32(0xFFFFFFFF)
            if not kept[row, place]:
                falling = np.uint32(0xFFFFFFFF)
            keys[row, place] = np.uint64(falling) << np.uint64(32) | np.uint64(place)


@kernel
def _count(keys, scores, kept, ranks):  # type: ignore[no-untyped-def]
    for row in range(keys.shape[0]):
        first, last, best = 0, np.float32(0), np.float32(0)
        for at in range(keys.shape[1]):
            place = keys[row, at] & np.uint64(0xFFFFFFFF)
            if not kept[row, place]:
                break
            score = scores[row, place]
            if at == 0:
                best = abs(score)
            elif last - score > RELATIVE * abs(last) + ABSOLUTE * best:
                first = at
            ranks[row, place] = first
            last = score


def _context(states: States) -> Float32[np.ndarray, "B 3"]:
    """log length, log seconds since the last event, share of distinct items among the last 100 events."""
    histories, met = states.histories, states.meetings
    last_s = np.where(met.lengths > 0, met.last_times, np.inf)
    since = np.maximum(states.now - last_s, 0.0)
    recent = histories.last(100)
    width = int(recent.items.max(initial=0)) + 1
    pairs = np.unique(recent.users.astype(np.int64) * width + recent.items)
    distinct = np.bincount(pairs // width, minlength=len(histories))
    variety = distinct / np.maximum(recent.lengths, 1)
    return np.stack([np.log1p(met.lengths), np.log1p(since), variety], axis=1).astype(np.float32)
