from __future__ import annotations

import pickle
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InvalidInput
from recsys.index.faiss import FaissIndex
from recsys.index.parts import Part, Trained, coded, codes_of, merged, sample_size, train, trained_of
from tests.contracts import clustered

KINDS = ["flat", "fp16", "ivf_flat", "ivf_sq8", "ivf_fastscan", "pq", "hnsw"]
SIZE, DIMENSION = 3_000, 16
VECTORS, QUERIES = clustered(SIZE, DIMENSION), clustered(20, DIMENSION, seed=1)


def bytes_of(index: FaissIndex) -> bytes:
    return bytes(faiss.serialize_index(index.on_cpu))


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> Trained:
    return train(VECTORS, kind=request.param, size=SIZE)


def test_the_number_of_parts_changes_nothing(trained: Trained) -> None:
    whole = merged(trained, [coded(trained, VECTORS)])
    assert (whole.kind, len(whole)) == (trained.kind, SIZE)
    for parts in (3, 8):
        index = merged(trained, [coded(trained, some) for some in np.array_split(VECTORS, parts)])
        assert bytes_of(index) == bytes_of(whole)
        for mine, theirs in zip(index.search(QUERIES, 50), whole.search(QUERIES, 50), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, SIZE), max_size=5), kind=st.sampled_from(["ivf_sq8", "ivf_fastscan", "pq"]))
def test_shards_can_be_cut_anywhere(cuts: list[int], kind: str) -> None:
    trained = train(VECTORS[::2], kind=kind, size=SIZE)
    joined = Part.joined([coded(trained, some) for some in np.split(VECTORS, sorted(cuts))])
    whole = coded(trained, VECTORS)
    for mine, theirs in zip(joined.columns, whole.columns, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_vector_between_two_lists_falls_to_the_same_one_among_few_and_among_many() -> None:
    vectors = clustered(SIZE, 128)
    trained = train(vectors, kind="ivf_flat", size=SIZE)
    template = faiss.deserialize_index(trained.template)  # its quantiser lives as long as it does
    between = _halfway(template.quantizer.reconstruct_n(0, template.nlist).astype(np.float64))
    together = coded(trained, between).lists
    by_ten = np.concatenate([coded(trained, some).lists for some in np.split(between, 200)])
    np.testing.assert_array_equal(together, by_ten)


def _halfway(centres: np.ndarray) -> np.ndarray:
    """Vectors whose products with two centres are equal but for rounding; FAISS itself puts half of them elsewhere."""
    rng, out = np.random.default_rng(0), []
    for _ in range(2_000):
        one, other = centres[rng.choice(len(centres), 2, replace=False)]
        apart, vector = one - other, 3 * (one + other) + 0.05 * rng.standard_normal(centres.shape[1])
        out.append(vector - apart * (vector @ apart) / (apart @ apart))
    return np.array(out, np.float32)


def test_parts_find_what_a_plain_build_finds(trained: Trained) -> None:
    index = merged(train(VECTORS, kind=trained.kind, size=SIZE), [coded(trained, VECTORS)])
    plain = FaissIndex.build(VECTORS, kind=trained.kind)
    mine, theirs = index.search(QUERIES, 10)[1], plain.search(QUERIES, 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(mine, theirs, strict=True)]) > 0.95


def test_codes_equal_those_that_faiss_would_write(trained: Trained) -> None:
    written = faiss.deserialize_index(trained.template)
    written.add(VECTORS)
    assert bytes(faiss.serialize_index(written)) == bytes_of(merged(trained, [coded(trained, VECTORS)]))


def test_an_older_index_gives_its_codes_back(trained: Trained, tmp_path: Path) -> None:
    merged(trained, [coded(trained, VECTORS)]).save(tmp_path / "index")
    older = FaissIndex.load(tmp_path / "index")
    kept = np.array([5, 4, 2_999, 0, 5])
    for mine, theirs in zip(codes_of(older, kept).columns, coded(trained, VECTORS[kept]).columns, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert trained_of(older).fingerprint == trained.fingerprint


def test_a_rebuild_that_copies_equals_one_that_codes_anew(trained: Trained) -> None:
    older = merged(trained, [coded(trained, VECTORS)])
    kept, changed = np.arange(100, SIZE), clustered(70, DIMENSION, seed=2)
    copied = merged(trained_of(older), [codes_of(older, kept), coded(trained, changed)])
    anew = merged(trained, [coded(trained, np.concatenate([VECTORS[kept], changed]))])
    assert bytes_of(copied) == bytes_of(anew)


def test_both_values_travel(trained: Trained, tmp_path: Path) -> None:
    part = coded(trained, VECTORS[:50])
    part.save(tmp_path / "part")
    travelled = pickle.loads(pickle.dumps(trained))
    assert bytes_of(merged(travelled, [Part.load(tmp_path / "part")])) == bytes_of(merged(trained, [part]))


def test_effort_is_kept_through_parts() -> None:
    trained = train(VECTORS, kind="ivf_sq8", size=SIZE, effort=7)
    index = merged(trained, [coded(trained, VECTORS)])
    assert (index.effort, merged(trained_of(index), [coded(trained, VECTORS)]).effort) == (7, 7)


def test_nothing_to_merge_answers_with_padding(trained: Trained) -> None:
    index = merged(trained, [coded(trained, VECTORS[:0])])
    assert (index.search(QUERIES, 3)[1] == -1).all()


def test_few_vectors_are_flat() -> None:
    assert train(VECTORS[:0], kind="ivf_sq8", size=999).kind == "flat"
    assert (sample_size("ivf_sq8", 999), sample_size("hnsw", SIZE)) == (0, 0)
    assert 0 < sample_size("ivf_sq8", 1_000_000) < 100_000


def test_bad_input_is_named() -> None:
    trained, other = train(VECTORS, kind="ivf_sq8", size=SIZE), train(VECTORS[:, :8], kind="ivf_sq8", size=SIZE)
    index = merged(trained, [coded(trained, VECTORS)])
    with pytest.raises(InvalidInput, match="sample=10: ivf_sq8 learns from 1000 vectors or more"):
        train(VECTORS[:10], kind="ivf_sq8", size=SIZE)
    with pytest.raises(InvalidInput, match=r"vectors\.shape"):
        coded(trained, VECTORS[:, :8])
    with pytest.raises(InvalidInput, match=r"vectors\[1\]"):
        coded(trained, np.array([[0.0] * DIMENSION, [np.nan] * DIMENSION], np.float32))
    with pytest.raises(InvalidInput, match=r"parts\[1\]\.widths=\(1, 8, 0\): must be \(1, 16, 0\)"):
        merged(trained, [coded(trained, VECTORS), coded(other, VECTORS[:, :8])])
    with pytest.raises(InvalidInput, match="parts="):
        merged(trained, [])
    with pytest.raises(InvalidInput, match="the index has 3000 rows"):
        codes_of(index, np.array([0, SIZE]))
