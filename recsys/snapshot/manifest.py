"""What a snapshot says of itself: `manifest.json`, in exactly one way of writing, so that any flipped byte shows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from recsys.errors import DamagedSnapshot, InvalidInput, MixedSnapshot

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

_ID_CHARS = 16
_ID = re.compile(rf"[0-9a-f]{{{_ID_CHARS}}}")
_PLAIN_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a snapshot."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMeta:
    """What the builder says of a snapshot beside its files; everything in it must be JSON.

    `fingerprints` of "encoder", "index", "ranker" and what else must fit; `features` the ranker's columns in order.
    """

    fingerprints: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`snapshot_id` names the content: files, fingerprints, features and config. `created` in seconds since the epoch.

    `checksum` covers every other field, also those that the id leaves out so that equal content has an equal id.
    """

    format_version: int
    snapshot_id: str
    created: float
    code_version: str
    fingerprints: Mapping[str, str]
    features: tuple[str, ...]
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    checksum: str

    @classmethod
    def of(cls, meta: SnapshotMeta, files: Mapping[str, FileEntry], *, created: float, code_version: str) -> Manifest:
        """The manifest of `files`; InvalidInput where `meta` is not plain JSON (NaN is not)."""
        draft = cls(
            format_version=FORMAT_VERSION,
            snapshot_id="",
            created=created,
            code_version=code_version,
            fingerprints=meta.fingerprints,
            features=meta.features,
            metrics=meta.metrics,
            config=meta.config,
            files=files,
            checksum="",
        )
        try:
            named = replace(draft, snapshot_id=draft.content_id())
            return cls.from_bytes(replace(named, checksum=named.content_checksum()).to_bytes())
        except (TypeError, ValueError) as error:
            raise InvalidInput.of("meta", meta, f"cannot be written as JSON: {error}") from error

    def to_bytes(self) -> bytes:
        """The one way of writing it."""
        return _canonical(asdict(self)) + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes) -> Manifest:
        """Raises DamagedSnapshot, or MixedSnapshot for a format of another version."""
        try:
            fields = json.loads(raw)
            version = fields["format_version"]
            if version != FORMAT_VERSION:
                raise MixedSnapshot(f"format_version={version!r}: this program reads version {FORMAT_VERSION}")
            files = {name: FileEntry(**entry) for name, entry in fields.pop("files").items()}
            manifest = cls(**fields | {"files": files, "features": tuple(fields["features"])})
            sound = manifest.to_bytes() == raw and manifest.checksum == manifest.content_checksum()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedSnapshot(f"{MANIFEST_NAME} is not a snapshot's manifest: {error!r}") from error
        if not sound or manifest.snapshot_id != manifest.content_id():
            raise DamagedSnapshot(f"{MANIFEST_NAME} does not agree with its own checksum")
        for name in files:
            require_plain_name(name)
        return manifest

    def content_id(self) -> str:
        named = {name: getattr(self, name) for name in ("format_version", "fingerprints", "features", "config")}
        files = {name: asdict(entry) for name, entry in self.files.items()}
        return hashlib.sha256(_canonical(named | {"files": files})).hexdigest()[:_ID_CHARS]

    def content_checksum(self) -> str:
        return hashlib.sha256(_canonical(asdict(self) | {"checksum": ""})).hexdigest()


def require_id(snapshot_id: str) -> str:
    """`snapshot_id`, or InvalidInput where it could not be one (and might be a path)."""
    if not _ID.fullmatch(snapshot_id):
        raise InvalidInput.of("snapshot_id", snapshot_id, f"must be {_ID_CHARS} hexadecimal digits")
    return snapshot_id


def require_plain_name(name: str) -> str:
    """`name`, or DamagedSnapshot where it is no plain relative path: no "..", no leading dot or slash."""
    parts = PurePosixPath(name).parts
    if "/".join(parts) != name or not parts or not all(_PLAIN_PART.fullmatch(part) for part in parts):
        raise DamagedSnapshot(f"{name!r} is not a plain file name")
    return name


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
