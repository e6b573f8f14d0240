"""Which shards there are to build, and which are built already: a finished shard lies under the digest of all that
decides it, so to resume is to look."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.failpoints import failpoint
from indexer.run import Runner
from indexer.shard import Task, build_shard, place_of
from indexer.work import Work
from recsys.train.fit import Progress


@dataclass(slots=True)
class Shards:
    """Maps tasks to the places of their finished shards, and counts. `built`, `resumed`: shards by kind."""

    work: Work
    runner: Runner
    progress: Progress
    number: int
    built: dict[str, int] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)

    def map(self, tasks: Sequence[Task]) -> list[Path]:
        """The finished shards of `tasks`, which are of one kind, in their order."""
        if not tasks:
            return []
        kind = tasks[0].kind
        places = {place_of(task): task for task in tasks}
        todo = [task for place, task in places.items() if not place.exists()]
        self.resumed[kind] = len(places) - len(todo)
        self.built[kind] = 0
        what = f"shards of {kind}"
        self.progress(what, self.resumed[kind], len(places))
        for _ in self.runner.map(build_shard, todo):
            self.built[kind] += 1
            self.progress(what, self.resumed[kind] + self.built[kind], len(places))
            failpoint(f"{kind}-shard-{self.built[kind]}")
        return [place_of(task) for task in tasks]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
