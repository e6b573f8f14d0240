"""`recsys status`: what lies in a snapshot folder, and what a server serves."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from recsys.cli.output import Output, table
from recsys.cli.snapshots import current_snapshot, some_snapshots
from recsys.cli.words import day, size, span
from recsys.client import RecsysClient
from recsys.errors import RecsysError, SnapshotError
from recsys.snapshot import Manifest, open_snapshot

_CALL_TIMEOUT_S = 5.0


def status(output: Output, *, root: Path, target: str | None) -> None:
    """A row a snapshot, then the current one whole.

    Raises SnapshotError where the current snapshot is not sound, NotFound where there is none, Unavailable where the
    server does not answer.
    """
    if target is not None:
        output.result({"server": _server(output, target)})
        return
    snapshots = [_facts(root, manifest) for manifest in some_snapshots(root)]
    try:
        current, unnamed = current_snapshot(root), None
    except RecsysError as error:
        current, unnamed = None, error
    output.show(_list(snapshots, current))
    output.result({"current": current, "snapshots": snapshots})
    if unnamed:
        raise unnamed  # as every command that asks the current snapshot does
    found = next((each for each in snapshots if each["snapshot_id"] == current), None)
    if found is None:
        open_snapshot(root, current)  # raises: it is not there, or its manifest cannot be read
        return
    _show(output, found)
    if found["problem"]:
        raise SnapshotError(f"the current snapshot cannot be served: {found['problem']}")


def _server(output: Output, target: str) -> dict[str, Any]:
    with RecsysClient.from_environment(target, timeout_s=_CALL_TIMEOUT_S) as client:
        state = asdict(client.serving_state())
    output.show(
        f"{target} serves snapshot {state['serving']['snapshot_id']}: {state['num_users']:,} users, "
        f"{state['num_items']:,} items, {state['num_memories']:,} events"
    )
    output.show(table(("metric", "value"), state["metrics"].items(), numbers=(1,)))
    return state


def _facts(root: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "snapshot_id": manifest.snapshot_id,
        "created": manifest.created,
        "code_version": manifest.code_version,
        "sizes_bytes": _sizes(manifest),
        "metrics": dict(manifest.metrics),
        "fingerprints": dict(manifest.fingerprints),
        "problem": _problem(root, manifest.snapshot_id),
    }


def _problem(root: Path, snapshot_id: str) -> str | None:
    """Why a snapshot would not be served; every byte of it is read to find out."""
    try:
        open_snapshot(root, snapshot_id)
    except RecsysError as error:
        return str(error)
    return None


def _list(snapshots: list[dict[str, Any]], current: str | None) -> Table:
    columns = ("snapshot", "age", "size", "sound", "current", "test NDCG@10")
    now = time.time()
    return table(columns, [_row(each, current, now) for each in snapshots], numbers=(2, 5))


def _row(facts: dict[str, Any], current: str | None, now: float) -> tuple[object, ...]:
    return (
        facts["snapshot_id"],
        span(max(now - facts["created"], 0.0)),
        size(sum(facts["sizes_bytes"].values())),
        "NOT SOUND" if facts["problem"] else "yes",
        "current" if facts["snapshot_id"] == current else "",
        facts["metrics"].get("test_ndcg@10", "not measured"),
    )


def _sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes by part: a file of the top folder, or a matcher."""
    sizes: dict[str, int] = {}
    for name, entry in manifest.files.items():
        part = "/".join(name.split("/")[:2])
        sizes[part] = sizes.get(part, 0) + entry.size_bytes
    return dict(sorted(sizes.items(), key=lambda pair: -pair[1]))


def _show(output: Output, facts: dict[str, Any]) -> None:
    sizes, problem = facts["sizes_bytes"], facts["problem"]
    output.heading(f"{facts['snapshot_id']}  of {day(facts['created'])}  (current)")
    output.show("sound" if problem is None else f"NOT SOUND: {problem}")
    total = ("all", size(sum(sizes.values())))
    output.show(table(("part", "size"), [*((part, size(each)) for part, each in sizes.items()), total], numbers=(1,)))
    if facts["metrics"]:
        output.show(table(("metric", "value"), facts["metrics"].items(), numbers=(1,)))
