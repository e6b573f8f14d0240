"""The kernel gives LightGBM's bits or does not run; text that LightGBM must not read never reaches it."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys.rank
from recsys.errors import DamagedSnapshot, InvalidInput
from recsys.forest import Forest, check_model_text, compile_forest, differs, why_not
from recsys.forest import kernel as kernels
from recsys.rank import LightGBMError, Ranker

import lightgbm as lgb  # isort: skip  (after torch, which `recsys.rank` imports)

GROUP = 20
QUIET = {"verbose": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True, "min_data_in_leaf": 1}


def table(rng: np.random.Generator, rows: int = 400, features: int = 6) -> np.ndarray:
    """Columns of every kind: plain, with NaN, with zeros, of few values, round the smallest numbers, constant."""
    out = rng.standard_normal((rows, features)).astype(np.float32)
    out[rng.random(rows) < 0.3, 1] = np.nan
    out[rng.random(rows) < 0.4, 2] = 0
    out[:, 3] = rng.integers(-2, 3, rows)
    out[:, 4] = rng.choice(np.array([0, 1e-36, -1e-36, 3e-35, -3e-35, 1e-30], np.float32), rows)
    out[:, 5] = 7
    return out


def train(seed: int = 0, num_trees: int = 8, *, rows: np.ndarray | None = None, **options: Any) -> str:
    """The text of a model that fits noise: its trees use all of their leaves."""
    rng = np.random.default_rng(seed)
    rows = table(rng) if rows is None else rows
    labels = rng.integers(0, 2, len(rows)).astype(np.float32)
    parameters = (
        QUIET
        | {"objective": "lambdarank", "seed": seed}
        | {name: value for name, value in options.items() if name != "categorical_feature"}
    )
    group = np.full(len(rows) // GROUP, GROUP) if parameters["objective"] == "lambdarank" else None
    categories = options.pop("categorical_feature", "auto")
    binning = {"verbose": -1, "min_data_in_bin": 1} | options
    data = lgb.Dataset(rows, labels, group=group, params=binning, categorical_feature=categories)
    return str(lgb.train(parameters, data, num_trees).model_to_string())


def resized(text: str) -> str:
    """`text` with the sizes that its trees have now."""
    body = text[text.index("\nTree=") + 1 : text.index("end of trees")]
    sizes = " ".join(str(len(tree)) for tree in re.split(r"(?=^Tree=)", body, flags=re.MULTILINE)[1:])
    return re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", text, count=1, flags=re.MULTILINE)


def ranker_of(text: str) -> Ranker:
    return Ranker.from_text(text, lgb.Booster(model_str=text).feature_name())


def by_lightgbm(ranker: Ranker, rows: np.ndarray) -> np.ndarray:
    return np.asarray(ranker.booster.predict(rows, num_threads=1), np.float64)


def assert_same_bits(ranker: Ranker, rows: np.ndarray) -> None:
    assert (ranker.kernel, ranker.reason) == ("quickscorer", "")
    np.testing.assert_array_equal(ranker.score(rows).view(np.int64), by_lightgbm(ranker, rows).view(np.int64))


@pytest.fixture(scope="module")
def text() -> str:
    return train(num_leaves=15)


@pytest.fixture(scope="module")
def ranker(text: str) -> Ranker:
    return ranker_of(text)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return table(np.random.default_rng(9), 700)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    num_leaves=st.integers(2, 64),
    num_trees=st.integers(1, 10),
    objective=st.sampled_from(["lambdarank", "regression"]),
    missing=st.sampled_from([{}, {"zero_as_missing": True}, {"use_missing": False}]),
    extra_trees=st.booleans(),
)
def test_bits_are_those_of_lightgbm(
    seed: int, num_leaves: int, num_trees: int, objective: str, missing: dict[str, bool], extra_trees: bool
) -> None:
    text = train(seed, num_trees, num_leaves=num_leaves, objective=objective, extra_trees=extra_trees, **missing)
    assert_same_bits(ranker_of(text), table(np.random.default_rng(seed + 1), 300))


@pytest.mark.parametrize("decision", [0, 2, 4, 6, 8, 10])
def test_every_way_of_missing(text: str, decision: int) -> None:
    """Nothing, zero or NaN is missing, and goes right or left."""
    lines = [
        re.sub(r"\d+", str(decision), line) if line.startswith("decision_type=") else line for line in text.split("\n")
    ]
    changed = ranker_of(resized("\n".join(lines)))
    odd = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e-35, -1e-35, 1e-36, 2e-35, 1e-45], np.float32)
    assert_same_bits(changed, np.random.default_rng(0).choice(odd, (500, 6)))


def test_a_threshold_of_infinity_parts_nan_from_the_rest() -> None:
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((400, 1)) < 0.3, np.nan, 1).astype(np.float32)
    rows = np.concatenate([rows, rng.standard_normal((400, 1)).astype(np.float32)], axis=1)
    data = lgb.Dataset(rows, np.isnan(rows[:, 0]).astype(np.float32), params={"verbose": -1})
    text = str(lgb.train(QUIET | {"objective": "regression", "num_leaves": 4}, data, 3).model_to_string())
    text = resized(re.sub(r"(?m)^threshold=\S+", "threshold=inf", text))
    asked = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, 0], [3e38, np.nan], [0, np.inf]], np.float32)
    assert_same_bits(ranker_of(text), asked)


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 127, 128, 129, 256, 300])
def test_blocks_end_anywhere(ranker: Ranker, rows: np.ndarray, count: int) -> None:
    assert_same_bits(ranker, rows[:count])


def test_trees_without_a_split() -> None:
    rng = np.random.default_rng(0)
    labels = np.eye(1, 40, dtype=np.float32).ravel()
    data = lgb.Dataset(rng.standard_normal((40, 2)).astype(np.float32), labels, group=[40])
    text = str(lgb.train(QUIET | {"objective": "lambdarank", "min_data_in_leaf": 30}, data, 2).model_to_string())
    assert "num_leaves=1\n" in text
    assert_same_bits(ranker_of(text), rng.standard_normal((5, 2)).astype(np.float32))


def test_rows_in_any_layout_and_in_many_threads(ranker: Ranker, rows: np.ndarray) -> None:
    wanted = by_lightgbm(ranker, rows)
    locked = rows.copy()
    locked.flags.writeable = False
    for same in (np.asfortranarray(rows), locked, np.repeat(rows, 2, axis=0)[::2]):
        np.testing.assert_array_equal(ranker.score(same), wanted)
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(lambda _: ranker.score(rows), range(40)):
            np.testing.assert_array_equal(scores, wanted)


@pytest.mark.unshaped
def test_rows_the_kernel_cannot_read_are_refused(ranker: Ranker, rows: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="6 features"):
        ranker.score(rows[:, :5])
    with pytest.raises(TypeError):
        ranker.score(rows.astype(np.float64))


# --- what falls back -------------------------------------------------------------------------------------------------

FALLS_BACK: list[tuple[str, dict[str, Any]]] = [
    ("64 leaves", {"num_leaves": 65}),
    ("objective 'binary", {"objective": "binary"}),
    ("categorical", {"objective": "regression", "categorical_feature": [3], "max_cat_to_onehot": 1}),
    ("linear", {"objective": "regression", "linear_tree": True, "lambda_l2": 1.0}),
    ("averaged", {"boosting": "rf", "objective": "regression", "bagging_freq": 1, "bagging_fraction": 0.5}),
    ("one tree an iteration", {"objective": "multiclass", "num_class": 2}),
]


@pytest.mark.parametrize(("reason", "options"), FALLS_BACK)
def test_what_the_kernel_does_not_do_stays_with_lightgbm(
    reason: str, options: dict[str, Any], rows: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    ranker = ranker_of(train(3, **options))
    assert ranker.kernel == "lightgbm"
    assert reason in ranker.reason
    assert ranker.reason in caplog.text
    if "num_class" not in options:
        np.testing.assert_array_equal(ranker.score(rows), by_lightgbm(ranker, rows))


def _raise(model: object) -> Forest:
    raise OSError("no compiler")


def _one_bit_off(model: Any) -> Forest:
    forest = compile_forest(model)
    return replace(forest, leaf=np.nextafter(forest.leaf, np.inf))


@pytest.mark.parametrize(
    ("broken", "reason"), [(_raise, "cannot be compiled: OSError"), (_one_bit_off, "scores differ")]
)
def test_a_broken_kernel_never_serves(
    broken: Callable[[object], Forest], reason: str, text: str, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recsys.rank, "compile_forest", broken)
    ranker = ranker_of(text)
    assert ranker.kernel == "lightgbm"
    assert reason in ranker.reason
    np.testing.assert_array_equal(ranker.score(rows), by_lightgbm(ranker, rows))


def test_the_self_test_sees_every_threshold_and_leaf(text: str, ranker: Ranker) -> None:
    """One threshold moved to its neighbour, one leaf by its last bit, or one mask wrong: in most cases it is seen.

    A split that no probe reaches, or whose sides are equal, cannot be seen by anybody.
    """
    model = check_model_text(text)
    forest = ranker.forest
    assert forest is not None

    def seen(name: str, change: Callable[[np.ndarray], np.ndarray]) -> float:
        values = getattr(forest, name)
        found = []
        for place in range(0, len(values), 5):
            changed = values.copy()
            changed[place : place + 1] = change(changed[place : place + 1])
            if not np.array_equal(changed, values):
                found.append(differs(replace(forest, **{name: changed}), model, lambda rows: by_lightgbm(ranker, rows)))
        return float(np.mean([text is not None for text in found]))

    assert differs(forest, model, lambda rows: by_lightgbm(ranker, rows)) is None
    assert seen("leaf", lambda leaf: np.nextafter(leaf, np.inf)) > 0.9
    assert seen("keep", lambda keep: keep ^ keep) > 0.7
    assert seen("threshold", lambda at: np.nextafter(at, np.float32(np.inf))) > 0.4


# --- machine code between runs ---------------------------------------------------------------------------------------


def _fresh() -> Callable[..., None]:
    return kernels.load_kernel.__wrapped__(np.uint16)


def test_machine_code_is_kept_and_a_damaged_cache_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, ranker: Ranker, rows: np.ndarray
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _fresh()
    kept = sorted(path for path in kernels.kernel_cache_folder().rglob("*.nb?"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    before = [path.stat().st_mtime_ns for path in kept]
    _fresh()
    assert [path.stat().st_mtime_ns for path in kept] == before
    for path in kept:
        path.write_bytes(path.read_bytes()[:-20])
    run = _fresh()
    assert ranker.forest is not None
    np.testing.assert_array_equal(replace(ranker.forest, run=run).score(rows), ranker.score(rows))
    assert sorted(path for path in kernels.kernel_cache_folder().rglob("*.nb?")) == kept


def test_no_folder_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ranker: Ranker, rows: np.ndarray
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    caplog.set_level("INFO", "recsys.forest")
    run = _fresh()
    assert "compiled anew" in caplog.text
    assert ranker.forest is not None
    np.testing.assert_array_equal(replace(ranker.forest, run=run).score(rows), ranker.score(rows))


# --- text that LightGBM must not read --------------------------------------------------------------------------------


def test_text_cut_anywhere_is_refused(text: str) -> None:
    for end in np.random.default_rng(0).integers(0, len(text) - 1, 300):
        with pytest.raises(DamagedSnapshot):
            check_model_text(text[:end])


def test_text_with_a_wrong_byte_is_refused_or_read_alike(text: str) -> None:
    """What the check lets through, LightGBM survives, and the kernel understands as LightGBM does."""
    rng = np.random.default_rng(0)
    start, end = text.index("num_class"), text.index("end of trees") + 20
    refused = 0
    for _ in range(250):
        at = int(rng.integers(start, end))
        changed = text[:at] + rng.choice(list("0123456789-+.e =\n_xT~")) + text[at + 1 :]
        try:
            model = check_model_text(changed)
            booster = lgb.Booster(model_str=changed)
        except (DamagedSnapshot, LightGBMError):
            refused += 1
            continue
        if why_not(model) is None:
            forest = compile_forest(model)
            assert differs(forest, model, lambda rows, b=booster: np.asarray(b.predict(rows))) is None
    assert 100 < refused < 250


DAMAGES = {
    "no title": (r"^tree\n", "bush\n"),
    "a carriage return": (r"num_class=1\n", "num_class=1\r\n"),
    "a zero byte": (r"num_class=1", "num_class=1\0"),
    "fewer names": (r"feature_names=\S+ ", "feature_names="),
    "a range beyond float64": (r"feature_infos=\[[^:]+", "feature_infos=[-1e999"),
    "a range below float64": (r"feature_infos=\[[^:]+", "feature_infos=[1e-320"),
    "a parameter without a value": (r"\n\[num_leaves: 15\]", "\n[num_leaves]"),
    "no sizes": (r"tree_sizes=.*\n", ""),
    "a wrong size": (r"tree_sizes=(\d)", r"tree_sizes=1\1"),
    "more trees an iteration": (r"num_tree_per_iteration=1", "num_tree_per_iteration=3"),
    "more leaves": (r"num_leaves=15", "num_leaves=16"),
    "billions of leaves": (r"num_leaves=15", "num_leaves=2000000000"),
    "no leaves": (r"num_leaves=15", "num_leaves=0"),
    "no leaf values": (r"leaf_value=", "leaf_walue="),
    "a short array": (r"threshold=\S+ ", "threshold="),
    "a threshold that is NaN": (r"threshold=\S+", "threshold=nan"),
    "a leaf that is infinite": (r"leaf_value=\S+", "leaf_value=inf"),
    "an underscore": (r"left_child=(\d)", r"left_child=\g<1>_0"),
    "a feature there is not": (r"split_feature=\d+", "split_feature=6"),
    "a feature below the first": (r"split_feature=\d+", "split_feature=-1"),
    "a child there is not": (r"left_child=\S+", "left_child=99"),
    "a child beyond 32 bits": (r"left_child=\S+", "left_child=99999999999"),
    "a split that is its own child": (r"left_child=\S+", "left_child=0"),
    "a leaf that stands twice": (r"right_child=(.*) -\d+\n", r"right_child=\1 -1\n"),
    "a way of missing there is not": (r"decision_type=\d+", "decision_type=12"),
    "a category there is not": (r"decision_type=\d+", "decision_type=1"),
    "a line without =": (r"num_cat=0\n", "num_cat\n"),
    "a key that stands twice": (r"num_cat=0\n", "num_cat=0\nnum_cat=0\n"),
    "no end of trees": (r"end of trees", "end of treas"),
    "no end of parameters": (r"end of parameters", "end of"),
    "a last line that is cut": (r"pandas_categorical:null\s*$", "pandas_categorical:nul"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(text: str, name: str) -> None:
    pattern, becomes = DAMAGES[name]
    changed = re.sub(pattern, becomes, text, count=1)
    assert changed != text
    if "sizes" not in pattern and "Tree=" in changed and "end of trees" in changed:
        changed = resized(changed)
    with pytest.raises(DamagedSnapshot, match=r"the ranker's text is damaged: .+"):
        Ranker.from_text(changed, [f"Column_{i}" for i in range(6)])


def test_two_splits_that_are_each_others_child_are_refused() -> None:
    """Each split is the child of one, and yet two of them cannot be reached."""
    text = train(1, 1, num_leaves=4, objective="regression")
    loop = re.sub(r"left_child=.*", "left_child=-1 2 1", re.sub(r"right_child=.*", "right_child=-2 -3 -4", text))
    with pytest.raises(DamagedSnapshot, match="2 splits cannot be reached"):
        check_model_text(resized(loop))
