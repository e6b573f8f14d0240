"""The ranker: LightGBM LambdaMART over FEATURES (Burges 2010, "From RankNet to LambdaRank to LambdaMART").

LightGBM trains and explains. Scores come from `recsys.forest`, bit for bit the same, where it can serve the model; else
from LightGBM, and `Ranker.kernel` and `Ranker.reason` say so.

A damaged model file kills the process inside LightGBM's parser instead of raising, so every text is checked first.

Letters: R rows, F features, Q queries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from recsys import _native  # noqa: F401
from recsys.errors import DamagedSnapshot, InvalidInput, MixedSnapshot
from recsys.forest import Forest, TreeModel, check_model_text, compile_forest, differs, why_not

import lightgbm as lgb  # isort: skip  (after torch, which `_native` imports)

LightGBMError = lgb.basic.LightGBMError
_log = logging.getLogger("recsys.rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerConfig:
    """Small trees with strong regularisation: on ML-1M about 120 trees of 15 leaves were best on validation."""

    max_trees: int = 600
    learning_rate: float = 0.05
    num_leaves: int = 15
    min_data_in_leaf: int = 100
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.8
    lambda_l2: float = 5.0
    truncation_level: int = 20
    patience: int = 40
    num_threads: int = 2
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Rows of Q queries one after the other; `sizes` rows each; labels 1 for what the user did next."""

    features: Float32[np.ndarray, "R F"]
    labels: Float32[np.ndarray, " R"]
    sizes: Int64[np.ndarray, " Q"]

    def with_positive(self) -> Examples:
        """Only the queries whose candidates hold what happened: the others teach a ranker nothing."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        hit = np.add.reduceat(self.labels, starts[:-1]) > 0 if len(self.sizes) else np.zeros(0, bool)
        rows = np.repeat(hit, self.sizes)
        return Examples(features=self.features[rows], labels=self.labels[rows], sizes=self.sizes[hit])


@dataclass(frozen=True, slots=True)
class Ranker:
    """A trained booster and the names of its columns, in order; `forest` where the kernel scores for it, else `reason`
    says why LightGBM does."""

    booster: lgb.Booster
    features: tuple[str, ...]
    forest: Forest | None = None
    reason: str = "the kernel was not asked for"

    @property
    def kernel(self) -> Literal["quickscorer", "lightgbm"]:
        """What computes the scores."""
        return "lightgbm" if self.forest is None else "quickscorer"

    def score(self, rows: Float32[np.ndarray, "R F"]) -> Float64[np.ndarray, " R"]:
        """Scores that order candidates; their differences mean something within one request only."""
        if len(rows) == 0:
            return np.zeros(0)
        if self.forest is not None:
            return self.forest.score(rows)
        return _predict(self.booster, rows)

    def explain(self, rows: Float32[np.ndarray, "R F"]) -> Float64[np.ndarray, "R F+1"]:
        """Shapley contributions by feature, the base score last; each row sums to its score.

        Costs about a thousand predictions (Lundberg et al. 2020, TreeSHAP): never on the ranking path.
        """
        if len(rows) == 0:
            return np.zeros((0, len(self.features) + 1))
        return np.asarray(self.booster.predict(rows, pred_contrib=True, num_threads=1), np.float64)

    def importance(self) -> dict[str, float]:
        """Total gain by feature, largest first."""
        gains = self.booster.feature_importance("gain")
        return dict(sorted(zip(self.features, map(float, gains), strict=True), key=lambda pair: -pair[1]))

    def to_text(self) -> str:
        return str(self.booster.model_to_string())

    @classmethod
    def from_text(cls, text: str, features: Sequence[str]) -> Ranker:
        """What `to_text` wrote. Raises MixedSnapshot where it was trained on other features, or in another order, and
        DamagedSnapshot where LightGBM must not read it."""
        model = check_model_text(text)
        try:
            booster = lgb.Booster(model_str=text)
        except (LightGBMError, ValueError) as error:  # a ValueError: its parameters are read as JSON
            raise DamagedSnapshot(f"the ranker's text is damaged: {error}") from error
        trained = booster.feature_name()
        if trained != list(features):
            strange = sorted(set(trained) ^ set(features)) or "the same in another order"
            raise MixedSnapshot(f"the ranker has {len(trained)} features, its snapshot {len(features)}: {strange}")
        forest, reason = _forest(model, booster)
        return cls(booster, tuple(features), forest, reason)


def _forest(model: TreeModel, booster: lgb.Booster) -> tuple[Forest | None, str]:
    """The forest that scores as `booster` does in every bit, or None and why there is none."""
    reason = why_not(model)
    if reason is None:
        try:
            forest = compile_forest(model)
            reason = differs(forest, model, lambda rows: _predict(booster, rows))
        except Exception as error:  # noqa: BLE001 - a kernel that cannot be had is no reason not to serve
            _log.warning("the kernel cannot be compiled", exc_info=True)
            reason = f"the kernel cannot be compiled: {type(error).__name__}"
    if reason is None:
        return forest, ""
    _log.warning("scores come from LightGBM: %s", reason)
    return None, reason


def _predict(booster: lgb.Booster, rows: Float32[np.ndarray, "R F"]) -> Float64[np.ndarray, " R"]:
    return np.asarray(booster.predict(rows, num_threads=1), np.float64)


def fit_ranker(
    features: Sequence[str],
    train: Examples,
    validation: Examples,
    config: RankerConfig | None = None,
    on_tree: Callable[[int, int], None] | None = None,
) -> Ranker:
    """Train on `train`, stop where NDCG@10 on `validation` is best. `on_tree(done, most)` reports progress."""
    config = config or RankerConfig()
    train, validation = train.with_positive(), validation.with_positive()
    for name, examples in (("train", train), ("validation", validation)):
        if len(examples.sizes) == 0:
            raise InvalidInput.of(name, 0, "no query has its target among the candidates; more events are needed")
    data = lgb.Dataset(train.features, train.labels, group=train.sizes, feature_name=list(features))
    held = lgb.Dataset(validation.features, validation.labels, group=validation.sizes, reference=data)
    callbacks: list[Any] = [lgb.early_stopping(config.patience, verbose=False)]
    if on_tree:
        callbacks.append(lambda env: on_tree(env.iteration + 1, config.max_trees))
    booster = lgb.train(_parameters(config), data, config.max_trees, valid_sets=[held], callbacks=callbacks)
    return Ranker.from_text(booster.model_to_string(num_iteration=booster.best_iteration), features)


def _parameters(config: RankerConfig) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "learning_rate": config.learning_rate,
        "num_leaves": config.num_leaves,
        "min_data_in_leaf": config.min_data_in_leaf,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": config.lambda_l2,
        "lambdarank_truncation_level": config.truncation_level,
        "num_threads": config.num_threads,
        "seed": config.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
