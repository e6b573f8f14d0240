"""From a model in memory to a published snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from recsys.model import Model
from recsys.snapshot import SnapshotMeta, SnapshotWriter


def publish(
    model: Model,
    root: Path,
    *,
    activate: bool = True,
    replaces: str = "",
    beside: Callable[[Path], None] = lambda folder: None,
) -> str:
    """Write `model` as a snapshot below `root`, make it current, and return its id.

    Nothing of it is visible before it is whole; the last three snapshots are kept. `replaces`: see
    `SnapshotWriter.commit`. `beside` may write more files into the snapshot's folder.
    """
    with SnapshotWriter(root) as writer:
        model.save(writer.path)
        beside(writer.path)
        settings = asdict(model.settings)
        meta = SnapshotMeta(
            fingerprints={
                "encoder": model.settings.encoder_fingerprint,
                "index": _digest(writer.path / "matchers" / "neighbours" / "moments.index"),
                "ranker": _digest(writer.path / "ranker.txt"),
                "data": model.settings.data_fingerprint,
            },
            features=model.flow.features,
            metrics=settings.pop("metrics"),
            config=settings,
        )
        return writer.commit(meta, activate=activate, replaces=replaces)


def _digest(path: Path) -> str:
    """SHA-256 of a file, 16 hex digits; empty where the model has no such part."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""
