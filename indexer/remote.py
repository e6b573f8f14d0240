"""Snapshots to and from object storage, by any URL of fsspec. Servers read local folders: `fetch` brings them there.

A remote root looks like a local one: CURRENT and snapshots/<id>/. Objects appear whole; a snapshot is uploaded under a
new name, its manifest last, and only then CURRENT changes. There is no lock: of two uploads at once both are whole and
the later one is current.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec

from recsys.errors import DamagedSnapshot, InvalidInput, NotFound, SnapshotError
from recsys.snapshot import (
    KEPT_SNAPSHOTS,
    MANIFEST_NAME,
    Manifest,
    SnapshotMeta,
    SnapshotWriter,
    open_snapshot,
)
from recsys.snapshot.files import measure
from recsys.snapshot.manifest import require_id
from recsys.snapshot.reader import CURRENT_NAME, SNAPSHOTS_NAME


def is_remote(url: str) -> bool:
    """Whether `url` is a place that only fsspec reaches. Raises InvalidInput for a protocol that it does not know."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme not in fsspec.available_protocols():
        raise InvalidInput.of("--out", url, "unknown kind of storage; known: a folder, and what fsspec reaches")
    return bool(separator) and scheme not in ("file", "local")


def local_path(url: str) -> Path:
    """The folder that a local URL or path names."""
    return Path(url.removeprefix("file://").removeprefix("local://"))


class RemoteRoot:
    """Snapshots below a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidInput.of("url", url, f"cannot be opened: {error}") from error

    def current_id(self) -> str:
        """Raises NotFound, DamagedSnapshot."""
        try:
            text = self._files.cat_file(self._at(CURRENT_NAME)).decode("ascii")
            return require_id(text.removesuffix("\n"))
        except FileNotFoundError as error:
            raise NotFound(f"no snapshot is current in {self.url}") from error
        except (ValueError, InvalidInput) as error:
            raise DamagedSnapshot(f"{CURRENT_NAME} of {self.url} cannot be read: {error}") from error

    def manifests(self) -> list[Manifest]:
        """Of all whole snapshots, newest first; what has no readable manifest is left out."""
        found = []
        for snapshot_id in self._ids():
            try:
                found.append(self._manifest(snapshot_id))
            except (FileNotFoundError, SnapshotError):
                continue
        return sorted(found, key=lambda each: (each.created, each.snapshot_id), reverse=True)

    def upload(self, root: Path, snapshot_id: str) -> None:
        """Copy a local snapshot, make it current, keep three. What an upload that died left goes first."""
        snapshot = open_snapshot(root, snapshot_id)
        whole = {each.snapshot_id for each in self.manifests()}
        for left in set(self._ids()) - whole:
            self._files.rm(self._at(SNAPSHOTS_NAME, left), recursive=True)
        if snapshot_id not in whole:
            for name in (*snapshot.manifest.files, MANIFEST_NAME):
                target = self._at(SNAPSHOTS_NAME, snapshot_id, name)
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(snapshot.path / name), target)
        self._point(snapshot_id)
        ids = [each.snapshot_id for each in self.manifests()]
        for old in set(ids) - {*ids[:KEPT_SNAPSHOTS], snapshot_id}:
            self._files.rm(self._at(SNAPSHOTS_NAME, old, MANIFEST_NAME))  # first: without it nobody takes the rest
            self._files.rm(self._at(SNAPSHOTS_NAME, old), recursive=True)

    def fetch(self, folder: Path, snapshot_id: str | None = None) -> str:
        """Bring the current snapshot, or the one named, below a local `folder` and make it current there; its id.

        Every byte is compared with the manifest before it is published. Raises NotFound, DamagedSnapshot.
        """
        wanted = snapshot_id or self.current_id()
        try:
            manifest = self._manifest(wanted)
        except FileNotFoundError as error:
            raise NotFound(f"no snapshot {wanted} in {self.url}") from error
        with SnapshotWriter(folder) as writer:
            for name in manifest.files:
                target = writer.path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._files.get_file(self._at(SNAPSHOTS_NAME, wanted, name), str(target))
                except FileNotFoundError as error:
                    raise DamagedSnapshot(f"{wanted}/{name} is missing in {self.url}") from error
            for name, entry in measure(writer.path, manifest.files).items():
                if entry != manifest.files[name]:
                    raise DamagedSnapshot(f"{wanted}/{name} of {self.url} has SHA-256 {entry.sha256}, not that written")
            meta = SnapshotMeta(
                fingerprints=manifest.fingerprints,
                features=manifest.features,
                metrics=manifest.metrics,
                config=manifest.config,
            )
            return writer.commit(meta)

    def rollback(self) -> str:
        """Make the newest snapshot that is older than the current one current; its id. Raises NotFound."""
        now, ids = self.current_id(), [each.snapshot_id for each in self.manifests()]
        older = ids[ids.index(now) + 1 :] if now in ids else ids
        if not older:
            raise NotFound(f"no snapshot of {self.url} is older than the current one")
        self._point(older[0])
        return older[0]

    def _manifest(self, snapshot_id: str) -> Manifest:
        raw: Any = self._files.cat_file(self._at(SNAPSHOTS_NAME, require_id(snapshot_id), MANIFEST_NAME))
        manifest = Manifest.from_bytes(raw)
        if manifest.snapshot_id != snapshot_id:
            raise DamagedSnapshot(f"{snapshot_id}/{MANIFEST_NAME} is that of snapshot {manifest.snapshot_id}")
        return manifest

    def _ids(self) -> list[str]:
        folder = self._at(SNAPSHOTS_NAME)
        self._files.invalidate_cache()
        if not self._files.isdir(folder):
            return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in self._files.ls(folder, detail=False))

    def _point(self, snapshot_id: str) -> None:
        self._files.pipe_file(self._at(CURRENT_NAME), f"{snapshot_id}\n".encode())

    def _at(self, *parts: str) -> str:
        return "/".join((self._path.rstrip("/"), *parts))
