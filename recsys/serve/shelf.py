"""The shelf on disk: snapshots below one root, opened as recommenders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from recsys.encode.cache import VectorCache
from recsys.encode.text import TextEncoder
from recsys.errors import NotFound, SnapshotError
from recsys.recommend import Recommender
from recsys.serve.engine import SnapshotSummary, Store
from recsys.snapshot import activate, current_id, list_snapshots

_log = structlog.get_logger("recsys.serve")


@dataclass(frozen=True, slots=True)
class SnapshotShelf:
    """`encoder` None loads the one that each snapshot names, with `cache` for the texts of items written since.

    `store_url` says whose erased users `rewrite_erased` leaves out. At `niceness` 10 its process gets a tenth of a
    busy core; at 19 a busy machine would leave it nothing.
    """

    root: Path
    encoder: TextEncoder | None = None
    cache: VectorCache | None = None
    store_url: str = ""
    niceness: int = 10
    _rewriting: list[subprocess.Popen[str]] = field(default_factory=list)

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

    def holding_erased(self, store: Store) -> Sequence[str]:
        if not store.last_erased_seq:
            return []
        from recsys.train.erase import holding_erased  # here: a server that nobody left needs nothing of training

        return [found.manifest.snapshot_id for found in holding_erased(self.root, store)]

    def rewrite_erased(self) -> Mapping[str, str]:
        """In a process of its own, at a low priority: fitting matchers here would slow every answer down."""
        if not self.store_url:
            raise SnapshotError("nothing says where the store is: erased users stay in the snapshots' files")
        command = [sys.executable, "-P", "-m", "recsys.cli", "sweep", "--snapshots", str(self.root), "--json", "-"]
        environment = os.environ | {"RECSYS_PATHS__STORE": self.store_url}  # it may hold a password: not in argv
        with subprocess.Popen(
            ["nice", "-n", str(self.niceness), *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self._rewriting.append(process)
            said, error = process.communicate()
            self._rewriting.remove(process)
        if process.returncode:
            raise SnapshotError(f"rewriting snapshots ended with {process.returncode}: {error.strip()[-500:]}")
        return dict(json.loads(said)["renamed"])

    def stop_rewriting(self) -> None:
        for process in list(self._rewriting):
            process.terminate()

    def make_current(self, snapshot_id: str) -> None:
        activate(self.root, snapshot_id)
