"""train and evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from recsys.recommend import Recommender
from recsys.store import EventStore
from tests.cli.conftest import Run, World


def test_training_publishes_what_it_measured(world: World) -> None:
    told = json.loads(world.report.read_text())
    recommender = Recommender.open(world.snapshots)
    assert recommender.snapshot_id == told["snapshot_id"]
    assert recommender.metrics["test_ndcg@10"] == told["report"]["test"]["ndcg@10"]
    assert recommender.metrics["popularity_hr@10"] == told["report"]["baselines"]["popularity"]["hr@10"]


def test_the_provable_next_item_is_found(world: World) -> None:
    report = json.loads(world.report.read_text())["report"]
    assert report["protocol"] == "gts"
    assert report["test"]["hr@1"] > 0.9
    assert report["baselines"]["popularity"]["hr@1"] < 0.2


def test_evaluate_reports_validation_test_slices_and_baselines(run: Run, world: World) -> None:
    found = run("evaluate", world.shop, "--protocol", "loo", "--config", world.config, "--json", "-")
    report = json.loads(found.out)
    assert found.code == 0
    assert report["protocol"] == "loo"
    assert report["variant"] == "train"
    assert report["test"]["hr@1"] > 0.9
    assert {"validation", "slices", "baselines", "peak_memory_bytes", "encoder_fingerprint"} <= set(report)
    assert not Path(".longrec").exists()


def test_the_test_may_remember_the_validation(run: Run, world: World) -> None:
    options = ("--protocol", "loo", "--with-validation", "--config", world.config, "--json", "-")
    assert json.loads(run("evaluate", world.shop, *options).out)["variant"] == "train+val"


def test_days_as_times_are_also_shuffled(run: Run, world: World, tmp_path: Path) -> None:
    events = pl.read_parquet(world.shop / "events.parquet")
    since = (pl.col("timestamp") - pl.col("timestamp").min().over("user_id")) // 86_400 * 86_400
    events.select("user_id", "item_id", seconds_since_first=since).write_parquet(tmp_path / "events.parquet")
    report = tmp_path / "report.json"
    found = run("evaluate", tmp_path, "--config", world.config, "--json", report)
    assert "LongRec, equal times shuffled" in found.out
    assert "target other day" in found.out
    assert json.loads(report.read_text())["shuffled_ties"]["test"]["queries"] > 0


def test_an_unknown_protocol_is_named(run: Run, world: World) -> None:
    found = run("evaluate", world.shop, "--protocol", "random", "--config", world.config)
    assert found.code == 2
    assert "protocol='random'" in found.err


def test_data_too_short_for_the_split_is_named(run: Run, world: World) -> None:
    found = run("evaluate", world.shop, "--config", world.config, "--test-days", 5_000)
    assert found.code == 2
    assert "days=" in found.err


def test_a_model_of_the_store_knows_how_far_it_reaches(run: Run, world: World) -> None:
    run("import", world.shop, "--store", "events.sqlite")
    with EventStore.open("events.sqlite") as store:
        seq = store.seq
    options = ("--from-store", "--store", "events.sqlite", "--out", "snapshots", "--config", world.config)
    assert run("train", *options, "--no-evaluate").code == 0
    recommender = Recommender.open("snapshots")
    assert recommender.store_seq == seq
    assert recommender.num_items == 40
    assert recommender.metrics == {}
