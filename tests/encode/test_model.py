from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.encode.model import PassageModel, token_batches
from recsys.encode.source import ModelSource


class SmallMemory(torch.nn.Module):
    """Answers each token with its own id as direction, and runs out of memory beyond `most` passages."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.sizes: list[int] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        self.sizes.append(len(input_ids))
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError
        return SimpleNamespace(last_hidden_state=torch.nn.functional.one_hot(input_ids, 8).float())


def passage_model(network: torch.nn.Module) -> PassageModel:
    source = ModelSource(folder=None, pooling="mean", dimension=8, window=16, fingerprint="")  # type: ignore[arg-type]  # no files needed
    return PassageModel(network, source, pad_id=0, device=torch.device("cpu"))


def test_out_of_memory_halves_the_batch() -> None:
    network = SmallMemory(most=2)
    vectors = passage_model(network).embed([[row] * 3 for row in range(1, 8)])
    np.testing.assert_array_equal(vectors, np.eye(8)[1:])
    assert max(network.sizes) == 7
    assert min(network.sizes) <= 2


def test_out_of_memory_at_one_passage_on_the_cpu_is_the_end() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        passage_model(SmallMemory(most=0)).embed([[1]])


def test_padding_does_not_count() -> None:
    vectors = passage_model(SmallMemory(most=9)).embed([[1, 1, 1, 1, 1, 1], [2]])
    np.testing.assert_array_equal(vectors, np.eye(8)[1:3])


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1_000))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(np.array(lengths, np.int64), budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
