"""Item codes: the directions in which texts differ most, the same tomorrow as today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.encode.codes import ItemCodes
from tests.world import ENCODER, item_of


def texts(num_items: int = 40) -> np.ndarray:
    return ENCODER.encode([item_of(row).text for row in range(num_items)])


def test_codes_have_unit_length() -> None:
    codes = ItemCodes.fit(texts(), 8).of(texts())
    assert codes.shape == (40, 8)
    assert codes.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, atol=1e-5)


def test_directions_are_those_of_most_difference() -> None:
    """Texts that differ ten times as much along two axes, around a mean that is no difference."""
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 10.0, 1.0, 20.0, 1.0])
    fitted = ItemCodes.fit((rng.standard_normal((500, 5)) * spread + 100.0).astype(np.float32), 2)
    assert np.abs(fitted.directions[3, 0]) > 0.99
    assert np.abs(fitted.directions[1, 1]) > 0.99
    np.testing.assert_allclose(fitted.mean, 100.0, atol=3.0)


def test_all_directions_keep_all_cosines() -> None:
    vectors = texts()
    codes = ItemCodes.fit(vectors, 32).of(vectors)
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(codes @ codes.T, centred @ centred.T, atol=1e-4)


def test_an_item_of_tomorrow_has_the_code_of_the_same_text_today() -> None:
    fitted, old = ItemCodes.fit(texts(), 8), texts()
    late = ENCODER.encode([item_of(row).text for row in (3, 17)])
    np.testing.assert_allclose(fitted.of(late), fitted.of(old)[[3, 17]], atol=1e-6)


def test_like_texts_have_like_codes() -> None:
    fitted = ItemCodes.fit(texts(), 16)
    asked, same_kind_and_maker, other = fitted.of(ENCODER.encode([item_of(row).text for row in (100, 135, 103)]))
    assert asked @ same_kind_and_maker > asked @ other + 0.3


def test_no_text_no_code() -> None:
    vectors = texts()
    vectors[[0, 5]] = 0.0
    fitted = ItemCodes.fit(vectors, 8)
    codes = fitted.of(vectors)
    assert not codes[[0, 5]].any()
    assert codes[1:5].any(axis=1).all()
    told = np.delete(vectors, [0, 5], axis=0)
    np.testing.assert_allclose(fitted.mean, told.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("num_items", [0, 3])
def test_where_nothing_was_told_codes_are_zero(num_items: int) -> None:
    codes = ItemCodes.fit(np.zeros((num_items, 6), np.float32), 4).of(np.zeros((2, 6), np.float32))
    assert codes.tolist() == [[0.0] * 4] * 2


def test_there_are_no_more_directions_than_dimensions() -> None:
    assert ItemCodes.fit(texts(), 99).width == 32


def test_saved_and_loaded_codes_the_same(tmp_path: Path) -> None:
    fitted = ItemCodes.fit(texts(), 8)
    fitted.save(tmp_path / "codes.npz")
    np.testing.assert_array_equal(ItemCodes.load(tmp_path / "codes.npz").of(texts()), fitted.of(texts()))
