"""A LightGBM model as a forest of bit masks, scored by our own kernel: LightGBM's scores bit for bit, in a fraction of
the time (`python -m benchmarks.ranker`).

Exact because nothing is rounded on the way. Features are float32 and thresholds float64; x <= t holds for the same x
as x <= t', the largest float32 not above t. Leaf values are summed as float64 in the order of the trees. What the
kernel does not do (`why_not`) stays with LightGBM, and `differs` holds the two against each other before it is used.

Letters: R rows, F features, C columns (features that are split on), T trees, S splits, L leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt

from recsys.errors import InvalidInput
from recsys.forest.kernel import MASKS, Kernel, load_kernel
from recsys.forest.text import DEFAULT_LEFT, MISSING_NONE, MISSING_ZERO, Tree, TreeModel, check_model_text

__all__ = ["Forest", "TreeModel", "check_model_text", "compile_forest", "differs", "why_not"]

MOST_LEAVES = 64
_RAW_OBJECTIVES = ("", "lambdarank", "rank_xendcg", "regression")  # what these predict is the sum of leaf values
_PROBES = (512, 2_048)  # the fewest and the most rows of a self-test


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """The kernel and its arrays, which are read-only; see `kernel._score`."""

    num_features: int
    feature: Int64[np.ndarray, " C"]
    zero: Float32[np.ndarray, " C"]
    nan: Float32[np.ndarray, " C"]
    groups: Int64[np.ndarray, "T 3"]
    column: Int64[np.ndarray, " S"]
    threshold: Float32[np.ndarray, " S"]
    keep: UInt[np.ndarray, " S"]
    first_leaf: Int64[np.ndarray, " T"]
    leaf: Float64[np.ndarray, " L"]
    every: np.unsignedinteger
    run: Kernel

    def score(self, rows: Float32[np.ndarray, "R F"]) -> Float64[np.ndarray, " R"]:
        """LightGBM's raw scores. Any number of threads may call it: it lets go of the interpreter's lock, and needs
        some 30 KB besides its result."""
        if rows.ndim != 2 or rows.shape[1] != self.num_features:  # the kernel does not look
            raise InvalidInput.of("rows", rows.shape, f"the ranker reads {self.num_features} features")
        out = np.zeros(len(rows))
        self.run(
            np.ascontiguousarray(rows),
            *(self.feature, self.zero, self.nan),
            *(self.groups, self.column, self.threshold, self.keep),
            *(self.first_leaf, self.leaf, self.every),
            out,
        )
        return out


def why_not(model: TreeModel) -> str | None:
    """What a model has that the kernel does not do; None where it does all."""
    reasons = {
        "more than one tree an iteration": model.trees_per_iteration != 1,
        "an averaged output": model.average_output,
        f"the objective {model.objective!r}": model.objective not in _RAW_OBJECTIVES,
        "linear trees": any(tree.is_linear for tree in model.trees),
        "categorical splits": any(tree.is_categorical for tree in model.trees),
        f"more than {MOST_LEAVES} leaves": any(len(tree.leaf_value) > MOST_LEAVES for tree in model.trees),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def compile_forest(model: TreeModel) -> Forest:
    """The forest of a model that has nothing `why_not` names. Raises what numba raises where it cannot compile."""
    leaves = max((len(tree.leaf_value) for tree in model.trees), default=1)
    mask = next(mask for mask in MASKS if leaves <= np.iinfo(mask).bits)
    every = np.iinfo(mask).max
    columns: dict[tuple[int, int], int] = {}
    splits: list[tuple[int, np.float32, int]] = []
    groups, values = [], []
    for tree in model.trees:
        order, keep = _left_to_right(tree, every)
        missing = tree.decision >> 2
        column = [columns.setdefault(key, len(columns)) for key in zip(tree.feature, missing, strict=True)]
        own = list(zip(column, _not_above(tree.threshold), keep, strict=True))
        to_left = (tree.decision & DEFAULT_LEFT).astype(bool) | (missing == MISSING_NONE)
        bounds = [len(splits)]
        for side in (to_left, ~to_left):
            splits += [own[split] for split in np.flatnonzero(side)]
            splits += [(0, np.float32(np.inf), every)] * (len(splits) % 2)  # clears nothing; keeps numbers even
            bounds.append(len(splits))
        groups.append(bounds)
        values.append(tree.leaf_value[order])
    kinds = [missing for _, missing in columns]
    return Forest(
        num_features=model.num_features,
        feature=_frozen([feature for feature, _ in columns], np.int64),
        zero=_frozen([np.nan if kind == MISSING_ZERO else 0 for kind in kinds], np.float32),
        nan=_frozen([0 if kind == MISSING_NONE else np.nan for kind in kinds], np.float32),
        groups=_frozen(np.reshape(groups, (-1, 3)), np.int64),
        column=_frozen([column for column, _, _ in splits], np.int64),
        threshold=_frozen([threshold for _, threshold, _ in splits], np.float32),
        keep=_frozen([keep for _, _, keep in splits], mask),
        first_leaf=_frozen(np.cumsum([0, *map(len, values)])[:-1], np.int64),
        leaf=_frozen(np.concatenate([np.zeros(0), *values]), np.float64),
        every=mask(every),
        run=load_kernel(mask),
    )


def differs(forest: Forest, model: TreeModel, predict: Callable[[np.ndarray], np.ndarray]) -> str | None:
    """The self-test: None where the kernel gives the bits of `predict` on rows round the model's own thresholds."""
    rows = _probes(model, np.random.default_rng(0))
    ours, theirs = forest.score(rows), np.asarray(predict(rows), np.float64)
    unequal = np.flatnonzero(ours.view(np.int64) != theirs.view(np.int64))
    if len(unequal) == 0:
        return None
    row = unequal[0]
    return f"{len(unequal)} of {len(rows)} scores differ: {ours[row]!r} is {theirs[row]!r} by LightGBM"


