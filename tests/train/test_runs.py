"""A training that was stopped goes on as if it had not been; what it cannot go on from it says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.errors import InvalidInput, MissingExtra
from recsys.train.encoder import Corpus, EncoderTraining, TrainingState, begin, train
from recsys.train.objectives import SelfSupervision, self_supervised
from recsys.train.runs import RunFolder, keep, make_trackers, plot
from tests.world import chains

N = 24
CONFIG = EncoderTraining(epochs=4, tokens=200, warmup_steps=5, negatives=8, probe_every=1, patience=9)
TEXTS = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))


def new_encoder(**options: Any) -> HistoryEncoder:
    torch.manual_seed(1)
    small = {"width": 8, "heads": 2, "blocks": 1, "window": 8, "text_width": 4, "dropout": 0.3, "by_id": 0.8}
    return HistoryEncoder(HistoryEncoderConfig(num_items=N, **{**small, **options}))


class Stopped(Exception):
    """The power went."""


def falling(encoder: HistoryEncoder) -> float:
    """A figure that is best when it is asked first, and that names the weights."""
    return -float(encoder.position.weight.detach().abs().sum())


def go_on(state: TrainingState, folder: RunFolder, *, stop_at: int = 0, extra: bool = False) -> HistoryEncoder:
    corpus = Corpus.of(chains(30, N).histories, window=8, num_items=N)
    save = keep(folder, CONFIG)

    def on_epoch(state: TrainingState) -> None:
        save(state)
        if state.epoch == stop_at:
            raise Stopped

    more = self_supervised(SelfSupervision(contrastive=0.1, masked=0.1), CONFIG) if extra else None
    return train(state, corpus, TEXTS, CONFIG, probe=falling, on_epoch=on_epoch, extra_loss=more)


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def saved(tmp_path: Path) -> RunFolder:
    """A training that was stopped after its second epoch."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(Stopped):
        go_on(begin(new_encoder(), CONFIG), folder, stop_at=2)
    return folder


@pytest.mark.parametrize("extra", [False, True])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path: Path, extra: bool) -> None:
    straight = begin(new_encoder(), CONFIG)
    ended = go_on(straight, RunFolder(tmp_path / "straight"), extra=extra)
    folder = RunFolder(tmp_path / "stopped")
    with pytest.raises(Stopped):
        go_on(begin(new_encoder(), CONFIG), folder, stop_at=2, extra=extra)
    torch.manual_seed(99)  # another process, another past
    resumed = RunFolder(tmp_path / "stopped").restore(new_encoder(), CONFIG)
    assert resumed is not None
    assert (resumed.epoch, len(resumed.curve)) == (2, 2)
    went_on = go_on(resumed, folder, extra=extra)
    assert same(went_on.state_dict(), ended.state_dict())
    assert resumed.curve == straight.curve
    assert (resumed.step, resumed.best, resumed.since_best) == (straight.step, straight.best, straight.since_best)
    assert same(resumed.best_weights or {}, straight.best_weights or {})
    assert (tmp_path / "stopped/metrics.jsonl").read_text() == (tmp_path / "straight/metrics.jsonl").read_text()


def test_the_generators_are_part_of_it(tmp_path: Path, saved: RunFolder) -> None:
    """Dropout and by_id draw: without what they draw from, a restored training would end elsewhere."""

    def ended(*, spoilt: bool) -> torch.Tensor:
        state = saved.restore(new_encoder(), CONFIG)
        assert state is not None
        if spoilt:
            torch.manual_seed(99)
        go_on(state, RunFolder(tmp_path / "on"))
        return torch.tensor([row["loss"] for row in state.curve])

    assert torch.equal(ended(spoilt=False), ended(spoilt=False))
    assert not torch.equal(ended(spoilt=False), ended(spoilt=True))


def test_a_finished_training_is_restored_as_finished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    ended = go_on(begin(new_encoder(), CONFIG), folder)
    again = folder.restore(new_encoder(), CONFIG)
    assert again is not None
    assert same(go_on(again, folder).state_dict(), ended.state_dict())


def test_nothing_saved_is_nothing_restored_and_nothing_drawn(tmp_path: Path) -> None:
    encoder = new_encoder()
    before = torch.get_rng_state()
    assert RunFolder(tmp_path / "new").restore(encoder, CONFIG) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("field", "options", "config"),
    [
        ("training.learning_rate", {}, replace(CONFIG, learning_rate=1e-3)),
        ("training.negatives", {}, replace(CONFIG, negatives=None)),
        ("training.weight_by_type", {}, replace(CONFIG, weight_by_type={"view": 0.5})),
        ("encoder.width", {"width": 16}, CONFIG),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    saved: RunFolder, field: str, options: dict[str, int], config: EncoderTraining
) -> None:
    encoder = new_encoder(**options)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(InvalidInput, match="only the same settings") as caught:
        saved.restore(encoder, config)
    assert caught.value.violations[0].field == field
    assert same(encoder.state_dict(), before)


def test_a_flipped_bit_anywhere_is_noticed(saved: RunFolder) -> None:
    path = saved.path / "checkpoint.safetensors"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {
        0,
        5,
        8,
        9,
        40,
        len(whole) - 1,
        *rng.integers(len(whole), size=60).tolist(),
        *rng.integers(4_000, size=40),
    }
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(InvalidInput, match="damaged"):
            saved.restore(new_encoder(), CONFIG)
    path.write_bytes(whole)
    assert saved.restore(new_encoder(), CONFIG) is not None


