"""What the peer is given, and how its answers are judged; the peer itself is not needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import report
from benchmarks.peers.__main__ import measure, prepare
from benchmarks.peers.environment import REQUIREMENTS, installs
from benchmarks.peers.export import arrays_of, cut, longest_decile
from benchmarks.peers.settings import LONG, SHORT, settings_for
from recsys.data.dataset import Dataset
from recsys.errors import InvalidInput
from recsys.train.stages import Stages
from tests.world import chains, dataset_of, histories_of, item_of

LIVES = [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 4, 3, 2, 1, 0]]


def small() -> Dataset:
    return dataset_of(histories_of(LIVES), [item_of(row) for row in range(12)])


def lives(indptr: np.ndarray, items: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(items, indptr[1:-1])]


def listed(stages: Stages, places: list[int], k: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Answers with the target of query q at places[q] (0: nowhere) among items nobody met, which are 100 and above."""
    items = np.tile(np.arange(100, 100 + k, dtype=np.int32), (len(places), 1))
    for query, place in enumerate(places):
        if place:
            items[query, place - 1] = stages.test.queries.targets[query]
    return items, np.tile(np.arange(k, 0, -1, dtype=np.float32), (len(places), 1))


def test_the_peer_sees_all_but_the_last_two_events() -> None:
    arrays = arrays_of(cut(small()))
    assert lives(arrays["train_indptr"], arrays["train_items"]) == [life[:-2] for life in LIVES]
    assert arrays["validation_targets"].tolist() == [life[-2] for life in LIVES]
    assert lives(arrays["test_indptr"], arrays["test_items"]) == [life[:-1] for life in LIVES]


