"""LightGBM's text format, read strictly.

LightGBM's own parser trusts its text: a line without `=`, or an array shorter than the tree, is read past its end, and
a child that points nowhere is followed at the first prediction; a number out of range is an exception that nobody
catches. Each kills the process. So every part that its parser or its predictor relies on is checked here first
(LightGBM 4: `src/io/tree.cpp`, `src/boosting/gbdt_model_text.cpp`).

Letters: L leaves of a tree, S = L - 1 splits.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from recsys.errors import DamagedSnapshot, shorten

CATEGORICAL, DEFAULT_LEFT = 1, 2
"""Bits of a split's `decision`; the two bits above them say what is missing: 0 nothing, 1 zero and NaN, 2 NaN."""
MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2

_SPLIT_FIELDS = ("split_gain", "internal_value", "internal_weight", "internal_count")
_LEAF_FIELDS = ("leaf_weight", "leaf_count")
_INT, _FLOAT = r"-?[0-9]+", r"-?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]{1,3})?|inf|nan)"
_INFO = rf"(?:none|\[{_FLOAT}:{_FLOAT}\]|{_INT}(?::{_INT})*)"
_INFOS = re.compile(f"{_INFO}(?: {_INFO})*")
_END = re.compile(
    r"end of trees\n\s*feature_importances:\n(?:[^\n]+=[0-9]+\n)*\n*"
    r"(?:parameters:\n(?:\[\w+: [^\n]*\]\n)*\n*end of parameters\n)?"
    r"\n*pandas_categorical:(?P<categories>[^\n]*)\n*"
)
_INTS, _FLOATS = (re.compile(f"{number}(?: {number})*") for number in (_INT, _FLOAT))


