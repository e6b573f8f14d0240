"""The data, the plain script and the report of the serving benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from benchmarks import plain
from benchmarks.__main__ import NAMES, line
from benchmarks._lives import life_id, most_met, with_lives
from benchmarks.serve import Figures, headline, make_requests
from recsys.types import User
from recsys.v1 import ranking_service_pb2 as pb
from tests.world import chains, model_of, recommender_of


def figures(server: str, events: int, calls_per_s: float, p50_ms: float, candidates: int = 500) -> Figures:
    return Figures(
        server=server,
        events=events,
        candidates=candidates,
        calls_per_s=calls_per_s,
        p50_ms=p50_ms,
        p99_ms=3 * p50_ms,
        p999_ms=4 * p50_ms,
        goodput_per_s=None,
        calls=100,
        failed={},
    )


def test_lives_are_whole_and_leave_the_others_as_they_were() -> None:
    dataset = chains(clock="timestamp")
    longer = with_lives(dataset, [50, 700])
    assert len(longer.users) == len(dataset.users) + 2
    np.testing.assert_array_equal(longer.histories.take(np.arange(len(dataset.users))).items, dataset.histories.items)
    for length in (50, 700):
        life = longer.histories.of(longer.users.row(life_id(length)))
        assert life.num_events == length
        assert (np.diff(life.times) > 0).all()
        assert len(np.unique(life.items)) <= len(dataset.catalogue) // 4
        assert life.times[0] >= dataset.histories.times.min()
        assert life.times[-1] <= dataset.histories.times.max()


def test_a_model_ranks_for_a_life() -> None:
    dataset = with_lives(chains(), [300])
    recommender = recommender_of(model_of(dataset, with_ranker=False))
    assert len(recommender.recommend(User(user_id=life_id(300)), k=5).items) == 5


def test_most_met_keeps_ids_and_times_of_what_stays() -> None:
    dataset = chains()
    cut = most_met(dataset, 30)
    met = np.bincount(dataset.histories.items, minlength=80)
    assert len(cut.catalogue) == 30
    assert cut.histories.num_events == np.sort(met)[-30:].sum()
    kept = {item.item_id for item in cut.catalogue.items}
    for user in range(20):
        before = [dataset.catalogue.items[row].item_id for row in dataset.histories.of(user).items]
        after = [cut.catalogue.items[row].item_id for row in cut.histories.of(user).items]
        assert after == [item_id for item_id in before if item_id in kept]


def test_candidates_are_different_items() -> None:
    dataset = chains()
    requests = [pb.RankItemsRequest.FromString(each) for each in make_requests(dataset, 1_000, 20)]
    asked = [tuple(candidate.item_id for candidate in request.candidates) for request in requests]
    assert all(len(set(ids)) == 20 for ids in asked)
    assert len(set(asked)) == len(asked)
    assert {request.user.user_id for request in requests} == {life_id(1_000)}
    assert set(asked[0]) <= set(dataset.catalogue.ids)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> plain.Data:
    folder = tmp_path_factory.mktemp("snapshot")
    model_of(chains(), with_ranker=False).save(folder)
    return plain.Data.read(folder)


def test_the_plain_script_matches_by_the_whole_history(data: plain.Data) -> None:
    history, candidates = np.array([3, 5, 3, 8]), np.array([3, 8, 40])
    found = plain.features(data, history, candidates)
    cosines = data.vectors[candidates] @ data.vectors[history].T
    np.testing.assert_allclose(found[:, 1], cosines.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(found[:, 2], cosines.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found[:, 5], cosines[:, -1], atol=1e-5)
    assert found[:, 6].tolist() == [2, 1, 0]
    assert found[:, 7].tolist() == [2, 1, 0]


def test_the_plain_script_answers_every_candidate(data: plain.Data) -> None:
    booster: lgb.Booster = plain.train(data)
    for user_id in ("u0", "nobody"):
        ids = ["i7", "i2", "i9"]
        request = pb.RankItemsRequest(
            user=pb.UserContext(user_id=user_id), candidates=[{"item_id": id_} for id_ in ids]
        )
        answer = plain.rank_items(data, booster, request)
        assert sorted(item.item_id for item in answer.items) == sorted(ids)
        assert [item.rank for item in answer.items] == [1, 2, 3]
        assert all(item.item_id == ids[item.index] for item in answer.items)
        scores = [item.score for item in answer.items]
        assert scores == sorted(scores, reverse=True)


def test_the_headline_compares_at_500_candidates() -> None:
    found = [
        figures("engine", 1_000, 200.0, 4.0),
        figures("engine", 100_000, 100.0, 6.0),
        figures("plain", 1_000, 50.0, 20.0),
        figures("plain", 100_000, 2.0, 400.0),
        figures("engine", 1_000, 999.0, 1.0, candidates=100),
    ]
    assert headline(found) == {
        "p50_ms": 4.0,
        "p99_ms": 12.0,
        "calls_per_s": 200.0,
        "p50_ratio_100k_1k": 1.5,
        "speedup_1k": 4.0,
        "speedup_100k": 50.0,
    }


def test_each_benchmark_says_what_it_measures() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks", "--list"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [row.split()[0] for row in listed] == list(NAMES)
    assert all(line(name) for name in NAMES)


def test_an_unknown_benchmark_is_named() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "speed" in done.stderr
