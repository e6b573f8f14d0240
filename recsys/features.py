"""From matcher scores and context to the ranker's rows. One ordered list of names, one function, to train and to serve.

A relative signal is seen as its share of the best candidate's (`_norm`), as its place among the candidates (`_rank`)
and as it is (`_value`), which tells how sure the matcher is: without it NDCG@10 on Amazon Beauty's validation is 1.9 %
lower. An absolute one is seen as it is and as its place. Places count strictly better candidates, so ties share a place
and no order of rows or ids can leak into a feature; what differs by rounding only is a tie.

Letters: B users, K candidates, S signals of all matchers together, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32

from recsys.match import Reading, Signal, States

CONTEXT = ("context_length", "context_gap", "context_variety", "context_found_by", "context_cold")
RELATIVE, ABSOLUTE = 1e-5, 1e-7
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
    num_fitted: int,
) -> Float32[np.ndarray, "B K F"]:
    """The ranker's rows; rows of padding candidates (-1) are to be left out. `num_fitted`: items known at the fit."""
    valid = candidates >= 0
    absolute = np.array([s.absolute for s in signals])
    best = np.where(valid[..., None], scores, 0.0).max(axis=1, keepdims=True, initial=0.0)
    values = np.where(absolute, scores, scores / np.maximum(best, 1e-9))
    places = competition_rank(scores.transpose(0, 2, 1), valid[:, None]).transpose(0, 2, 1)
    found = [s.proposes > 0 for s in signals]
    found_by = ((scores > 0) & (places < 50))[..., found].sum(axis=-1)
    context = np.broadcast_to(_context(states)[:, None], (*candidates.shape, 3))
    cold = candidates >= num_fitted
    raw = scores[..., ~absolute]
    parts = [values, places, raw, context, found_by[..., None], cold[..., None]]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def competition_rank(
    scores: Float32[np.ndarray, "*rows K"], valid: Bool[np.ndarray, "*#rows K"]
) -> Float32[np.ndarray, "*rows K"]:
    """How many valid candidates of the row score strictly higher, by more than the rounding of a sum."""
    masked = np.where(valid, scores, scores.min(initial=0.0))
    order = np.argsort(-masked, axis=-1)
    ordered = np.take_along_axis(masked, order, axis=-1)
    rounding = RELATIVE * np.abs(ordered[..., :-1]) + ABSOLUTE * np.abs(ordered[..., :1])
    fresh = np.ones(ordered.shape, bool)
    fresh[..., 1:] = ordered[..., :-1] - ordered[..., 1:] > rounding
    first = np.maximum.accumulate(np.where(fresh, np.arange(ordered.shape[-1], dtype=np.int32), 0), axis=-1)
    ranks = np.empty(first.shape, np.float32)
    np.put_along_axis(ranks, order, first, axis=-1)
    return ranks


def _context(states: States) -> Float32[np.ndarray, "B 3"]:
    """log length, log seconds since the last event, share of distinct items among the last 100 events."""
    histories = states.histories
    last_s = np.where(histories.lengths > 0, histories.last_times, np.inf)
    since = np.maximum(states.now - last_s, 0.0)
    recent = histories.last(100)
    pairs = np.unique(np.stack([recent.users, recent.items]), axis=1)
    distinct = np.bincount(pairs[0], minlength=len(histories))
    variety = distinct / np.maximum(recent.lengths, 1)
    return np.stack([np.log1p(histories.lengths), np.log1p(since), variety], axis=1).astype(np.float32)
