"""The kernel: QuickScorer (Lucchese et al. 2015, "QuickScorer: a Fast Algorithm to Rank Documents with Additive
Ensembles of Regression Trees"), a block of rows at a time, compiled by numba.

A tree's leaves are bits, the leftmost leaf the lowest. A split that sends a row right clears the bits of the leaves on
its left; when all splits of the tree were asked, in any order, the lowest bit left is the row's leaf. No branch depends
on the data, and LLVM asks each split of 8 to 32 rows at once.

Machine code is kept in `NUMBA_CACHE_DIR` where that is set, else in `$XDG_CACHE_HOME/longrec/kernels`
(`~/.cache/longrec/kernels`); where no folder can be written, each process compiles anew.

Letters: R rows, F features, B rows of a block, C columns (features that are split on), T trees, S splits, L leaves.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

BLOCK = 128
"""Rows of a block: at 128 rows 60 columns take 30 KB, which a first-level cache holds; 64 and 256 were slower."""
MASKS = (np.uint16, np.uint32, np.uint64)
"""One bit a leaf, in the narrowest that has enough: half the width is twice the rows at once."""

_LANES = 32  # rows are computed in multiples of this, the most that one instruction takes
_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold: what is no larger counts as 0
_log = logging.getLogger("recsys.forest")
_lock = threading.Lock()

Kernel = Callable[..., None]


def kernel_cache_folder() -> Path:
    """Where machine code is kept between runs unless NUMBA_CACHE_DIR says otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "longrec" / "kernels"


@functools.cache
def load_kernel(mask: type[np.unsignedinteger[Any]]) -> Kernel:
    """`_score` for masks of one of MASKS, from the cache where it is there, else compiled (about a second).

    Raises what numba raises where it cannot compile at all.
    """
    numba_mask = numba.from_dtype(np.dtype(mask))
    with _lock:
        for attempt in (_cached, _mended):
            try:
                return attempt(numba_mask)
            except RuntimeError as error:  # no folder can be written
                _log.info("the kernel is compiled anew in each process: %s", error)
                break
            except Exception:  # noqa: BLE001 - what a damaged cache raises is up to pickle
                _log.warning("the kernel's cache cannot be used", exc_info=True)
        return _compiled(numba_mask)


def _cached(mask: types.Type) -> Kernel:
    with _cache_folder(kernel_cache_folder()):
        return _compiled(mask, cache=True)


def _mended(mask: types.Type) -> Kernel:
    """Once more without what was in our folder. One that the user named is not ours to empty."""
    shutil.rmtree(kernel_cache_folder(), ignore_errors=True)
    return _cached(mask)


def _compiled(mask: types.Type, *, cache: bool = False) -> Kernel:
    """No fast-math: a sum in another order has other bits."""
    plain = inspect.unwrap(_score)  # tests wrap functions; machine code is made of ours
    made: Kernel = numba.njit(_signature(mask), nogil=True, error_model="numpy", cache=cache)(plain)
    return made


@contextmanager
def _cache_folder(path: Path) -> Iterator[None]:
    """numba keeps code in `path`, unless the user has named a folder."""
    config: Any = numba.config  # it makes its attributes while it runs
    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(path)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _signature(mask: types.Type) -> Any:
    def read(dtype: types.Type, dimensions: int = 1) -> types.Type:
        return types.Array(dtype, dimensions, "C", readonly=True)

    ints, floats = read(types.int64), read(types.float32)
    return types.void(
        read(types.float32, 2),
        *(ints, floats, floats),
        *(read(types.int64, 2), ints, floats, read(mask)),
        *(ints, read(types.float64)),
        mask,
        types.Array(types.float64, 1, "C"),
    )


@intrinsic
def _lowest_bit(context: Any, mask: types.Type) -> Any:
    """The place of the lowest set bit: one instruction, for which Python has no word."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        undefined_for_zero = context.get_constant(types.boolean, 1)
        return builder.cttz(arguments[0], undefined_for_zero)

    return mask(mask), emit


def _score(  # type: ignore[no-untyped-def]  # numba has the types
    rows, feature, zero, nan, groups, column, threshold, keep, first_leaf, leaf, every, out
):
    """Adds each row's leaf values to `out` [R], tree after tree, as LightGBM does.

    rows [R, F]; feature, zero, nan [C]: which feature a column reads, and what it reads for 0 and for NaN;
    groups [T, 3]: a tree's splits that send NaN left, those that send it right, their end; an even number each.
    column, threshold, keep [S]: a row whose column is above the threshold keeps only the leaves of `keep`.
    first_leaf [T], leaf [L]: leaf values from left to right; every: all bits set.
    """
    block = np.empty((feature.shape[0], BLOCK), np.float32)
    left = np.empty(BLOCK, keep.dtype)
    for start in range(0, rows.shape[0], BLOCK):
        count = min(BLOCK, rows.shape[0] - start)
        width = (count + _LANES - 1) // _LANES * _LANES  # rows after the last are computed, and not looked at
        for r in range(count):
            for c in range(feature.shape[0]):
                block[c, r] = rows[start + r, feature[c]]
        for c in range(feature.shape[0]):
            for r in range(count):
                x = block[c, r]
                x = zero[c] if abs(x) <= _ZERO else x
                block[c, r] = x if x == x else nan[c]
        for t in range(groups.shape[0]):
            for r in range(width):
                left[r] = every
            # Two splits at a time, so that masks are read and written half as often.
            for s in range(groups[t, 0], groups[t, 1], 2):
                c0, t0, k0 = column[s], threshold[s], keep[s]
                c1, t1, k1 = column[s + 1], threshold[s + 1], keep[s + 1]
                for r in range(width):
                    m0 = k0 if block[c0, r] > t0 else every
                    m1 = k1 if block[c1, r] > t1 else every
                    left[r] = left[r] & m0 & m1
            for s in range(groups[t, 1], groups[t, 2], 2):
                c0, t0, k0 = column[s], threshold[s], keep[s]
                c1, t1, k1 = column[s + 1], threshold[s + 1], keep[s + 1]
                for r in range(width):
                    m0 = every if block[c0, r] <= t0 else k0
                    m1 = every if block[c1, r] <= t1 else k1
                    left[r] = left[r] & m0 & m1
            for r in range(count):
                out[start + r] += leaf[first_leaf[t] + np.int64(_lowest_bit(left[r]))]  # type: ignore[call-arg]
