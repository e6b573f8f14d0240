"""The snapshot folder as every command sees it: the same words where nothing is there, or nothing is current."""

from __future__ import annotations

from pathlib import Path

from recsys.errors import NotFound
from recsys.snapshot import Manifest, current_id, list_snapshots


def some_snapshots(root: Path) -> list[Manifest]:
    """The snapshots below `root`, newest first; NotFound, with what to do, where there is none."""
    found = list_snapshots(root)
    if not found:
        raise NotFound(f"no snapshot in {root}: make one with `recsys train`, or name another folder with --snapshots")
    return found


def current_snapshot(root: Path) -> str:
    """The current one's id. Raises NotFound where there is none, DamagedSnapshot where CURRENT cannot be read."""
    some_snapshots(root)
    return current_id(root)


def store_exists(store: str) -> bool:
    """Whether there is a store to ask: nobody wants one made by asking."""
    return "://" in store or Path(store).is_file()
