"""Files to disk for good, and files judged: fsync, rename, SHA-256."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recsys.errors import DamagedSnapshot
from recsys.snapshot.manifest import FileEntry, require_plain_name

_HASH_THREADS = 4


def measure(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """Size and SHA-256 of files in `folder`; several at once, for hashing runs without the interpreter's lock."""
    names = list(names)
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        return dict(zip(names, pool.map(_entry, [folder / name for name in names]), strict=True))


def listing(folder: Path) -> dict[str, int]:
    """The size of each file below `folder` by its relative name; DamagedSnapshot for links, devices and odd names."""
    sizes: dict[str, int] = {}
    for path in _walk(folder):
        name, status = path.relative_to(folder).as_posix(), path.lstat()
        require_plain_name(name)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedSnapshot(f"{name} is not a regular file")
        sizes[name] = status.st_size
    return sizes


def sync_tree(folder: Path) -> None:
    """fsync every file and directory at and below `folder`, files first."""
    for path in _walk(folder):
        sync(path)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """fsync one file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """`path` holds either what it held or all of `data`, also after power loss."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(data)
    sync(aside)
    aside.rename(path)
    sync(path.parent)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below `folder` that is not a directory; a link to a directory is a link."""
    for base, folders, names in os.walk(folder):
        for name in names + [name for name in folders if Path(base, name).is_symlink()]:
            yield Path(base, name)


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(size_bytes=os.fstat(file.fileno()).st_size, sha256=digest)
