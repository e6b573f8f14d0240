from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recsys.encode.cache import VectorCache

KEYS = [bytes([row]) * 32 for row in range(200)]


def vectors_of(rows: range) -> np.ndarray:
    return np.array([[row, 0.5, -row] for row in rows], np.float32)


def test_gives_back_what_was_put(tmp_path: Path) -> None:
    VectorCache(tmp_path).put(KEYS[:3], vectors_of(range(3)))
    found = VectorCache(tmp_path).get([KEYS[2], KEYS[9], KEYS[0]])
    assert found.keys() == {KEYS[2], KEYS[0]}
    assert found[KEYS[2]].tolist() == [2, 0.5, -2]


def test_a_later_put_wins(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)
    cache.put(KEYS[:1], vectors_of(range(1)))
    cache.put(KEYS[:1], vectors_of(range(7, 8)))
    assert cache.get(KEYS[:1])[KEYS[0]].tolist() == [7, 0.5, -7]


def test_past_its_size_the_oldest_go(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, max_bytes=50 * 112)
    for start in range(0, 200, 10):
        cache.put(KEYS[start : start + 10], vectors_of(range(start, start + 10)))
    assert sorted(cache.get(KEYS)) == KEYS[150:]


def test_a_flipped_bit_in_a_vector_is_a_miss(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)
    cache.put(KEYS[:2], vectors_of(range(2)))
    with sqlite3.connect(tmp_path / "vectors.sqlite") as other:
        blob = bytearray(other.execute("SELECT vector FROM vectors WHERE key = ?", KEYS[:1]).fetchone()[0])
        blob[1] ^= 4
        other.execute("UPDATE vectors SET vector = ? WHERE key = ?", (bytes(blob), KEYS[0]))
    other.close()
    assert cache.get(KEYS[:2]).keys() == {KEYS[1]}


@pytest.mark.parametrize("offset", [0, 4_096])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, offset: int, caplog: pytest.LogCaptureFixture) -> None:
    first = VectorCache(tmp_path)
    first.put(KEYS, vectors_of(range(200)))
    first.close()
    file = tmp_path / "vectors.sqlite"
    file.write_bytes(file.read_bytes()[:offset] + b"\xff" * 8_192)
    cache = VectorCache(tmp_path)
    assert cache.get(KEYS) == {}
    cache.put(KEYS[:1], vectors_of(range(1)))
    assert VectorCache(tmp_path).get(KEYS).keys() == {KEYS[0]}
    assert "damaged" in caplog.text


def test_threads_may_share_it(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path)

    def work(row: int) -> float:
        cache.put(KEYS[row : row + 1], vectors_of(range(row, row + 1)))
        return float(cache.get(KEYS[row : row + 1])[KEYS[row]][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(100))) == list(range(100))


def test_a_writer_killed_halfway_leaves_all_or_nothing(tmp_path: Path) -> None:
    code = """
import os, sys, numpy as np
from recsys.encode.cache import VectorCache
class Dying(VectorCache):
    def _drop_oldest(self, transaction, dimension):
        os._exit(9)
VectorCache(sys.argv[1]).put([b"a" * 32], np.ones((1, 2), np.float32))
Dying(sys.argv[1]).put([b"b" * 32], np.ones((1, 2), np.float32))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert VectorCache(tmp_path).get([b"a" * 32, b"b" * 32]).keys() == {b"a" * 32}
