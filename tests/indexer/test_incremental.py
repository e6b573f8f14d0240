"""What did not change is taken over, and what comes of it is what a rebuild of everything makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import pytest

from indexer.base import Base
from indexer.moments import keys_of, moments_of
from recsys.encode.text import TextEncoder
from recsys.errors import MixedSnapshot
from recsys.index.parts import coded, codes_of, trained_of
from recsys.match.neighbours import Neighbours, NeighboursConfig
from recsys.model import Model
from recsys.recommend import Recommender
from recsys.snapshot import open_snapshot
from recsys.train.fit import fit_flow
from recsys.train.publish import publish
from tests.indexer.small import Tables, Words, events, files, items
from tests.world import DAY_S, ENCODER, START_S, WordEncoder, corpus_of, model_of, shop

LEARNT = (
    "matchers/neighbours/codes.npy",
    "matchers/neighbours/moments.index",
    "rebuild/learnt.json",
    "rebuild/texts.npz",
)
"""Files that hang on what was learnt when everything was last built anew."""


def changed() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two users go on, one begins, one item has a new text, one is new."""
    told = events(200)
    new = pl.DataFrame(
        {
            "user_id": ["ada-3", "ada-5", "bob", "bob"],
            "item_id": ["i1", "new", "i2", "i9"],
            "timestamp": [START_S + 701 * DAY_S] * 4,
        }
    ).with_columns(timestamp=pl.int_range(4).cast(pl.Float64) + pl.col("timestamp"), event_type=pl.lit("view"))
    known = items().with_columns(
        pl.when(pl.col("item_id") == "i4").then(pl.lit("quite another thing")).otherwise("title").alias("title")
    )
    fresh = known.head(1).with_columns(item_id=pl.lit("new"), title=pl.lit("brand new"))
    return pl.concat([told, new], how="diagonal"), pl.concat([known, fresh])


def neighbours_of(model: Model) -> Neighbours:
    return next(each for each in model.flow.matchers if isinstance(each, Neighbours))


@pytest.mark.parametrize("kind", ["flat", "fp16", "ivf_sq8"])
def test_only_what_changed_is_made_and_nothing_else_differs(tmp_path: Path, kind: str) -> None:
    tables = Tables(tmp_path / "one").write(events(200), items())
    before = tables.rebuild(kind=kind, train=True)
    tables.write(*changed())
    after = tables.rebuild(kind=kind)
    whole = Tables(tmp_path / "other").write(*changed())
    whole.rebuild(kind=kind)

    assert before.texts_encoded == 40
    assert (after.texts_encoded, after.texts_carried) == (2, 39)
    assert after.moments_carried > 0
    assert (
        after.moments_carried + after.moments_coded == before.moments_coded + 3
    )  # bob has one moment, others one more
    assert after.has_ranker
    ours, theirs = files(tables.current), files(whole.current)
    differ = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert differ <= {*LEARNT, "model.json"}

    found = neighbours_of(Model.load(tables.current))
    keys = keys_of(found.histories, moments_of(found.histories), found.codes, found.config)
    index = found.memory.index
    held, anew = codes_of(index, np.arange(len(index))), coded(trained_of(index), keys)  # type: ignore[arg-type]
    np.testing.assert_array_equal(held.codes, anew.codes)
    np.testing.assert_array_equal(held.lists, anew.lists)


def test_nothing_changed_is_the_same_snapshot(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    first = tables.rebuild(train=True)
    second = tables.rebuild()
    assert second.snapshot_id == first.snapshot_id
    assert (second.texts_encoded, second.moments_coded) == (0, 0)
    assert second.base == first.snapshot_id


def test_going_on_from_a_snapshot_without_its_tables(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    first = tables.rebuild(train=True)
    again = tables.rebuild(events=None, items=None)
    assert again.snapshot_id == first.snapshot_id


def test_the_index_learns_anew_where_there_are_far_more_moments(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(20), items())
    tables.rebuild()
    tables.write(events(60), items())
    assert tables.rebuild().moments_carried == 0


def test_a_snapshot_that_was_trained_lends_ranker_encoder_and_texts(tmp_path: Path) -> None:
    """Its rows stand in another order, which no answer of the history encoder shows."""
    model = model_of(shop())
    corpus = corpus_of(shop())
    flow = fit_flow(model.histories, model.items, sequence=corpus.sequence)
    publish(replace(model, flow=flow, ranker=None), tmp_path / "out")
    tables = Tables(tmp_path)
    done = tables.rebuild(events=None, items=None)
    assert (done.texts_encoded, done.moments_carried) == (0, 0)
    rebuilt = Model.load(tables.current)
    assert [each.name for each in rebuilt.flow.matchers] == [each.name for each in flow.matchers]
    old, new = (each.flow.matchers[0] for each in (replace(model, flow=flow), rebuilt))
    rows = model.items.catalogue.ids.rows(list(rebuilt.items.catalogue.ids.ids))
    np.testing.assert_allclose(new.table.unit, old.table.unit[rows], atol=1e-6)  # type: ignore[attr-defined]


def test_another_encoder_does_not_go_on_from_these_texts(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    tables.rebuild()
    with pytest.raises(MixedSnapshot, match="--fresh"):
        tables.rebuild(encoder=Others())
    tables.rebuild(encoder=Others(), fresh=True)


def test_a_snapshot_says_what_its_index_learnt(tmp_path: Path) -> None:
    tables = Tables(tmp_path).write(events(), items())
    told = tables.rebuild()
    base = Base(open_snapshot(tables.out))
    learnt = base.learnt(NeighboursConfig())
    assert learnt is not None
    assert learnt.num_moments == told.moments_coded
    assert base.learnt(NeighboursConfig(decay=0.5)) is None
    assert Recommender.open(tables.out, encoder=ENCODER).model.last_s > START_S


class Others(Words):
    def load(self) -> TextEncoder:
        return cast(TextEncoder, WordEncoder(16))
