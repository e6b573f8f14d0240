"""`recsys activate` and `recsys rollback`: which snapshot serves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from recsys.cli.output import Output, table
from recsys.client import RecsysClient
from recsys.client.results import Replay
from recsys.snapshot import activate as make_current
from recsys.snapshot import open_snapshot

CALL_TIMEOUT_S = 300.0
"""A large snapshot is read whole before it serves."""


def activate(output: Output, *, root: Path, target: str | None, snapshot_id: str, force: bool) -> None:
    """Of the server at `target`, else of the folder: a server that starts there serves it.

    Raises NotFound, SnapshotError, ReplayRefused.
    """
    if target is None:
        open_snapshot(root, snapshot_id)  # every byte is read; a damaged one raises
        make_current(root, snapshot_id)
        output.show(f"a server that starts on {root} serves snapshot {snapshot_id}")
        output.result({"snapshot_id": snapshot_id})
        return
    with RecsysClient.from_environment(target, timeout_s=CALL_TIMEOUT_S) as client:
        done = client.activate_snapshot(snapshot_id, force=force, timeout_s=CALL_TIMEOUT_S)
    before = f" (before: {done.previous.snapshot_id})" if done.previous else ""
    output.show(f"{target} serves snapshot {done.snapshot_id}{before}")
    if done.replay:
        output.show(_figures(done.replay))
    output.result(asdict(done))


def rollback(output: Output, *, target: str) -> None:
    """Raises NotFound where the server keeps no snapshot to go back to."""
    with RecsysClient.from_environment(target, timeout_s=CALL_TIMEOUT_S) as client:
        serving = client.rollback_snapshot()
    output.show(f"{target} serves snapshot {serving.snapshot_id} again")
    output.result(asdict(serving))


def _figures(replay: Replay) -> Table:
    rows = [
        ("requests replayed", replay.num_requests),
        ("failed by the new snapshot alone", replay.num_errors),
        ("first ten in common", _shown(replay.overlap)),
        ("rank correlation", _shown(replay.correlation)),
        ("milliseconds a request, before", _shown(replay.old_ms)),
        ("milliseconds a request, now", _shown(replay.new_ms)),
    ]
    return table(("replay", "figure"), rows, numbers=(1,))


def _shown(value: float | None) -> str:
    return "cannot be told" if value is None else f"{value:.2f}"
