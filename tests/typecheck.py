"""What the tests' import hook puts around every function of ours: a check of arrays' shapes and dtypes, nothing else.

mypy checks the other types without running; checking them here too would answer a user's wrong value with a checker's
error before the engine's own words are heard.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float, as mypy has it
_COMPUTED_AXIS = re.compile(r"\w[-+/*]")


def shapes(function: _Function) -> _Function:
    """`function`, checking those of its arguments and results that are annotated as arrays; itself if none is."""
    hints = {name: hint for name, hint in function.__annotations__.items() if _is_checkable(name, hint)}
    if not hints:
        return function
    function.__annotations__ = hints
    return beartype(function, conf=_CONF)


def _is_checkable(name: str, hint: object) -> bool:
    """An argument's computed axis, `U+1`, has nothing to be computed from before the call; a result's has."""
    dims = list(_dims(hint))
    return bool(dims) and (name == "return" or not any(map(_COMPUTED_AXIS.search, dims)))


def _dims(hint: object) -> Iterator[str]:
    """The axes of every array in a hint such as `tuple[Float32[...], Int32[...] | None]`."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        yield hint.dim_str
    for part in get_args(hint):
        yield from _dims(part)
