"""Small loops that NumPy has no word for, compiled by Numba when they are first called.

    @kernel
    def _votes(...) -> None: ...

A `kernel` of some microseconds keeps the interpreter's lock: whoever gives it up for so short a time waits for it again
far longer. A `long_kernel`, of a tenth of a millisecond and more, lets other requests run beside it. Machine code is
kept beside the source or in Numba's folder for the user (`NUMBA_CACHE_DIR`); where neither can be written, each process
compiles anew.
Kernels take arrays of fixed types, all contiguous, and change only the ones they are given to fill.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba

# Sums may be taken in any order, so that they fill vector registers; NaN and infinity keep their meaning.
_MATHS = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled; checks of shapes that tests wrap around it are for callers, not for machine code."""
    return _compiled(function, nogil=False)


def long_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel`, without the interpreter's lock."""
    return _compiled(function, nogil=True)


def _compiled(function: Callable[..., Any], *, nogil: bool) -> Callable[..., Any]:
    plain = inspect.unwrap(function)
    try:
        return numba.njit(cache=True, nogil=nogil, error_model="numpy", fastmath=_MATHS)(plain)
    except RuntimeError:  # no folder to keep machine code in
        return numba.njit(nogil=nogil, error_model="numpy", fastmath=_MATHS)(plain)
