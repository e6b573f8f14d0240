"""`recsys status`: what lies in a snapshot folder, and what a server serves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.cli.output import Output, table
from recsys.cli.words import day, size
from recsys.client import RecsysClient
from recsys.errors import NotFound, RecsysError, SnapshotError
from recsys.snapshot import Manifest, current_id, list_snapshots, open_snapshot

_CALL_TIMEOUT_S = 5.0


def status(output: Output, *, root: Path, target: str | None) -> None:
    """Raises SnapshotError where the current snapshot is not sound, Unavailable where the server does not answer."""
    if target is not None:
        output.result({"server": _server(output, target)})
        return
    snapshots = [_facts(root, manifest) for manifest in list_snapshots(root)]
    current = _current(root)
    if not snapshots:
        raise NotFound(f"no snapshot in {root}: make one with `recsys train`")
    for each in snapshots:
        _show(output, each, is_current=each["snapshot_id"] == current)
    output.result({"current": current, "snapshots": snapshots})
    problems = [each["problem"] for each in snapshots if each["snapshot_id"] == current]
    if problems != [None]:
        raise SnapshotError(f"the current snapshot cannot be served: {problems[0] if problems else 'there is none'}")


def _server(output: Output, target: str) -> dict[str, Any]:
    with RecsysClient(target, timeout_s=_CALL_TIMEOUT_S) as client:
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


def _current(root: Path) -> str | None:
    try:
        return current_id(root)
    except RecsysError:
        return None


def _sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes by part: a file of the top folder, or a matcher."""
    sizes: dict[str, int] = {}
    for name, entry in manifest.files.items():
        part = "/".join(name.split("/")[:2])
        sizes[part] = sizes.get(part, 0) + entry.size_bytes
    return dict(sorted(sizes.items(), key=lambda pair: -pair[1]))


def _show(output: Output, facts: dict[str, Any], *, is_current: bool) -> None:
    sizes, problem = facts["sizes_bytes"], facts["problem"]
    output.heading(f"{facts['snapshot_id']}  of {day(facts['created'])}{'  (current)' if is_current else ''}")
    output.show("sound" if problem is None else f"NOT SOUND: {problem}")
    total = ("all", size(sum(sizes.values())))
    output.show(table(("part", "size"), [*((part, size(each)) for part, each in sizes.items()), total], numbers=(1,)))
    if facts["metrics"]:
        output.show(table(("metric", "value"), facts["metrics"].items(), numbers=(1,)))
