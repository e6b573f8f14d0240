"""One directory holds one coherent model; it serves whole and verified, or not at all."""

from recsys.snapshot.manifest import FORMAT_VERSION, MANIFEST_NAME, FileEntry, Manifest, SnapshotMeta
from recsys.snapshot.reader import Snapshot, current_id, list_snapshots, newest_sound, open_snapshot
from recsys.snapshot.writer import KEPT_SNAPSHOTS, SnapshotWriter, activate, clear_litter, remove, rollback

__all__ = [
    "FORMAT_VERSION",
    "KEPT_SNAPSHOTS",
    "MANIFEST_NAME",
    "FileEntry",
    "Manifest",
    "Snapshot",
    "SnapshotMeta",
    "SnapshotWriter",
    "activate",
    "clear_litter",
    "current_id",
    "list_snapshots",
    "newest_sound",
    "open_snapshot",
    "remove",
    "rollback",
]
