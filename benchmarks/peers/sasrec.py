"""RecTools' SASRec, trained on an exported split. Runs in the peer's environment, where the engine is not.

    PEER_PYTHON benchmarks/peers/sasrec.py FOLDER

Reads `split.npz` and `settings.json` of FOLDER, writes `training.json` (the curve) after every epoch and `answers.npz`
(the best items of each test user) at the end. What the test asks for is not in FOLDER: this process cannot look at it.
Started again in the same FOLDER it goes on where it stopped.

The model, its optimiser and its ranking are the library's. One thing is done in another order: `PackedLoss` drops
padding before the product with all items, not after it, which is the same mean over the same events and costs a CPU a
third (windows of 200, 60 % full) to a twentieth (windows of 50, 14 % full) of the time.

Letters: B users of a batch, T events of a window, N items, D width.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import seed_everything  # type: ignore[import-not-found]
from rectools import Columns  # type: ignore[import-not-found]
from rectools.dataset import Dataset  # type: ignore[import-not-found]
from rectools.models import SASRecModel  # type: ignore[import-not-found]
from rectools.models.nn.transformers.lightning import TransformerLightningModule  # type: ignore[import-not-found]

PACKAGES = ("rectools", "torch", "pytorch-lightning", "numpy", "pandas", "scipy")
CUT = 10
MOST_EPOCHS = 1_000_000
"""The library refuses a checkpoint of more epochs than its trainer was told; when to stop is decided here."""


class PackedLoss(TransformerLightningModule):  # type: ignore[misc]
    """The library's softmax loss over the events alone."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Mean cross-entropy of the next item, over all items and the padding's row, as the library has it."""
        asked = batch["y"] != 0
        items = self.torch_model.item_model.get_all_embeddings()
        states = self.torch_model.encode_sessions(batch, items)[asked]
        loss = torch.nn.functional.cross_entropy(states @ items.T, batch["y"][asked])
        self.log(self.train_loss_name, loss, on_step=False, on_epoch=True)
        return loss


def events(indptr: np.ndarray, items: np.ndarray, users: np.ndarray) -> Dataset:
    """Histories as the library takes them; the seconds are places in the history."""
    lengths = np.diff(indptr)
    places = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)
    columns = {Columns.User: np.repeat(users, lengths), Columns.Item: items, Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame(columns | {Columns.Datetime: pd.to_datetime(places, unit="s")}))


def make_model(settings: dict[str, Any]) -> SASRecModel:
    """A model that has learnt nothing."""
    return SASRecModel(
        n_factors=settings["width"],
        n_blocks=settings["blocks"],
        n_heads=settings["heads"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["window"],
        batch_size=settings["batch"],
        lr=settings["learning_rate"],
        loss="softmax",
        lightning_module_type=PackedLoss,
    )


def load(path: Path) -> SASRecModel:
    """The model of a checkpoint, its optimiser's state included."""
    return SASRecModel.load_from_checkpoint(path, model_params_update={"epochs": MOST_EPOCHS})


def answers(model: SASRecModel, dataset: Dataset, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best unseen items of each user, best first, and their scores; -1 and -inf where there are fewer."""
    found = model.recommend(users, dataset, k=k, filter_viewed=True, on_unsupported_targets="ignore")
    rows = pd.Index(users).get_indexer(found[Columns.User])
    places = found[Columns.Rank].to_numpy() - 1
    items, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    items[rows, places], scores[rows, places] = found[Columns.Item], found[Columns.Score]
    return items, scores


def ndcg(items: np.ndarray, targets: np.ndarray) -> float:
    """Mean NDCG@10 where each user has one target."""
    hit = items[:, :CUT] == targets[:, None]
    return float((hit / np.log2(np.arange(hit.shape[1]) + 2.0)).sum(axis=1).mean())


def stopped(curve: list[dict[str, Any]], settings: dict[str, Any]) -> str | None:
    """Why training ends here, None where it does not."""
    if not curve:
        return None
    best = max(range(len(curve)), key=lambda epoch: curve[epoch]["ndcg@10"])
    if len(curve) - 1 - best >= settings["patience"]:
        return "patience"
    if curve[-1]["cpu_s"] >= settings["budget_s"]:
        return "budget"
    return "max_epochs" if len(curve) >= settings["max_epochs"] else None


def train(folder: Path, settings: dict[str, Any], split: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One epoch after the other, each asked the validation; keeps the last model and the best in FOLDER."""
    known = events(split["train_indptr"], split["train_items"], np.arange(len(split["train_indptr"]) - 1))
    users, targets = split["validation_users"], split["validation_targets"]
    log, last = folder / "training.json", folder / "last.ckpt"
    curve: list[dict[str, Any]] = json.loads(log.read_text())["curve"] if log.exists() else []
    model = load(last) if curve else make_model(settings)
    spent_s = curve[-1]["cpu_s"] if curve else 0.0
    started_s = time.process_time()
    seed_everything(settings["seed"] + len(curve))
    while stopped(curve, settings) is None:
        model.fit_partial(known, min_epochs=1, max_epochs=1)
        loss = float(model.fit_trainer.callback_metrics["train_loss"])
        found = ndcg(answers(model, known, users, CUT)[0], targets)
        curve.append({"loss": loss, "ndcg@10": found, "cpu_s": spent_s + time.process_time() - started_s})
        model.fit_trainer.save_checkpoint(last)
        if found == max(each["ndcg@10"] for each in curve):
            model.fit_trainer.save_checkpoint(folder / "best.ckpt")
        write(log, {"curve": curve, "stopped": stopped(curve, settings), "versions": versions()})
        print(f"epoch {len(curve):3d}  " + "  ".join(f"{k} {v:.4f}" for k, v in curve[-1].items()), flush=True)
    return curve


def versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def write(path: Path, value: Any) -> None:
    """All or nothing, so that a run that is killed can go on."""
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(value, indent=2) + "\n")
    aside.replace(path)


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "split.npz", allow_pickle=False) as file:
        split = {name: file[name] for name in file.files}
    train(folder, settings, split)
    model = load(folder / "best.ckpt")
    users = split["test_users"]
    asked = events(split["test_indptr"], split["test_items"], users)
    items, scores = answers(model, asked, users, settings["top"])
    np.savez(folder / "answers.npz", users=users, items=items, scores=scores)


if __name__ == "__main__":
    main()
