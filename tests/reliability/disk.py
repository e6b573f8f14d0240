"""A disk whose power can be cut: a FUSE file system in memory that keeps, over a cut, only what was fsynced.

    python -m tests.reliability.disk MOUNT DURABLE SEED

Unmounting is the cut: what survived is then written to the folder DURABLE. Of each file that is what it held at its
last fsync and, where SEED is not 0, some 512-byte sectors of what was written since, drawn at random: a disk may write
what it was not asked to, in any order, and tear a page in two. A name is kept from the first fsync of its file or
folder on; removals and renames are kept at once, as by a journal of metadata.

Needs /dev/fuse, the right to mount, libfuse (Debian: `apt-get install libfuse2`) and `pip install mfusepy`.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512
ROOT = Path(__file__).parents[2]


@dataclass
class File:
    """`now` is what readers see, `kept` what a cut leaves (None: not even the name)."""

    mode: int
    now: bytearray = field(default_factory=bytearray)
    kept: bytes | None = None

    def sync(self) -> None:
        self.kept = bytes(self.now)

    def after_cut(self, rng: random.Random | None) -> bytes | None:
        if self.kept is None or rng is None:
            return self.kept
        size = rng.choice([len(self.kept), len(self.now)])
        left = bytearray(self.kept[:size].ljust(size, b"\0"))
        for start in range(0, min(size, len(self.now)), SECTOR):
            if rng.random() < 0.5:
                left[start : start + SECTOR] = self.now[start : min(start + SECTOR, size)]
        return bytes(left)


def mount(point: str, durable: Path, seed: int) -> None:
    """Serves until it is unmounted, then writes what was left."""
    import mfusepy

    class Disk(mfusepy.Operations):  # type: ignore[misc]  # it has no types where it is not installed
        use_ns = True

        def __init__(self) -> None:
            self.files: dict[str, File] = {}

        def _file(self, path: str) -> File:
            if path not in self.files:
                raise mfusepy.FuseOSError(errno.ENOENT)
            return self.files[path]

        def access(self, path: str, mode: int) -> int:
            return 0

        def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            file = self._file(path)
            return {"st_mode": stat.S_IFREG | file.mode, "st_nlink": 1, "st_size": len(file.now)}

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", *(name[1:] for name in self.files)]

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            self.files[path] = File(mode & 0o777)
            return 0

        def open(self, path: str, flags: int) -> int:
            self._file(path)
            return 0

        def read(self, path: str, size: int, offset: int, fh: Any) -> bytes:
            return bytes(self._file(path).now[offset : offset + size])

        def write(self, path: str, data: bytes, offset: int, fh: Any) -> int:
            now = self._file(path).now
            if len(now) < offset:
                now.extend(bytes(offset - len(now)))
            now[offset : offset + len(data)] = data
            return len(data)

        def truncate(self, path: str, length: int, fh: Any = None) -> int:
            now = self._file(path).now
            now[length:] = bytes(max(length - len(now), 0))
            return 0

        def chmod(self, path: str, mode: int) -> int:
            self._file(path).mode = mode & 0o777
            return 0

        def chown(self, path: str, uid: int, gid: int) -> int:
            return 0

        def utimens(self, path: str, times: Any = None) -> int:
            return 0

        def unlink(self, path: str) -> int:
            del self.files[path]
            return 0

        def rename(self, old: str, new: str) -> int:
            self.files[new] = self.files.pop(old)
            return 0

        def fsync(self, path: str, datasync: int, fh: Any) -> int:
            self._file(path).sync()
            return 0

        def fsyncdir(self, path: str, datasync: int, fh: Any) -> int:
            for file in self.files.values():
                file.kept = b"" if file.kept is None else file.kept
            return 0

        def flush(self, path: str, fh: Any) -> int:
            return 0

        def release(self, path: str, fh: Any) -> int:
            return 0

        def statfs(self, path: str) -> dict[str, int]:
            return {"f_bsize": 4096, "f_blocks": 1 << 20, "f_bavail": 1 << 19, "f_bfree": 1 << 19}

    disk = Disk()
    mfusepy.FUSE(disk, point, foreground=True, nothreads=True)
    rng = random.Random(seed) if seed else None
    for name, file in disk.files.items():
        left = file.after_cut(rng)
        if left is not None and not name.endswith("-shm"):  # shared memory by another name: no disk has it
            (durable / name[1:]).write_bytes(left)


def missing() -> str:
    """Why there can be no such disk here; empty where there can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"no /dev/fuse: {error}"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError, AttributeError) as error:
        return f"apt-get install libfuse2; pip install mfusepy ({error})"
    return ""


@contextmanager
def disk(folder: Path, seed: int) -> Iterator[tuple[Path, Path]]:
    """(mounted, durable): what was durable lies in the second once the block is left."""
    point, durable = folder / "disk", folder / "durable"
    point.mkdir(parents=True)
    durable.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.disk", str(point), str(durable), str(seed)], cwd=ROOT
    )
    try:
        end = time.monotonic() + 30
        while not point.is_mount():
            assert process.poll() is None, "the disk could not be mounted"
            assert time.monotonic() < end
            time.sleep(0.02)
        yield point, durable
    finally:
        if point.is_mount():
            subprocess.run(["umount", str(point)], check=True)
        process.wait(30)


if __name__ == "__main__":
    mount(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
