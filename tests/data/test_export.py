from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.data.dataset import load_dataset
from recsys.data.export import WRITERS, event_frame, write_events, write_items
from recsys.errors import InvalidInput

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b"],
        "title": ['A "quoted", title', ""],
        "categories": [["x", "y"], []],
        "attributes": ['{"colour": "röt"}', None],
    }
)
EVENTS = pl.DataFrame({"user_id": ["u", "v", "u"], "item_id": ["a", "b", "b"], "event_type": ["view", "buy", "view"]})


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "time",
    [{"timestamp": [1.6e9 + 0.000001, 1.6e9, 1.0]}, {"seconds_since_first": [0.5, 0.0, 7.0]}, {"position": [1, 2, 0]}],
)
@pytest.mark.parametrize("more", [{}, {"value": [0.1, None, 2.0], "basket_id": [None, "x", "y"]}])
def test_what_is_written_reads_back_the_same(
    tmp_path: Path, suffix: str, time: dict[str, list[float]], more: dict[str, list[object]]
) -> None:
    dataset = load_dataset((EVENTS.with_columns(**{name: pl.Series(c) for name, c in (time | more).items()}), ITEMS))
    write_events(dataset, tmp_path / f"events{suffix}")
    write_items(dataset.catalogue, tmp_path / f"items{suffix}")
    back = load_dataset(tmp_path)
    assert_frame_equal(*(event_frame(d).drop("basket_id", strict=False) for d in (back, dataset)))
    # Basket ids are numbers given in order of appearance: what counts is which events share one.
    both = set(zip(back.histories.baskets, dataset.histories.baskets, strict=True))
    assert len(both) == len(set(dataset.histories.baskets.tolist()))
    assert ((back.histories.baskets < 0) == (dataset.histories.baskets < 0)).all()
    assert list(back.catalogue.items) == list(dataset.catalogue.items)


def test_frames_go_out_as_they_are(tmp_path: Path) -> None:
    write_events(EVENTS, tmp_path / "e.parquet")
    assert pl.read_parquet(tmp_path / "e.parquet").equals(EVENTS)


def test_bad_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown format"):
        write_events(EVENTS, tmp_path / "e.xlsx")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_events(EVENTS, tmp_path / "nowhere" / "e.csv")
