"""A model on disk: what was saved answers alike, and parts that do not belong together are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import DamagedSnapshot, MixedSnapshot
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.snapshot import open_snapshot
from recsys.train.publish import publish
from recsys.types import Candidate, Ranking, User
from tests.world import DAY_S, ENCODER, START_S, chains, events, model_of, recommender_of, shop

USERS = [
    User(user_id="u3"),
    User(user_id="u3", events=events("i7", "i8", start_s=START_S + 400 * DAY_S)),
    User(user_id="stranger", now=START_S + 380 * DAY_S),
]


@pytest.fixture(scope="module", params=[shop, chains], ids=["shop", "chains"])
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(request.param(100))


@pytest.fixture(scope="module")
def small() -> Model:
    return model_of(chains(40, 30), with_ranker=False)


def saved(model: Model, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    model.save(folder)
    return folder


def answers(recommender: Recommender) -> list[Ranking]:
    texts = [Candidate(item_id="i5"), Candidate(text="a kind2 of maker3"), Candidate(item_id="never heard of")]
    told = [recommender.recommend(user, k=20, parts=True) for user in USERS]
    told += [recommender.rank(user, texts, parts=True) for user in USERS]
    return [replace(ranking, snapshot_id="") for ranking in told]


def test_loaded_answers_as_saved(model: Model, tmp_path: Path) -> None:
    loaded = Model.load(saved(model, tmp_path / "model"))
    assert loaded.settings == model.settings
    assert list(loaded.users) == list(model.users)
    assert loaded.flow.features == model.flow.features
    assert answers(recommender_of(loaded)) == answers(recommender_of(model))


def test_published_answers_as_in_memory(model: Model, tmp_path: Path) -> None:
    snapshot_id = publish(model, tmp_path)
    opened = Recommender.open(tmp_path, encoder=ENCODER)
    assert opened.snapshot_id == snapshot_id
    assert opened.fingerprints["encoder"] == ENCODER.fingerprint
    assert all(opened.fingerprints.values())
    assert opened.metrics == {"ndcg@10": 0.5}
    assert (opened.num_users, opened.num_items) == (len(model.users), len(model.items))
    assert answers(opened) == answers(recommender_of(model))
    assert open_snapshot(tmp_path).manifest.features == model.flow.features


def test_a_model_without_a_ranker_is_kept_as_one(small: Model, tmp_path: Path) -> None:
    loaded = Model.load(saved(small, tmp_path / "model"))
    assert loaded.ranker is None
    assert answers(recommender_of(loaded)) == answers(recommender_of(small))


def test_another_encoder_is_refused(small: Model, tmp_path: Path) -> None:
    other = replace(small, settings=replace(small.settings, encoder_fingerprint="another"))
    with pytest.raises(MixedSnapshot, match="another"):
        recommender_of(other)
    publish(other, tmp_path)
    with pytest.raises(MixedSnapshot, match="another"):
        Recommender.open(tmp_path, encoder=ENCODER)


def test_a_part_changed_behind_the_manifest_is_damage(small: Model, tmp_path: Path) -> None:
    publish(small, tmp_path)
    vectors = open_snapshot(tmp_path).path / "vectors.npy"
    vectors.chmod(0o600)
    np.save(vectors, np.zeros_like(small.items.base))
    with pytest.raises(DamagedSnapshot, match=r"vectors\.npy"):
        Recommender.open(tmp_path, encoder=ENCODER)


def _describe(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    description = json.loads((folder / "model.json").read_text())
    change(description)
    (folder / "model.json").write_text(json.dumps(description))


def _settings(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    def inside(description: dict[str, object]) -> None:
        settings = description["settings"]
        assert isinstance(settings, dict)
        change(settings)

    _describe(folder, inside)


SWAPS: dict[str, Callable[[Path, Model], object]] = {
    "vectors": lambda folder, model: np.save(folder / "vectors.npy", model.items.base[:-1]),
    "histories": lambda folder, model: model.histories.take(np.arange(5)).save(folder / "histories.npz"),
    "item row": lambda folder, model: replace(model.histories, items=model.histories.items + 9).save(
        folder / "histories.npz"
    ),
    "features": lambda folder, model: _describe(folder, lambda d: d.update(features=["another"])),
    "matchers": lambda folder, model: _describe(folder, lambda d: d.update(matchers=["another"])),
    "settings": lambda folder, model: _settings(folder, lambda s: s.update(novelty=1)),
    "encoder_fingerprint": lambda folder, model: _settings(folder, lambda s: s.pop("encoder_fingerprint")),
}


@pytest.mark.parametrize("part", SWAPS)
def test_parts_of_another_model_are_refused(part: str, small: Model, tmp_path: Path) -> None:
    folder = saved(small, tmp_path / "model")
    Model.load(folder)
    SWAPS[part](folder, small)
    with pytest.raises(MixedSnapshot, match=part):
        Model.load(folder)


def test_a_ranker_of_other_features_is_refused(model: Model, tmp_path: Path) -> None:
    folder = saved(model, tmp_path / "model")
    text = (folder / "ranker.txt").read_text()
    (folder / "ranker.txt").write_text(text.replace("neighbours_shared_norm", "neighbours_other_norm"))
    with pytest.raises(MixedSnapshot, match="neighbours_other_norm"):
        Model.load(folder)


@pytest.mark.parametrize("name", ["model.json", "vectors.npy", "histories.npz", "users.parquet", "catalogue.parquet"])
def test_a_part_that_cannot_be_read_is_a_damaged_snapshot(small: Model, tmp_path: Path, name: str) -> None:
    """Checksums vouch for what was written, not that it was sound: no other error may come out."""
    folder = saved(small, tmp_path / "model")
    (folder / name).write_bytes(pickle.dumps({"not": "a model"}))
    with pytest.raises(DamagedSnapshot, match="cannot be read"):
        Model.load(folder)


def test_sparse_indices_out_of_range_are_refused(small: Model, tmp_path: Path) -> None:
    """scipy follows them out of memory."""
    folder = saved(small, tmp_path / "model")
    file = folder / "matchers" / "transitions" / "soon.npz"
    with np.load(file) as stored:
        parts = dict(stored)
    parts["indices"] = parts["indices"] + 1_000_000
    np.savez(file, **parts)
    with pytest.raises(DamagedSnapshot):
        Model.load(folder)


def test_histories_out_of_bounds_are_refused(small: Model, tmp_path: Path) -> None:
    folder = saved(replace(small, histories=replace(small.histories, items=-small.histories.items - 1)), tmp_path / "m")
    with pytest.raises(MixedSnapshot, match="item rows"):
        Model.load(folder)
