from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from indexer.tune import command
from indexer.tuning import Measured, of_file, of_snapshot, pick, tune
from recsys.errors import InvalidInput, NotFound
from recsys.index.faiss import FaissIndex
from recsys.index.recall import recall
from recsys.match.neighbours import Neighbours
from recsys.train.publish import publish
from tests.contracts import clustered
from tests.world import chains, model_of

VECTORS, QUERIES = clustered(3_000, 16), clustered(60, 16, seed=1)
PLAIN = Measured(
    kind="flat",
    effort=None,
    recall=1.0,
    recall_low=1.0,
    recall_high=1.0,
    query_us=1_000.0,
    batch_ms=10.0,
    size_bytes=100,
    build_s=0.0,
)
QUICK = replace(PLAIN, kind="ivf_sq8", effort=64, recall=0.97, recall_low=0.96, query_us=100.0, size_bytes=50)
HASTY = replace(QUICK, effort=8, recall=0.955, recall_low=0.94, query_us=20.0)
SMALL = replace(QUICK, kind="pq", query_us=108.0, size_bytes=30)


@pytest.mark.parametrize(
    ("measured", "least_recall", "most_bytes", "best", "why"),
    [
        ([PLAIN, QUICK], 0.95, None, QUICK, "of 2 that surely find 0.95, it is the fastest: 100 us"),
        ([PLAIN, QUICK, HASTY], 0.95, None, QUICK, "of 2 that surely find"),  # its interval reaches below
        ([PLAIN, QUICK, HASTY], 0.9, None, HASTY, "of 3 that surely find"),
        ([PLAIN, QUICK, SMALL], 0.95, None, SMALL, "it is as fast as ivf_sq8 at 64, and smaller"),
        ([PLAIN, QUICK], 0.99, None, PLAIN, "of 1 that surely find"),
        ([PLAIN, QUICK], 0.95, 60, QUICK, "of 1 that surely find"),
        ([PLAIN, QUICK], 0.99, 60, None, "none surely finds 0.99; the best is ivf_sq8 at 64, at least 0.9600"),
        ([PLAIN, QUICK], 0.95, 10, None, "none fits 10 bytes; the smallest takes 50"),
    ],
)
def test_the_rule(
    measured: list[Measured], least_recall: float, most_bytes: int | None, best: Measured | None, why: str
) -> None:
    found, reason = pick(measured, least_recall=least_recall, most_bytes=most_bytes)
    assert found == best
    assert why in reason


def test_what_is_measured_is_what_serves() -> None:
    tuning = tune(VECTORS, QUERIES, k=10, kinds_tried=["flat", "ivf_sq8"], device="cpu")
    assert [(each.kind, each.effort) for each in tuning.measured[:3]] == [
        ("flat", None),
        ("ivf_sq8", 8),
        ("ivf_sq8", 16),
    ]
    assert tuning.measured[0].recall == 1.0
    for each in tuning.measured:
        index = FaissIndex.build(VECTORS, kind=each.kind, effort=each.effort, device="cpu")
        assert recall(index, VECTORS.__getitem__, QUERIES, 10).value == each.recall
        assert index.size_bytes == each.size_bytes
        assert each.recall_low <= each.recall <= each.recall_high
    assert tuning.best in tuning.measured


def test_every_kind_is_tried_once_and_only_those_that_can_be() -> None:
    tried = {each.kind for each in tune(VECTORS, QUERIES, k=10, device="cpu").measured}
    assert tried == {"flat", "fp16", "ivf_flat", "ivf_sq8", "ivf_fastscan", "pq", "hnsw"}
    odd = {each.kind for each in tune(VECTORS[:, :15], QUERIES[:, :15], k=10, device="cpu").measured}
    assert odd == tried - {"ivf_fastscan", "pq"}
    few = tune(VECTORS[:50], QUERIES, k=100, device="cpu")
    assert {each.kind for each in few.measured} == {"flat", "fp16", "hnsw"}
    assert few.k == 50


@pytest.mark.unshaped
def test_queries_of_another_dimension_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"queries\.shape=\(60, 8\)"):
        tune(VECTORS, QUERIES[:, :8])


def test_bad_input_is_named() -> None:
    for call, match in (
        (lambda: tune(VECTORS, QUERIES, least_recall=1.5), "least_recall=1.5"),
        (lambda: tune(VECTORS, QUERIES, most_bytes=0), "most_bytes=0"),
        (lambda: tune(VECTORS, QUERIES, kinds_tried=["magic"]), "kind='magic'"),
        (lambda: tune(VECTORS, QUERIES[:0]), r"queries\.shape=\(0, 16\)"),
    ):
        with pytest.raises(InvalidInput, match=match):
            call()


def test_vectors_held_out_ask_the_others(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS)
    vectors, queries = of_file(tmp_path / "vectors.npy", None)
    assert (len(vectors), len(queries)) == (2_500, 500)
    both = np.concatenate([vectors, queries])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(VECTORS, axis=0))
    np.save(tmp_path / "queries.npy", QUERIES)
    vectors, queries = of_file(tmp_path / "vectors.npy", tmp_path / "queries.npy")
    assert (len(vectors), len(queries)) == (3_000, 60)


def test_a_snapshots_moments_are_asked_by_its_users(tmp_path: Path) -> None:
    model = model_of(chains(), with_ranker=False)
    publish(model, tmp_path)
    vectors, queries = of_snapshot(tmp_path)
    neighbours = next(each for each in model.flow.matchers if isinstance(each, Neighbours))
    assert len(vectors) == len(neighbours.memory.index)
    assert recall(neighbours.memory.index, vectors.__getitem__, queries, 10).value == 1.0
    assert len(queries) == (model.histories.lengths > 0).sum()


def test_a_snapshot_without_moments_is_refused(tmp_path: Path) -> None:
    model = model_of(chains(), with_ranker=False)
    others = tuple(each for each in model.flow.matchers if not isinstance(each, Neighbours))
    publish(replace(model, flow=replace(model.flow, matchers=others)), tmp_path)
    with pytest.raises(NotFound, match="remembers no moments"):
        of_snapshot(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_file_that_holds_no_vectors_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "vectors.npy").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"vectors=.*vectors.npy"):
        of_file(tmp_path / "vectors.npy", None)


def test_the_command_measures_tells_and_draws(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    np.save(tmp_path / "vectors.npy", VECTORS)
    names = ["--vectors", "--json", "--picture"]
    paths = [str(tmp_path / name) for name in ("vectors.npy", "told.json", "picture.png")]
    arguments = [part for pair in zip(names, paths, strict=True) for part in pair]
    done = CliRunner().invoke(app, [*arguments, "--kind", "flat", "--kind", "ivf_sq8", "--k", "10"])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["size"], told["dimension"], told["k"], told["num_queries"]) == (2_500, 16, 10, 500)
    assert told["why"] in done.output
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    refused = CliRunner().invoke(app, ["--vectors", paths[0], "--kind", "flat", "--most-bytes", "10"])
    assert refused.exit_code == 1
    assert "none fits 10 bytes" in refused.output
    assert isinstance(CliRunner().invoke(app, []).exception, InvalidInput)
