"""A training's folder: what it was asked, how it goes, and a checkpoint from which it goes on as if never stopped.

    config.json             the encoder's and the training's settings, and facts of the caller's
    metrics.jsonl           a row an epoch
    metrics.json            the final figures
    plots/                  loss.png, probe.png
    checkpoint.safetensors  all of a `TrainingState`, and of the random generators it draws from
    checkpoint.json         the same without the tensors, for people

The checkpoint is one file that is replaced at once: its header carries all that is no tensor and a SHA-256 over
everything, so that a stop at any moment leaves an old checkpoint or a new one, and a damaged one is known. Nothing is
pickled. Trackers see the same rows; each comes as an extra, and none is needed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from recsys.encode.history import HistoryEncoder
from recsys.errors import InvalidInput, MissingExtra
from recsys.snapshot.files import write_atomically
from recsys.train.encoder import EncoderTraining, TrainingState, begin

FORMAT = 1


class RunFolder:
    """One training's files below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def begin(self, encoder: HistoryEncoder, config: EncoderTraining, **facts: object) -> None:
        """Write config.json; `facts` are the caller's, such as the data's fingerprint."""
        self._write("config.json", {**_configs(encoder, config), "facts": facts})

    def save(self, state: TrainingState, config: EncoderTraining) -> None:
        """Replace the checkpoint, and metrics.jsonl by the state's curve."""
        told = {"format": FORMAT, **_configs(state.encoder, config), **_told(state)}
        tensors = _tensors(state)
        header = {"state": json.dumps(told), "sha256": _digest(json.dumps(told), tensors)}
        write_atomically(self.path / "checkpoint.safetensors", tensors_to_bytes(tensors, header))
        self._write("checkpoint.json", told)
        rows = "".join(json.dumps(_finite(row)) + "\n" for row in state.curve)
        write_atomically(self.path / "metrics.jsonl", rows.encode())

    def restore(self, encoder: HistoryEncoder, config: EncoderTraining) -> TrainingState | None:
        """The state that was saved, its weights in `encoder`, and torch's generators as they were; None where nothing
        was saved. Raises InvalidInput for a damaged checkpoint and for one of other settings, naming the first."""
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        told, tensors = _read(path)
        _require_same(told, encoder, config)
        state = begin(encoder, config)
        encoder.load_state_dict(_below("weights.", tensors))
        state.optimizer.load_state_dict({"state": _moments(tensors), "param_groups": _groups(told["groups"])})
        state.rng.bit_generator.state = told["rng"]
        state.epoch, state.step, state.since_best = told["epoch"], told["step"], told["since_best"]
        state.best = -math.inf if told["best"] is None else told["best"]
        state.best_weights = _best_weights(tensors, config.device)
        state.curve = [{name: _number(value) for name, value in row.items()} for row in told["curve"]]
        _set_generators(tensors)
        return state

    def finish(self, state: TrainingState, metrics: Mapping[str, float]) -> None:
        """Write metrics.json and the plots. Raises MissingExtra without matplotlib, after metrics.json is written."""
        self._write("metrics.json", _finite(metrics))
        plot(state.curve, self.path / "plots")

    def _write(self, name: str, value: object) -> None:
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode())


def plot(
    curve: Sequence[Mapping[str, float]], folder: Path, *, library: Callable[[str], Any] = importlib.import_module
) -> None:
    """The loss, and the probe where there was one, over epochs; `library` finds a module by name.

    Raises MissingExtra without matplotlib.
    """
    figure_of = _load("matplotlib.figure", "train", library).Figure
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("loss", "probe"):
        points = [(row["epoch"], row[name]) for row in curve if name in row]
        if points:
            figure = figure_of(figsize=(6, 4), layout="constrained")
            axes = figure.subplots()
            axes.plot(*zip(*points, strict=True), marker=".")
            axes.set(xlabel="epoch", ylabel=name)
            axes.grid(alpha=0.3)
            figure.savefig(folder / f"{name}.png", dpi=120)


def require_plots(library: Callable[[str], Any] = importlib.import_module) -> None:
    """Raises MissingExtra where plots could not be drawn at the end of a training."""
    _load("matplotlib.figure", "train", library)


