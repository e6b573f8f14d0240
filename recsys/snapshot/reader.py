"""Snapshots opened: verified whole, before any parser sees a byte."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import DamagedSnapshot, InvalidInput, MixedSnapshot, NotFound, SnapshotError
from recsys.snapshot.files import listing, measure
from recsys.snapshot.manifest import MANIFEST_NAME, Manifest, require_id

CURRENT_NAME = "CURRENT"
SNAPSHOTS_NAME = "snapshots"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder whose every file is the one that was written."""

    path: Path
    manifest: Manifest

    @property
    def snapshot_id(self) -> str:
        return self.manifest.snapshot_id

    def file(self, name: str) -> Path:
        """The path of a file of the manifest; DamagedSnapshot where there is none of that name."""
        if name not in self.manifest.files:
            raise DamagedSnapshot(f"snapshot {self.snapshot_id} holds no {name}")
        return self.path / name

    def expect(self, fingerprints: Mapping[str, str], features: Sequence[str] | None = None) -> None:
        """Raises MixedSnapshot, naming what differs, unless the manifest's fingerprints and features are these."""
        for name, wanted in fingerprints.items():
            found = self.manifest.fingerprints.get(name)
            if found != wanted:
                raise MixedSnapshot(f"snapshot {self.snapshot_id} was made with {name} {found}, here is {wanted}")
        if features is not None and tuple(features) != self.manifest.features:
            differ = sorted(set(features) ^ set(self.manifest.features)) or "their order"
            raise MixedSnapshot(f"snapshot {self.snapshot_id} was made with other features: {differ}")


def open_snapshot(root: Path, snapshot_id: str | None = None) -> Snapshot:
    """The current snapshot below `root`, or the one named, with every size and SHA-256 verified.

    Raises NotFound (no such snapshot), DamagedSnapshot (naming the file), MixedSnapshot (an unknown format).
    """
    path = _folder(root, current_id(root) if snapshot_id is None else snapshot_id)
    manifest = read_manifest(path)
    try:
        _verify(path, manifest)
    except OSError as error:
        raise DamagedSnapshot(f"{path.name} cannot be read: {error}") from error
    return Snapshot(path, manifest)


def current_id(root: Path) -> str:
    """The id that CURRENT names. Raises NotFound, or DamagedSnapshot where CURRENT holds something else."""
    try:
        text = (root / CURRENT_NAME).read_text("ascii")
        return require_id(text.removesuffix("\n"))
    except FileNotFoundError as error:
        raise NotFound(f"no snapshot is current in {root}") from error
    except (OSError, ValueError, InvalidInput) as error:
        raise DamagedSnapshot(f"{CURRENT_NAME} cannot be read: {error}") from error


def list_snapshots(root: Path) -> list[Manifest]:
    """The manifests below `root`, newest first; those that cannot be read are left out, files are not verified."""
    manifests = []
    for path in snapshot_folders(root):
        try:
            manifests.append(read_manifest(path))
        except SnapshotError:
            continue
    return sorted(manifests, key=lambda manifest: (manifest.created, manifest.snapshot_id), reverse=True)


def newest_sound(root: Path, *, among: Collection[str] | None = None) -> Snapshot:
    """The newest snapshot (of the ids `among`) that verifies, passing over damaged ones. Raises NotFound if none."""
    for manifest in list_snapshots(root):
        if among is None or manifest.snapshot_id in among:
            try:
                return open_snapshot(root, manifest.snapshot_id)
            except (SnapshotError, NotFound):
                continue
    raise NotFound(f"no sound snapshot in {root}")


def read_manifest(path: Path) -> Manifest:
    """The manifest of a snapshot's folder, checked against itself and the folder's name."""
    file = path / MANIFEST_NAME
    if file.is_symlink() or not file.is_file():
        raise DamagedSnapshot(f"{path.name}/{MANIFEST_NAME} is missing")
    manifest = Manifest.from_bytes(file.read_bytes())
    if manifest.snapshot_id != path.name:
        raise DamagedSnapshot(f"{path.name}/{MANIFEST_NAME} is that of snapshot {manifest.snapshot_id}")
    return manifest


def snapshot_folders(root: Path) -> list[Path]:
    folder = root / SNAPSHOTS_NAME
    return sorted(path for path in folder.iterdir() if _is_folder(path)) if folder.is_dir() else []


def _verify(path: Path, manifest: Manifest) -> None:
    found = {name: size for name, size in listing(path).items() if name != MANIFEST_NAME}
    for name in sorted(found.keys() ^ manifest.files.keys()):
        what = "is not in the manifest" if name in found else "is missing"
        raise DamagedSnapshot(f"{path.name}/{name} {what}")
    for name, entry in manifest.files.items():
        if found[name] != entry.size_bytes:
            raise DamagedSnapshot(f"{path.name}/{name} has {found[name]} bytes, the manifest says {entry.size_bytes}")
    for name, entry in measure(path, manifest.files).items():
        if entry != manifest.files[name]:
            wanted = manifest.files[name].sha256
            raise DamagedSnapshot(f"{path.name}/{name} has SHA-256 {entry.sha256}, the manifest says {wanted}")


def _folder(root: Path, snapshot_id: str) -> Path:
    path = root / SNAPSHOTS_NAME / require_id(snapshot_id)
    if not _is_folder(path):
        raise NotFound(f"no snapshot {snapshot_id} in {root}")
    return path


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
