"""A text encoder learns what follows what, and comes out as an ordinary model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput
from recsys.train.lora import LoraTraining, Pair, fine_tune, pairs_of
from tests.encode.conftest import write_model
from tests.world import histories_of

pytest.importorskip("peft", reason="fine-tuning needs the extra train")
pytestmark = pytest.mark.filterwarnings(
    # peft asks transformers by a name that transformers has renamed.
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

KINDS = ("red shoe", "blue lamp", "war film", "love story", "garden hose", "steel knife")
PAIRS: list[Pair] = [(f"{KINDS[row % 6]} number {row}", f"{KINDS[(row + 1) % 6]} by maker {row}") for row in range(30)]
TWO_STEPS = LoraTraining(steps=2, batch=30, learning_rate=1e-3)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(device="cpu", dtype="float32")


def test_the_loss_falls_and_the_new_folder_encodes(encoder: TextEncoder, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    fingerprint, vectors = encoder.fingerprint, encoder.encode(KINDS)
    tuned = fine_tune(encoder, PAIRS, tmp_path / "new" / "tuned", TWO_STEPS, progress=lambda *step: told.append(step))
    assert tuned.loss_after < 0.8 * tuned.loss_before
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tuned"]

    after = TextEncoder.load(str(tuned.folder), device="cpu", dtype="float32")
    assert after.fingerprint == tuned.fingerprint != fingerprint
    assert after.dimension == encoder.dimension
    assert right(after) > right(encoder)

    # The model it came from is as it was, on disk and in memory.
    again = TextEncoder.load(device="cpu", dtype="float32")
    assert again.fingerprint == fingerprint
    np.testing.assert_array_equal(encoder.encode(KINDS), vectors)
    assert_only_linear_layers_moved(encoder.folder, tuned.folder)


def right(encoder: TextEncoder) -> float:
    """Mean cosine of a pair above that of others: what the loss drives, on the served path."""
    past, following = encoder.encode([pair[0] for pair in PAIRS]), encoder.encode([pair[1] for pair in PAIRS])
    cosines = past @ following.T
    return float(np.diagonal(cosines).mean() - cosines.mean())


def assert_only_linear_layers_moved(before: Path, after: Path) -> None:
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert not any("lora" in name for name in new)
    moved = [name for name in new if name in old and not np.array_equal(old[name], new[name])]
    assert moved
    assert all(name.endswith(".weight") and "embeddings" not in name and "LayerNorm" not in name for name in moved)


def test_a_folder_that_exists_is_not_overwritten(encoder: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="exists already"):
        fine_tune(encoder, PAIRS, tmp_path, TWO_STEPS)


@pytest.mark.parametrize(("pairs", "reason"), [(PAIRS[:1], "at least 2"), ([("a", "b"), ("c", "")], "no token")])
def test_pairs_that_teach_nothing_are_refused(
    encoder: TextEncoder, tmp_path: Path, pairs: Sequence[Pair], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        fine_tune(encoder, pairs, tmp_path / "new", TWO_STEPS)
    assert caught.value.violations[0].field == "pairs"
    assert not (tmp_path / "new").exists()


def test_pairs_are_the_last_items_and_the_next() -> None:
    texts = ["zero", "one", "two", "three", " "]
    histories = histories_of([[0, 1, 2, 3], [4, 0], [2, 4], [3]])
    assert sorted(pairs_of(histories, texts, last=2)) == [("one. zero", "two"), ("two. one", "three"), ("zero", "one")]
    assert len(pairs_of(histories, texts, last=2, most=2)) == 2
    assert pairs_of(histories, texts, seed=3) == pairs_of(histories, texts, seed=3)


def test_one_next_twice_in_a_batch_is_no_negative(tmp_path: Path) -> None:
    """All nexts alike: there is nothing to tell apart, so the loss is zero; one that differs makes it positive."""
    small = TextEncoder.load(str(write_model(tmp_path / "small")), device="cpu", dtype="float32")
    alike = [("a red shoe", "blue lamp"), ("a war film", "blue lamp")]
    config = LoraTraining(steps=0, batch=3)
    assert fine_tune(small, alike, tmp_path / "alike", config).loss_before == pytest.approx(0.0, abs=1e-6)
    assert fine_tune(small, [*alike, ("love", "a film")], tmp_path / "apart", config).loss_before > 1e-4


@pytest.mark.parametrize("pooling", ["pooling_mode_cls_token", "pooling_mode_max_tokens"])
def test_the_pooling_goes_along(tmp_path: Path, pooling: str) -> None:
    """What is trained is what is served: the loss of the served vectors is the loss that was told."""
    model = write_model(tmp_path / "small", pooling={pooling: True})
    small = TextEncoder.load(str(model), device="cpu", dtype="float32")
    pairs = [("a red shoe", "blue lamp"), ("a war film", "love"), ("the lamp", "shoes")]
    config = LoraTraining(steps=8, batch=3, learning_rate=5e-3, temperature=0.5)
    tuned = fine_tune(small, pairs, tmp_path / "tuned", config)
    after = TextEncoder.load(str(tuned.folder), device="cpu", dtype="float32")
    logits = after.encode([pair[0] for pair in pairs]) @ after.encode([pair[1] for pair in pairs]).T / 0.5
    served = float(np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diagonal(logits)))
    assert served == pytest.approx(tuned.loss_after, abs=1e-4)
    assert tuned.loss_after < tuned.loss_before