class Tracker(Protocol):
    """Where figures are sent while a training goes on."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the folder tensorboard/, shown by `tensorboard --logdir`."""

    def __init__(self, library: Any, folder: Path) -> None:
        self._writer = library.SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run below wandb/. It stays here unless WANDB_MODE says otherwise: no account is needed and nothing leaves."""

    def __init__(self, library: Any, folder: Path) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = library.init(project="longrec", name=folder.name, dir=str(folder), mode=mode)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """A run of the experiment "longrec", in the server that MLFLOW_TRACKING_URI names, else as files below mlruns/."""

    def __init__(self, library: Any, folder: Path) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").absolute().as_uri()
        if uri.startswith("file:"):  # since MLflow 3 files have to be asked for; its database needs the large package
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = library.MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name("longrec")
        experiment = known.experiment_id if known else self._client.create_experiment("longrec")
        self._run: str = self._client.create_run(experiment, run_name=folder.name).info.run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


_TRACKERS: dict[str, tuple[str, Callable[[Any, Path], Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", Mlflow),
}


def make_trackers(
    names: Sequence[str], folder: Path, *, library: Callable[[str], Any] = importlib.import_module
) -> tuple[Tracker, ...]:
    """The named trackers, writing below `folder`; `library` finds a module by name.

    Raises InvalidInput for an unknown name, MissingExtra for a package that is not installed; then none is begun.
    """
    if unknown := [name for name in names if name not in _TRACKERS]:
        raise InvalidInput.of("trackers", unknown[0], f"must be one of {', '.join(_TRACKERS)}")
    found = [(_TRACKERS[name][1], _load(_TRACKERS[name][0], name, library)) for name in names]
    return tuple(make(module, folder) for make, module in found)


def keep(
    folder: RunFolder, config: EncoderTraining, trackers: Sequence[Tracker] = ()
) -> Callable[[TrainingState], None]:
    """For `train(on_epoch=...)`: a checkpoint after each epoch, and its row to every tracker."""

    def on_epoch(state: TrainingState) -> None:
        folder.save(state, config)
        row = {name: value for name, value in state.curve[-1].items() if name != "epoch"}
        for tracker in trackers:
            tracker.log(state.epoch, row)

    return on_epoch


def _load(module: str, extra: str, library: Callable[[str], Any]) -> Any:
    try:
        return library(module)
    except ImportError as error:
        raise MissingExtra(error.name or module, extra) from error


def _configs(encoder: HistoryEncoder, config: EncoderTraining) -> dict[str, Any]:
    # Through JSON and back, so that what is compared looks the same whether it was read or is at hand.
    told: dict[str, Any] = json.loads(json.dumps({"encoder": asdict(encoder.config), "training": asdict(config)}))
    return told


def _told(state: TrainingState) -> dict[str, Any]:
    """All of a state that is no tensor."""
    groups = state.optimizer.state_dict()["param_groups"]
    return {
        "epoch": state.epoch,
        "step": state.step,
        "since_best": state.since_best,
        "best": state.best if math.isfinite(state.best) else None,
        "curve": [_finite(row) for row in state.curve],
        "rng": state.rng.bit_generator.state,
        "groups": groups,
    }


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    out = {f"weights.{name}": value for name, value in state.encoder.state_dict().items()}
    out |= {f"best.{name}": value for name, value in (state.best_weights or {}).items()}
    for row, moments in state.optimizer.state_dict()["state"].items():
        out |= {f"optimizer.{row}.{name}": value for name, value in moments.items()}
    out["generator.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        out["generator.cuda"] = torch.cuda.get_rng_state()
    # Copies: what is saved may share no memory with what goes on learning, nor with each other.
    return {name: value.detach().cpu().contiguous().clone() for name, value in out.items()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise InvalidInput.of("checkpoint", str(path), f"is damaged ({error})") from error
    if header.get("sha256") != _digest(header.get("state", ""), tensors):
        raise InvalidInput.of("checkpoint", str(path), "is damaged: its SHA-256 is another")
    told: dict[str, Any] = json.loads(header["state"])
    if told["format"] != FORMAT:
        raise InvalidInput.of("checkpoint.format", told["format"], f"this version reads {FORMAT}")
    return told, tensors


def _digest(told: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(told.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_same(told: Mapping[str, Any], encoder: HistoryEncoder, config: EncoderTraining) -> None:
    for part, asked in _configs(encoder, config).items():
        saved = told[part]
        for name in sorted(asked.keys() | saved.keys()):
            if asked.get(name) != saved.get(name):
                reason = f"the checkpoint was made with {saved.get(name)!r}: only the same settings go on from it"
                raise InvalidInput.of(f"{part}.{name}", asked.get(name), reason)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _best_weights(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor] | None:
    return {name: value.to(device) for name, value in _below("best.", tensors).items()} or None


def _moments(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    out: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimizer.", tensors).items():
        row, moment = name.split(".", 1)
        out.setdefault(int(row), {})[moment] = value
    return out


def _groups(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: tuple(v) if name == "betas" else v for name, v in group.items()} for group in groups]


def _set_generators(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["generator.cpu"])
    if "generator.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator.cuda"])


def _finite(row: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has neither NaN nor infinity."""
    return {name: float(value) if math.isfinite(value) else None for name, value in row.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
