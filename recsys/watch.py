"""Where a call's time goes: parts of the engine name their stages and caches, and whoever serves may watch.

Without a watcher a stage costs one look at a context variable, some 50 ns.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Watcher(Protocol):
    """Sees one call; its methods are called by the thread that works on it."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage has ended, well or not."""
        ...

    def cache(self, name: str, hits: int, misses: int) -> None:
        """A cache was asked."""
        ...


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def watch(watcher: Watcher | None) -> None:
    """For the rest of this context: gRPC runs each call in a context of its own."""
    _watcher.set(watcher)


def watcher() -> Watcher | None:
    """Who watches here."""
    return _watcher.get()


class stage:  # noqa: N801 - used as a verb, like `suppress`
    """`with stage("rank"):` tells the watcher how long the block took."""

    __slots__ = ("_began", "_name", "_watcher")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._watcher = _watcher.get()
        if self._watcher is not None:
            self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.stage(self._name, time.perf_counter() - self._began)


def staged(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Each call of the function is a stage."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed(*arguments: P.args, **named: P.kwargs) -> R:
            with stage(name):
                return function(*arguments, **named)

        return timed

    return decorate


def asked(cache: str, *, hits: int, misses: int) -> None:
    """A cache answered `hits` of `hits + misses` questions."""
    if (watcher := _watcher.get()) is not None:
        watcher.cache(cache, hits, misses)