@dataclass(frozen=True, slots=True)
class Tree:
    """Splits and leaves. `left` and `right`: a split's index, or ~leaf. `<= threshold` goes left."""

    feature: Int64[np.ndarray, " S"]
    threshold: Float64[np.ndarray, " S"]
    decision: Int64[np.ndarray, " S"]
    left: Int64[np.ndarray, " S"]
    right: Int64[np.ndarray, " S"]
    leaf_value: Float64[np.ndarray, " L"]
    is_linear: bool = False

    @property
    def is_categorical(self) -> bool:
        return bool((self.decision & CATEGORICAL).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeModel:
    """What a prediction depends on. `objective` is the whole line, empty where the model was trained by a function."""

    num_features: int
    objective: str
    trees_per_iteration: int
    average_output: bool
    trees: tuple[Tree, ...]


def check_model_text(text: str) -> TreeModel:
    """The model in `text`, or DamagedSnapshot that names the tree and the field that cannot be so."""
    if "\0" in text or "\r" in text or not text.startswith("tree\n"):
        raise _damage("header", text[:40])
    first = text.find("\nTree=") + 1 or text.find("\nend of trees") + 1
    if first == 0:
        raise _damage("trees", "none, and no end")
    header = _header(text[:first])
    num_features = _one(header, "max_feature_idx", "header") + 1
    if num_features < 1:
        raise _damage("header: max_feature_idx", num_features - 1)
    for name in ("feature_names", "feature_infos"):
        if len(_value(header, name, "header").split(" ")) != num_features:
            raise _damage(f"header: {name}", f"not {num_features} of them")
    infos = header["feature_infos"]
    if not _INFOS.fullmatch(infos) or not all(map(_is_in_range, re.findall(_FLOAT, infos.replace("none", "")))):
        raise _damage("header: feature_infos", shorten(header["feature_infos"]))
    _one(header, "label_index", "header")
    per_iteration = _one(header, "num_tree_per_iteration", "header")
    if per_iteration < 1 or _one(header, "num_class", "header") < 1:
        raise _damage("header: num_tree_per_iteration", per_iteration)
    trees = _trees(text, first, _ints(header, "tree_sizes", "header", None), num_features)
    if len(trees) % per_iteration:
        raise _damage("tree_sizes", f"{len(trees)} trees, {per_iteration} an iteration")
    return TreeModel(
        num_features=num_features,
        objective=header.get("objective", ""),
        trees_per_iteration=per_iteration,
        average_output="average_output" in header,
        trees=trees,
    )


def _header(text: str) -> dict[str, str]:
    """Its lines by key; a line without `=` is a flag."""
    lines = [line.partition("=") for line in text.splitlines() if line]
    header = {key: value for key, _, value in lines}
    if len(header) != len(lines):
        raise _damage("header", "a key stands twice")
    return header


def _trees(text: str, start: int, sizes: list[int], num_features: int) -> tuple[Tree, ...]:
    trees = []
    for number, size in enumerate(sizes):
        block, start = text[start : start + max(size, 0)], start + max(size, 0)
        title, body = f"Tree={number}\n", f"tree {number}"
        if not (block.startswith(title) and block.endswith("\n\n") and block.isascii()):
            raise _damage("tree_sizes", f"tree {number} is not {size} bytes long")
        lines, _, rest = block[len(title) :].partition("\n\n")
        if rest.strip("\n"):
            raise _damage(body, "an empty line within")
        trees.append(_tree(lines.split("\n"), body, num_features))
    _check_end(text[start:])
    return tuple(trees)


def _check_end(text: str) -> None:
    """After the trees: importances, parameters, and a line of JSON. No prediction needs them, LightGBM reads them."""
    found = _END.fullmatch(text)
    if not found:
        raise _damage("after the trees", shorten(text[-40:]))
    try:
        json.loads(found["categories"])
    except ValueError as error:
        raise _damage("pandas_categorical", shorten(found["categories"])) from error


def _tree(lines: list[str], where: str, num_features: int) -> Tree:
    pairs = [line.partition("=") for line in lines]
    fields = {key: value for key, equals, value in pairs if equals}
    if len(fields) != len(lines):
        raise _damage(where, "a line without '=', or a key that stands twice")
    leaves, categories = _one(fields, "num_leaves", where), _one(fields, "num_cat", where)
    splits = leaves - 1
    if splits < 0 or categories < 0:
        raise _damage(where, f"{leaves} leaves, {categories} categorical splits")
    values = _floats(fields, "leaf_value", where, leaves)
    if not np.isfinite(values).all():
        raise _damage(f"{where}: leaf_value", "not finite")
    if "shrinkage" in fields:
        _floats(fields, "shrinkage", where, 1)
    is_linear = _is_linear(fields, where, leaves, num_features)
    if splits == 0:
        none = np.zeros(0, np.int64)
        return Tree(none, np.zeros(0), none, none, none, values, is_linear)
    for name, count in [(name, splits) for name in _SPLIT_FIELDS] + [(name, leaves) for name in _LEAF_FIELDS]:
        if name in fields:
            _floats(fields, name, where, count)
    whole = {
        name: np.array(_ints(fields, name, where, splits), np.int64)
        for name in ("split_feature", "decision_type", "left_child", "right_child")
    }
    tree = Tree(
        feature=whole["split_feature"],
        threshold=_floats(fields, "threshold", where, splits),
        decision=whole["decision_type"],
        left=whole["left_child"],
        right=whole["right_child"],
        leaf_value=values,
        is_linear=is_linear,
    )
    _check_splits(tree, where, num_features)
    _check_categories(fields, tree, where, categories)
    _check_shape(tree, where)
    return tree


def _check_splits(tree: Tree, where: str, num_features: int) -> None:
    if tree.feature.min() < 0 or tree.feature.max() >= num_features:
        raise _damage(f"{where}: split_feature", f"{tree.feature.min()} to {tree.feature.max()} of {num_features}")
    if tree.decision.min() < 0 or tree.decision.max() >> 2 > MISSING_NAN:
        raise _damage(f"{where}: decision_type", f"{tree.decision.min()} to {tree.decision.max()}")
    if np.isnan(tree.threshold).any():
        raise _damage(f"{where}: threshold", "NaN")


def _check_shape(tree: Tree, where: str) -> None:
    """Every split but the root, and every leaf, is the child of one split, and all are reached from the root."""
    splits = len(tree.left)
    children = np.concatenate([tree.left, tree.right])
    wanted = np.concatenate([np.arange(~splits, 0), np.arange(1, splits)])
    if not np.array_equal(np.sort(children), wanted):
        raise _damage(f"{where}: children", "a split or a leaf is not the child of one split")
    reached, ahead = 0, [0]
    while ahead:
        reached += 1
        node = ahead.pop()
        ahead += [int(child) for child in (tree.left[node], tree.right[node]) if child >= 0]
    if reached != splits:
        raise _damage(f"{where}: children", f"{splits - reached} splits cannot be reached")


def _check_categories(fields: Mapping[str, str], tree: Tree, where: str, count: int) -> None:
    """The threshold of a categorical split names a slice of `cat_threshold`."""
    chosen = tree.threshold[(tree.decision & CATEGORICAL).astype(bool)]
    if not np.isin(chosen, np.arange(count)).all():
        raise _damage(f"{where}: threshold", f"a categorical split beyond {count}")
    if count:
        bounds = _ints(fields, "cat_boundaries", where, count + 1)
        if bounds[0] != 0 or any(after < before for before, after in pairwise(bounds)):
            raise _damage(f"{where}: cat_boundaries", bounds)
        _ints(fields, "cat_threshold", where, bounds[-1], bits=32)


def _is_linear(fields: Mapping[str, str], where: str, leaves: int, num_features: int) -> bool:
    """Whether leaves hold linear models. Each leaf's slice is followed by one blank more, so blanks do not count."""
    if fields.get("is_linear", "0") == "0":
        return False
    _floats(fields, "leaf_const", where, leaves)
    sizes = _ints(fields, "num_features", where, leaves)
    total = sum(sizes)
    packed = {name: " ".join(_value(fields, name, where).split()) for name in ("leaf_features", "leaf_coeff")}
    used = _ints(packed, "leaf_features", where, total)
    _floats(packed, "leaf_coeff", where, total)
    if min(sizes) < 0 or not all(0 <= feature < num_features for feature in used):
        raise _damage(f"{where}: leaf_features", shorten(used))
    return True


def _value(fields: Mapping[str, str], name: str, where: str) -> str:
    if name not in fields:
        raise _damage(f"{where}: {name}", "missing")
    return fields[name]


def _tokens(fields: Mapping[str, str], name: str, where: str, pattern: re.Pattern[str], count: int | None) -> list[str]:
    """The numbers of one line as they are written, `count` of them where that is known."""
    line = _value(fields, name, where)
    if line and not pattern.fullmatch(line):
        raise _damage(f"{where}: {name}", shorten(line))
    tokens = line.split(" ") if line else []
    if count not in (None, len(tokens)):
        raise _damage(f"{where}: {name}", f"{len(tokens)} numbers, not {count}")
    return tokens


def _ints(fields: Mapping[str, str], name: str, where: str, count: int | None, *, bits: int = 31) -> list[int]:
    numbers = [int(token) for token in _tokens(fields, name, where, _INTS, count)]
    if any(abs(number) >> bits for number in numbers):
        raise _damage(f"{where}: {name}", f"a number beyond {bits} bits")
    return numbers


def _floats(fields: Mapping[str, str], name: str, where: str, count: int) -> Float64[np.ndarray, " _"]:
    tokens = _tokens(fields, name, where, _FLOATS, count)
    numbers = np.array([float(token) for token in tokens], np.float64)
    if any(np.isinf(number) and "inf" not in token for number, token in zip(numbers, tokens, strict=True)):
        raise _damage(f"{where}: {name}", "a number too large for a float64")
    return numbers


def _one(fields: Mapping[str, str], name: str, where: str) -> int:
    return _ints(fields, name, where, 1)[0]


def _is_in_range(token: str) -> bool:
    """Whether C++'s `stod` takes it: no overflow, and no underflow, which a zero is not."""
    number, digits = abs(float(token)), token.partition("e")[0]
    return "inf" in token or (
        number <= sys.float_info.max and (number >= sys.float_info.min or not digits.strip("-0."))
    )


def _damage(where: str, what: object) -> DamagedSnapshot:
    return DamagedSnapshot(f"the ranker's text is damaged: {where}: {what}")
