"""The shelf on disk: snapshots below one root, opened as recommenders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from recsys.encode.cache import VectorCache
from recsys.encode.text import TextEncoder
from recsys.errors import NotFound, SnapshotError
from recsys.recommend import Recommender
from recsys.serve.engine import SnapshotSummary
from recsys.snapshot import activate, current_id, list_snapshots

_log = structlog.get_logger("recsys.serve")


@dataclass(frozen=True, slots=True)
class SnapshotShelf:
    """`encoder` None loads the one that each snapshot names, with `cache` for the texts of items written since."""

    root: Path
    encoder: TextEncoder | None = None
    cache: VectorCache | None = None

    def summaries(self) -> Sequence[SnapshotSummary]:
        return [
            SnapshotSummary(
                snapshot_id=manifest.snapshot_id,
                created=manifest.created,
                fingerprints=manifest.fingerprints,
                metrics=manifest.metrics,
            )
            for manifest in list_snapshots(self.root)
        ]

    def current(self) -> str:
        try:
            return current_id(self.root)
        except (NotFound, SnapshotError) as error:  # a damaged CURRENT: any sound snapshot may serve
            if list_snapshots(self.root):
                _log.error("no current snapshot: the newest sound one serves", reason=str(error))
            return ""

    def open(self, snapshot_id: str) -> Recommender:
        return Recommender.open(self.root, snapshot_id, encoder=self.encoder, cache=self.cache)

    def make_current(self, snapshot_id: str) -> None:
        activate(self.root, snapshot_id)
