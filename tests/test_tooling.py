"""The tools that watch over the rest watch."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from recsys.data.histories import Histories


def _histories(times: np.ndarray) -> Histories:
    return Histories(
        indptr=np.array([0, 2]),
        items=np.zeros(2, np.int32),
        times=times,
        types=np.zeros(2, np.int16),
        values=np.zeros(2, np.float32),
        baskets=np.zeros(2, np.int32),
        event_types=("view",),
        clock="timestamp",
    )


def test_arrays_of_the_annotated_shape_pass() -> None:
    assert _histories(np.zeros(2)).num_events == 2


@pytest.mark.parametrize("times", [np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros(3)])
def test_arrays_of_another_shape_or_dtype_are_seen(times: np.ndarray) -> None:
    with pytest.raises(TypeCheckError, match="times"):
        _histories(times)


@pytest.mark.unshaped
def test_the_check_can_be_turned_off_for_a_test() -> None:
    assert _histories(np.zeros((2, 1))).times.ndim == 2