@pytest.mark.parametrize("kept", [0, 7, 1_000, -1])
def test_half_a_checkpoint_is_noticed(saved: RunFolder, kept: int) -> None:
    path = saved.path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InvalidInput, match="damaged"):
        saved.restore(new_encoder(), CONFIG)


def test_a_stop_while_writing_leaves_the_old_checkpoint(saved: RunFolder) -> None:
    (saved.path / ".checkpoint.safetensors.new").write_bytes(b"half of it")
    state = saved.restore(new_encoder(), CONFIG)
    assert state is not None
    saved.save(state, CONFIG)
    assert not list(saved.path.glob(".*"))


def test_the_folder_tells_people_what_happened(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    encoder = new_encoder()
    folder.begin(encoder, CONFIG, data="abc")
    state = begin(encoder, CONFIG)
    go_on(state, folder)
    state.curve[0]["loss"] = math.nan
    folder.save(state, CONFIG)
    folder.finish(state, {"ndcg@10": 0.25})
    config = json.loads((folder.path / "config.json").read_text())
    assert config["encoder"]["width"] == 8
    assert config["training"]["negatives"] == 8
    assert config["facts"] == {"data": "abc"}
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1.0, 2.0, 3.0, 4.0]
    assert rows[0]["loss"] is None
    assert json.loads((folder.path / "metrics.json").read_text()) == {"ndcg@10": 0.25}
    assert json.loads((folder.path / "checkpoint.json").read_text())["epoch"] == 4
    pytest.importorskip("matplotlib", reason="the plots need the extra train")
    for name in ("loss", "probe"):
        assert (folder.path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_plots_without_matplotlib_name_the_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"matplotlib.*longrec\[train\]"):
        plot([{"epoch": 1.0, "loss": 2.0}], tmp_path, library=absent)


# Trackers


def absent(module: str) -> Any:
    raise ModuleNotFoundError(f"No module named {module!r}", name=module.split(".")[0])


class Recorder:
    """Stands for all three libraries: notes each call by its name."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, module: str) -> Any:
        return self

    def init(self, **options: str) -> Recorder:
        self.calls.append(("init", options["mode"], Path(options["dir"]).name))
        return self

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.calls.append(("log", step, values))

    def finish(self) -> None:
        self.calls.append(("finish",))

    def MlflowClient(self, *, tracking_uri: str) -> Recorder:  # noqa: N802  (as MLflow calls it)
        self.calls.append(("client", tracking_uri.split(":")[0], Path(tracking_uri).name))
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.calls.append(("experiment", name))
        return "7"

    def create_run(self, experiment: str, *, run_name: str) -> Any:
        self.calls.append(("run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_metric(self, run: str, name: str, value: float, *, step: int) -> None:
        self.calls.append(("metric", run, name, value, step))

    def set_terminated(self, run: str) -> None:
        self.calls.append(("end", run))


def test_wandb_stays_offline_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    library = Recorder()
    (tracker,) = make_trackers(["wandb"], tmp_path / "run", library=library)
    tracker.log(3, {"loss": 0.5})
    tracker.close()
    assert library.calls == [("init", "offline", "run"), ("log", 3, {"loss": 0.5}), ("finish",)]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    make_trackers(["wandb"], tmp_path / "run", library=library)
    assert library.calls[-1] == ("init", "disabled", "run")


def test_mlflow_writes_files_unless_a_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    library = Recorder()
    (tracker,) = make_trackers(["mlflow"], tmp_path / "run", library=library)
    tracker.log(2, {"loss": 0.5})
    tracker.close()
    assert library.calls == [
        ("client", "file", "mlruns"),
        ("experiment", "longrec"),
        ("run", "7", "run"),
        ("metric", "r1", "loss", 0.5, 2),
        ("end", "r1"),
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1/there")
    make_trackers(["mlflow"], tmp_path / "run", library=library)
    assert library.calls[-3] == ("client", "http", "there")


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")])
@pytest.mark.filterwarnings("default")
def test_the_real_tracker_writes_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    pytest.importorskip(module, reason=f"needs the extra {name}")
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tracker,) = make_trackers([name], tmp_path)
    for step in (1, 2):
        tracker.log(step, {"a_loss_like_no_other": 1.0 / step})
    tracker.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"a_loss_like_no_other" in path.read_bytes() or path.name == "a_loss_like_no_other" for path in files)


def test_unknown_and_missing_trackers_are_named(tmp_path: Path) -> None:
    library = Recorder()
    with pytest.raises(InvalidInput, match="tensorbord") as caught:
        make_trackers(["wandb", "tensorbord"], tmp_path, library=library)
    assert caught.value.violations[0].field == "trackers"
    assert library.calls == []
    for name in ("tensorboard", "wandb", "mlflow"):
        with pytest.raises(MissingExtra, match=rf"longrec\[{name}\]"):
            make_trackers([name], tmp_path, library=absent)


def test_each_epoch_goes_to_every_tracker(tmp_path: Path) -> None:
    class Notes:
        def __init__(self) -> None:
            self.rows: list[tuple[int, dict[str, float]]] = []

        def log(self, step: int, values: Mapping[str, float]) -> None:
            self.rows.append((step, dict(values)))

        def close(self) -> None: ...

    first, second = Notes(), Notes()
    folder, state = RunFolder(tmp_path), begin(new_encoder(), CONFIG)
    corpus = Corpus.of(chains(30, N).histories, window=8, num_items=N)
    train(state, corpus, TEXTS, CONFIG, on_epoch=keep(folder, CONFIG, (first, second)))
    assert [step for step, _ in first.rows] == [1, 2, 3, 4]
    assert first.rows == second.rows
    assert first.rows[2][1] == {"loss": state.curve[2]["loss"]}
