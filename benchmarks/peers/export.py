"""A leave-one-out split as plain arrays for a process that knows nothing of the engine, without the test's targets.

Letters: U users, E events, Q queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.catalogue import Catalogue
from recsys.data.dataset import Dataset
from recsys.data.histories import Histories
from recsys.data.ties import shuffle_ties
from recsys.encode.items import ItemTable
from recsys.train.fit import TrainConfig
from recsys.train.stages import StageConfig, Stages, leave_one_out_stages


def cut(dataset: Dataset, *, ties: str = "file", seed: int = 0) -> Stages:
    """The stages the engine is measured on, every query of them, in variant "train"."""
    histories = dataset.histories
    if ties == "shuffled":
        histories = shuffle_ties(histories, seed=seed)
    config = StageConfig(validation_queries=None, test_queries=None, with_validation=False, seed=seed)
    return leave_one_out_stages(
        histories.without_types(TrainConfig().ignored_types), _without_texts(dataset.catalogue), config
    )


def _without_texts(catalogue: Catalogue) -> ItemTable:
    """A split looks at no text, so the items need no vectors."""
    return ItemTable(catalogue, np.zeros((len(catalogue), 1), np.float32))


def arrays_of(stages: Stages) -> dict[str, Any]:
    """What the peer may see: all events but each user's last two; whose validation target is what; what the users of
    the test did before their last event. Users and items are the engine's rows."""
    memory, validation, test = stages.validation.memory, stages.validation, stages.test
    past = test.queries.states.histories
    return {
        "train_indptr": memory.indptr,
        "train_items": memory.items,
        "validation_users": validation.users,
        "validation_targets": validation.queries.targets,
        "test_users": test.users,
        "test_indptr": past.indptr,
        "test_items": past.items,
    }


def write_split(stages: Stages, folder: Path) -> None:
    """`split.npz` in `folder`."""
    np.savez(folder / "split.npz", **arrays_of(stages))


def longest_decile(histories: Histories) -> float:
    """Events of the user that nine of ten do not reach."""
    return float(np.quantile(histories.lengths, 0.9))
