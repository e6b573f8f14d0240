"""A small trained engine on disk: the real parts, in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recsys.model import Model
from recsys.serve.shelf import SnapshotShelf
from recsys.train.publish import publish
from tests.world import ENCODER, chains, model_of

NUM_ITEMS = 40


def trained() -> Model:
    """Users u0 to u119, items i0 to i39."""
    return model_of(chains(num_users=120, num_items=NUM_ITEMS, clock="timestamp"))


def publish_all(model: Model, root: Path, count: int) -> list[str]:
    """Ids of `count` snapshots that differ in their settings, the last one current."""
    return [
        publish(replace(model, settings=replace(model.settings, data_fingerprint=str(number))), root)
        for number in range(count)
    ]


def shelf_of(root: Path) -> SnapshotShelf:
    return SnapshotShelf(root, encoder=ENCODER)