def test_no_file_for_the_peer_tells_what_the_test_asks(tmp_path: Path) -> None:
    dataset = chains()
    last = dataset.histories.indptr[1:] - 1
    swapped = replace(dataset.histories, items=dataset.histories.items.copy())
    swapped.items[last] = (swapped.items[last] + 1) % 80
    for name, histories in (("a", dataset.histories), ("b", swapped)):
        prepare(tmp_path / name, cut(replace(dataset, histories=histories)), LONG)
    for name in ("split.npz", "settings.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_ties_are_shuffled_before_the_cut() -> None:
    histories = histories_of([[1, 2, 3, 4, 5, 6, 7, 8]], [[0.0] * 8], clock="relative")
    dataset = dataset_of(histories, [item_of(row) for row in range(12)])
    orders = {tuple(arrays_of(cut(dataset, ties="shuffled", seed=seed))["test_items"]) for seed in range(5)}
    assert len(orders) > 1
    assert arrays_of(cut(dataset))["test_items"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_answers_are_judged_by_the_place_of_the_target() -> None:
    stages = cut(small())
    metrics = report.judged(stages.test, *listed(stages, [1, 3, 0]))
    np.testing.assert_allclose(metrics["hr@10"], [1.0, 1.0, 0.0])
    np.testing.assert_allclose(metrics["ndcg@10"], [1.0, 0.5, 0.0])
    np.testing.assert_allclose(metrics["mrr"], [1.0, 1 / 3, 0.0])
    eleventh = report.judged(stages.test, *listed(stages, [11, 10, 20]))
    np.testing.assert_allclose(eleventh["hr@10"], [0.0, 1.0, 0.0])
    np.testing.assert_allclose(eleventh["hr@20"], [1.0, 1.0, 1.0])


def test_missing_answers_are_no_hits() -> None:
    stages = cut(small())
    items, scores = listed(stages, [2, 0, 0])
    items[0, 2:], items[1, :] = -1, -1
    scores[items < 0] = np.inf
    assert report.judged(stages.test, items, scores)["ndcg@10"][1] == 0.0
    assert report.judged(stages.test, items, scores)["mrr"][0] == pytest.approx(0.5)


def test_an_item_the_user_has_met_is_refused() -> None:
    stages = cut(small())
    items, scores = listed(stages, [1, 1, 1])
    items[1, 4] = 6
    with pytest.raises(InvalidInput, match=r"answers\[1\].*6"):
        report.judged(stages.test, items, scores)


def test_targets_that_no_one_met_are_counted() -> None:
    stages = cut(small())
    found = report.test_report(stages.test, report.judged(stages.test, *listed(stages, [1, 1, 1])))
    # Of 4, 8 and 0, the last events, only 4 and 0 come before anyone's last two.
    assert found["targets_never_met"] == 1
    assert found["test"]["ndcg@10"] == 1.0
    assert found["test"]["ndcg@10_interval"] == [1.0, 1.0]


def left(folder: Path, stages: Stages, places: list[int]) -> None:
    """What a training leaves behind."""
    items, scores = listed(stages, places)
    np.savez(folder / "answers.npz", users=stages.test.users, items=items, scores=scores)
    curve = [{"loss": 3.0, "ndcg@10": value, "cpu_s": 10.0 * (epoch + 1)} for epoch, value in enumerate([0.1, 0.2])]
    training = {"curve": curve, "stopped": "budget", "versions": {"rectools": "0.19.0"}}
    (folder / "training.json").write_text(json.dumps(training))


def test_the_report_names_users_and_epochs(tmp_path: Path) -> None:
    dataset, stages = small(), cut(small())
    prepare(tmp_path, stages, SHORT)
    left(tmp_path, stages, [1, 0, 2])
    found = measure(dataset, stages, tmp_path)
    assert found["test"]["hr@10"] == pytest.approx(2 / 3)
    assert found["training"]["best_epoch"] == 2
    assert found["training"]["cpu_s"] == 20.0
    assert found["settings"]["window"] == SHORT.window
    with np.load(tmp_path / "users.npz", allow_pickle=False) as users:
        assert users["user_id"].tolist() == ["u0", "u1", "u2"]
        assert users["hr@10"].tolist() == [1.0, 0.0, 1.0]
        assert users["mrr"].tolist() == [1.0, 0.0, 0.5]


def test_answers_for_other_users_are_refused(tmp_path: Path) -> None:
    dataset, stages = small(), cut(small())
    prepare(tmp_path, stages, SHORT)
    left(tmp_path, stages, [1, 1, 1])
    with np.load(tmp_path / "answers.npz") as file:
        parts = dict(file)
    np.savez(tmp_path / "answers.npz", **{**parts, "users": parts["users"][::-1]})
    with pytest.raises(SystemExit, match="other users"):
        measure(dataset, stages, tmp_path)


def test_a_training_goes_on_only_where_it_began(tmp_path: Path) -> None:
    stages = cut(small())
    prepare(tmp_path, stages, SHORT)
    prepare(tmp_path, stages, replace(SHORT, budget_s=1.0))
    assert json.loads((tmp_path / "settings.json").read_text())["budget_s"] == 1.0
    with pytest.raises(SystemExit, match="width"):
        prepare(tmp_path, stages, replace(SHORT, width=8))
    other = cut(dataset_of(histories_of([life[::-1] for life in LIVES]), [item_of(row) for row in range(12)]))
    with pytest.raises(SystemExit, match="other data"):
        prepare(tmp_path, other, SHORT)


@pytest.mark.parametrize(("found", "rise"), [([0.1], 0.0), ([0.1, 0.3], 0.2), ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], 0.1)])
def test_the_rise_is_the_gain_of_an_epoch(found: list[float], rise: float) -> None:
    assert report.rising(found) == pytest.approx(rise)


def test_the_end_of_a_training_is_told() -> None:
    curve = [{"ndcg@10": value, "cpu_s": 1.0} for value in (0.1, 0.3, 0.2)]
    ended = report.training_report(curve, "patience")
    assert (ended["best_epoch"], ended["epochs"], ended["ended"]) == (2, 3, "stopped by patience at epoch 3")
    assert "rising by -0.10000" in report.training_report(curve, "budget")["ended"]


def test_windows_are_as_long_as_the_histories_ask() -> None:
    assert settings_for(400.0) == LONG
    assert settings_for(14.0) == SHORT
    assert settings_for(14.0, minutes=2.0) == replace(SHORT, budget_s=120.0)
    assert settings_for(400.0, quick=True).max_epochs == 2
    assert longest_decile(histories_of([[0], [0, 1], [0, 1, 2]])) == pytest.approx(2.8)


def test_torch_is_installed_first_and_alone() -> None:
    requirements = REQUIREMENTS.read_text()
    plain, rest = installs(requirements, None)
    assert plain == ["torch==2.13.0"]
    assert rest == ["--requirement", str(REQUIREMENTS)]
    assert installs(requirements, "https://wheels.example/cpu")[0][:2] == ["--index-url", "https://wheels.example/cpu"]
