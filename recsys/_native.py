"""The native libraries, readied once: import this before torch, faiss or lightgbm.

    from recsys import _native  # noqa: F401

Whatever the user has set in the environment wins. What is set here, and why:

- `OMP_WAIT_POLICY=PASSIVE`: libgomp's waiting threads spin otherwise, and beside any other load a 1.6 ms linear layer
  takes 10 to 24 ms.
- `TOKENIZERS_PARALLELISM=false`: tokenising is a fiftieth of encoding, and its thread pool does not survive a fork.
- torch is imported first: it brings the OpenMP runtime that lightgbm needs and a slim system lacks.
- malloc keeps blocks of up to 32 MiB instead of giving each batch's buffers back to the kernel: text encoding gains
  13 %. glibc climbs to these very figures by itself once large blocks have been freed; this only starts there.

`OMP_NUM_THREADS` is left alone: a bulk job wants every core, and a server calls `limit_threads(1)` to run requests side
by side instead.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_KEEP_BLOCK_BYTES = 32 * 1024**2  # the most glibc accepts
_KEEP_TOP_BYTES = 2 * _KEEP_BLOCK_BYTES


def _keep_freed_memory() -> None:
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if tuned or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_TOP_BYTES)


for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
_keep_freed_memory()

import torch  # noqa: E402  (the environment above has to be set first)
from threadpoolctl import threadpool_limits  # noqa: E402


def threads() -> int:
    """How many threads one native call may use: `limit_threads`, else OMP_NUM_THREADS, else the cores."""
    return torch.get_num_threads()


def limit_threads(count: int) -> None:
    """Let each native call use at most `count` threads (torch, faiss, BLAS; LightGBM takes `num_threads` a call)."""
    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """What is imported within finds none of `packages`, unless they are loaded already.

    LightGBM imports scikit-learn and pandas where they are installed, for interfaces that nothing here uses: more than
    a second of a start. LightGBM's own interface in scikit-learn's manner is then not to be had in this process: for
    a program of ours, never where somebody else's code runs, too.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not to be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def side_by_side() -> Iterator[None]:
    """One thread a native call while the caller runs several itself.

    Sparse products and sorts use one thread anyway: two batches at a time beat one batch on two threads by half, and
    cost 8 ms of CPU a query instead of 13.
    """
    before = threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