def _left_to_right(tree: Tree, every: int) -> tuple[list[int], list[int]]:
    """Leaves from left to right, and for each split the bits of all leaves but those on its left."""
    keep = [0] * len(tree.left)
    order: list[int] = []
    opened: list[tuple[int, int]] = []  # splits whose left side is being walked, and the first leaf there
    ahead: list[int | None] = [0 if keep else ~0]  # None: the left side of the split opened last is done
    while ahead:
        node = ahead.pop()
        if node is None:
            split, first = opened.pop()
            keep[split] = every & ~((1 << len(order)) - (1 << first))
        elif node < 0:
            order.append(~node)
        else:
            opened.append((node, len(order)))
            ahead += [int(tree.right[node]), None, int(tree.left[node])]
    return order, keep


def _not_above(thresholds: Float64[np.ndarray, " S"]) -> Float32[np.ndarray, " S"]:
    """The largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _probes(model: TreeModel, rng: np.random.Generator) -> Float32[np.ndarray, "R F"]:
    """Rows that lie on the model's thresholds, next to them, and on every value that is a case of its own."""
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    odd = np.array([0, -0.0, np.nan, np.inf, -np.inf, tiny, -tiny, huge, -huge, 1e-35, -1e-35, 2e-35, -2e-35])
    pools = [odd.astype(np.float32)] * model.num_features
    features = np.concatenate([np.zeros(0, np.int64), *(tree.feature for tree in model.trees)])
    thresholds = _not_above(np.concatenate([np.zeros(0), *(tree.threshold for tree in model.trees)]))
    for feature in np.unique(features):
        at = np.unique(thresholds[features == feature])
        beside = [np.nextafter(at, np.float32(side)) for side in (-np.inf, np.inf)]
        pools[feature] = np.concatenate([at, at, *beside, odd.astype(np.float32)])
    fewest, most = _PROBES
    count = min(max(fewest, *map(len, pools)), most)
    columns = [rng.permuted(np.resize(rng.permutation(pool), count)) for pool in pools]
    return np.ascontiguousarray(np.stack(columns, axis=1))


def _frozen(values: object, dtype: type[np.generic]) -> np.ndarray:
    out = np.ascontiguousarray(values, dtype)
    out.flags.writeable = False
    return out
