"""Snapshots written: aside, fsynced, renamed, and only then made current. A writer may die anywhere.

root/CURRENT               the id of the snapshot that serves, moved by rename
root/LOCK                  held for the moments in which names change
root/snapshots/<id>/       immutable
root/writing/<token>/      of a writer at work, which holds root/writing/<token>.lock; without it, litter
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from recsys import __version__
from recsys.errors import NotFound, RecsysError, SnapshotError
from recsys.snapshot.files import listing, measure, sync, sync_tree, write_atomically
from recsys.snapshot.manifest import MANIFEST_NAME, Manifest, SnapshotMeta
from recsys.snapshot.reader import (
    CURRENT_NAME,
    SNAPSHOTS_NAME,
    current_id,
    list_snapshots,
    newest_sound,
    open_snapshot,
    snapshot_folders,
)

KEPT_SNAPSHOTS = 3
_WRITING_NAME = "writing"
_LOCK_NAME = "LOCK"


class SnapshotWriter:
    """Write files into `path`, then `commit`; leaving without a commit leaves nothing.

        with SnapshotWriter(root) as writer:
            index.save(writer.path / "items.faiss")
            snapshot_id = writer.commit(SnapshotMeta(...))

    Any number may work below one root at the same time, in any processes of one machine.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._token = secrets.token_hex(8)
        self.path = root / _WRITING_NAME / self._token

    def __enter__(self) -> Self:
        for folder in (self._root / SNAPSHOTS_NAME, self.path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with _names_change(self._root):
            _sweep(self.path.parent)
            self._lock = os.open(_lock_file(self.path), os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.path.mkdir()
        return self

    def commit(self, meta: SnapshotMeta, *, activate: bool = True, replaces: str = "") -> str:
        """Make the files a snapshot, current unless told otherwise, and drop the oldest beyond three; its id.

        Equal content has an equal id and is kept once. With `replaces` it takes the place of that snapshot, which is
        removed: it is as old, and current only if that was. Raises InvalidInput (`meta` is not JSON), SnapshotError (a
        name that is not plain, a second commit), NotFound (nothing to replace).
        """
        if not self.path.is_dir():
            raise SnapshotError("this writer has already committed, or was never entered")
        files = measure(self.path, sorted(listing(self.path)))
        created = _old(self._root, replaces).created if replaces else time.time()
        manifest = Manifest.of(meta, files, created=created, code_version=__version__)
        (self.path / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        sync_tree(self.path)
        with _names_change(self._root):
            self._publish(manifest.snapshot_id)
            if _is_current(self._root, replaces) if replaces else activate:
                _point(self._root, manifest.snapshot_id)
            if replaces and replaces != manifest.snapshot_id:
                shutil.rmtree(self._root / SNAPSHOTS_NAME / replaces)
            _prune(self._root, keep=manifest.snapshot_id)
        return manifest.snapshot_id

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _names_change(self._root):
            _remove(self.path)
            os.close(self._lock)

    def _publish(self, snapshot_id: str) -> None:
        """Rename into place. What is there under the same id stays if it is sound, for someone may be reading it."""
        target = self._root / SNAPSHOTS_NAME / snapshot_id
        if target.exists():
            try:
                open_snapshot(self._root, snapshot_id)
            except SnapshotError:
                target.rename(self.path.with_name(f"{self._token}.damaged"))
            else:
                return
        self.path.rename(target)
        sync(target.parent)


def remove(root: Path, snapshot_id: str) -> None:
    """Remove a snapshot. Raises NotFound, SnapshotError for the current one."""
    with _names_change(root):
        if _is_current(root, snapshot_id):
            raise SnapshotError(f"snapshot {snapshot_id} is the current one")
        _old(root, snapshot_id)
        shutil.rmtree(root / SNAPSHOTS_NAME / snapshot_id)


def clear_litter(root: Path) -> None:
    """Remove what writers that died left half written."""
    with _names_change(root):
        if (root / _WRITING_NAME).is_dir():
            _sweep(root / _WRITING_NAME)


def activate(root: Path, snapshot_id: str) -> None:
    """Make a snapshot current, once it has been verified. Raises NotFound, SnapshotError."""
    with _names_change(root):
        open_snapshot(root, snapshot_id)
        _point(root, snapshot_id)


def rollback(root: Path) -> str:
    """Make the newest sound snapshot that is older than the current one current; its id. Raises NotFound."""
    with _names_change(root):
        ids = [manifest.snapshot_id for manifest in list_snapshots(root)]
        now = current_id(root)
        older = ids[ids.index(now) + 1 :] if now in ids else ids
        sound = newest_sound(root, among=older)
        _point(root, sound.snapshot_id)
        return sound.snapshot_id


def _old(root: Path, snapshot_id: str) -> Manifest:
    found = next((each for each in list_snapshots(root) if each.snapshot_id == snapshot_id), None)
    if found is None:
        raise NotFound(f"no snapshot {snapshot_id} in {root}")
    return found


def _is_current(root: Path, snapshot_id: str) -> bool:
    try:
        return current_id(root) == snapshot_id
    except RecsysError:
        return False


def _point(root: Path, snapshot_id: str) -> None:
    write_atomically(root / CURRENT_NAME, f"{snapshot_id}\n".encode())


def _prune(root: Path, *, keep: str) -> None:
    """Drop all but the newest three, never `keep` or the current one."""
    ids = [manifest.snapshot_id for manifest in list_snapshots(root)]
    try:
        current = current_id(root)
    except RecsysError:
        current = ""
    kept = {*ids[:KEPT_SNAPSHOTS], keep, current}
    for path in snapshot_folders(root):
        if path.name not in kept:
            shutil.rmtree(path)


@contextmanager
def _names_change(root: Path) -> Iterator[None]:
    """One at a time, across processes: the lock goes with the process that holds it, whichever way that ends."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / _LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(writing: Path) -> None:
    """Remove what dead writers left: whatever has no live lock."""
    for path in {entry.with_name(entry.name.partition(".")[0]) for entry in writing.iterdir()}:
        descriptor = os.open(_lock_file(path), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _remove(path: Path) -> None:
    for folder in (path, path.with_name(f"{path.name}.damaged")):
        if folder.exists():
            shutil.rmtree(folder)
    _lock_file(path).unlink(missing_ok=True)
