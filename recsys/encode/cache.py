"""Vectors by content, on disk, so that no text is encoded twice. Losing it costs time, never an answer.

One SQLite file: transactions make it safe against a kill at any moment, and several processes may share it. Each
vector carries a CRC, for SQLite does not notice flipped bits in a value; a damaged row is a miss, a damaged file is
begun anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recsys.watch import asked

_log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    crc INTEGER NOT NULL,
    vector BLOB NOT NULL
);
"""
_KEYS_PER_QUERY = 500
_ROW_OVERHEAD_BYTES = 100  # key twice, ids and page slack, beside the vector


class VectorCache:
    """A folder of float32 vectors by 32-byte key; past `max_bytes` (about) the oldest go. Safe across threads."""

    def __init__(self, folder: str | Path, *, max_bytes: int = 2 * 1024**3) -> None:
        self._path = Path(folder) / "vectors.sqlite"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Float32[np.ndarray, " D"]]:
        """The vectors of those `keys` that are known and sound."""
        found: dict[bytes, Float32[np.ndarray, " D"]] = {}
        with self._lock:
            try:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    found.update(self._read(keys[start : start + _KEYS_PER_QUERY]))
            except sqlite3.DatabaseError as error:
                self._give_up(error)
        asked("vectors", hits=len(found), misses=len(keys) - len(found))
        return found

    def put(self, keys: Sequence[bytes], vectors: Float32[np.ndarray, "N D"]) -> None:
        """Remember `vectors`, all or none of them; a full disk is logged and forgotten."""
        blobs = [vector.astype("<f4").tobytes() for vector in vectors]
        rows = [(key, zlib.crc32(key + blob), blob) for key, blob in zip(keys, blobs, strict=True)]
        with self._lock:
            try:
                with self._connection as transaction:
                    transaction.executemany("INSERT OR REPLACE INTO vectors (key, crc, vector) VALUES (?, ?, ?)", rows)
                    self._drop_oldest(transaction, vectors.shape[1])
            except sqlite3.DatabaseError as error:
                self._give_up(error)

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # power loss may cost the last rows, not the file
        connection.executescript(_SCHEMA)
        return connection

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Float32[np.ndarray, " D"]]:
        query = f"SELECT key, crc, vector FROM vectors WHERE key IN ({','.join('?' * len(keys))})"
        rows = self._connection.execute(query, keys)
        return {key: np.frombuffer(blob, "<f4") for key, crc, blob in rows if zlib.crc32(key + blob) == crc}

    def _drop_oldest(self, transaction: sqlite3.Connection, dimension: int) -> None:
        keep = self._max_bytes // (4 * dimension + _ROW_OVERHEAD_BYTES)
        transaction.execute("DELETE FROM vectors WHERE id <= (SELECT max(id) FROM vectors) - ?", (keep,))

    def _give_up(self, error: sqlite3.DatabaseError) -> None:
        """A busy or full disk passes (OperationalError); a damaged file does not mend."""
        if isinstance(error, sqlite3.OperationalError):
            _log.warning("vector cache %s: %s; going on without", self._path, error)
        else:
            self._connection.close()
            self._begin_anew(error)

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        _log.warning("vector cache %s is damaged (%s); beginning a new one", self._path, error)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._connection = self._open()
