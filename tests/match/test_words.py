"""Terms, weights and rows against scikit-learn's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.match.words import Words

texts = st.lists(
    st.one_of(st.text(max_size=20), st.lists(st.sampled_from(["Tent", "tent", "lamp", "è", "2", "a_b"])).map(" ".join)),
    min_size=1,
    max_size=12,
)


@given(texts, texts, st.integers(1, 2))
def test_equals_scikit_learn(known: list[str], others: list[str], min_texts: int) -> None:
    theirs = TfidfVectorizer(
        sublinear_tf=True, min_df=min_texts, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", dtype=np.float32
    )
    ours = Words.fit(known, min_texts=min_texts)
    try:
        theirs.fit(known)
    except ValueError:  # it has no word to speak of
        assert not ours.columns
        assert ours.rows(others).shape == (len(others), 0)
        return
    assert list(ours.columns) == theirs.get_feature_names_out().tolist()
    np.testing.assert_array_equal(ours.rarity, theirs.idf_)
    for asked in (known, others):
        np.testing.assert_allclose(ours.rows(asked).toarray(), theirs.transform(asked).toarray(), atol=1e-6)
