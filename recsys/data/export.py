"""Data sets and tables out again, in the formats that `load_dataset` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.catalogue import Catalogue
from recsys.data.columns import CLOCKS
from recsys.data.dataset import Dataset
from recsys.data.items import CATEGORY_SEPARATOR
from recsys.errors import InvalidInput

WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".csv": lambda frame, path: frame.write_csv(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
    ".ndjson": lambda frame, path: frame.write_ndjson(path),
}


def event_frame(dataset: Dataset) -> pl.DataFrame:
    """One row an event, ordered by user, then time, with ids as strings; columns nobody filled are left out."""
    h = dataset.histories
    time = next(name for name, clock in CLOCKS.items() if clock == h.clock)
    frame = pl.DataFrame(
        {
            "user_id": _names(dataset.users.ids, h.users),
            "item_id": _names(dataset.catalogue.ids.ids, h.items),
            "event_type": _names(h.event_types, h.types),
            time: h.times,
            "value": pl.Series(h.values, dtype=pl.Float32).fill_nan(None),
            "basket_id": pl.Series(h.baskets).replace(-1, None).cast(pl.String),
        }
    )
    if h.clock == "timestamp":
        micros = (pl.col(time) * 1e6).round().cast(pl.Int64)
        frame = frame.with_columns(pl.from_epoch(micros, time_unit="us").alias(time))
    empty = [name for name in ("value", "basket_id") if frame[name].null_count() == len(frame)]
    return frame.drop(empty)


def write_events(events: Dataset | pl.DataFrame, path: Path) -> None:
    """Writes events as parquet, CSV or JSON lines, by the path's suffix; an existing file is replaced.

    Raises InvalidInput where the suffix is unknown or the path cannot be written.
    """
    _write(event_frame(events) if isinstance(events, Dataset) else events, path)


def write_items(catalogue: Catalogue, path: Path) -> None:
    """Writes items likewise; in CSV categories are joined by `|`."""
    frame = catalogue.to_frame()
    _write(frame.with_columns(pl.col("categories").list.join(CATEGORY_SEPARATOR)) if _is_csv(path) else frame, path)


def _write(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix not in WRITERS:
        raise InvalidInput.of("path", str(path), f"unknown format; known: {', '.join(WRITERS)}")
    try:
        WRITERS[path.suffix](frame, path)
    except OSError as error:
        raise InvalidInput.of("path", str(path), f"cannot be written: {error}") from error


def _is_csv(path: Path) -> bool:
    return path.suffix == ".csv"


def _names(ids: Sequence[str], rows: np.ndarray) -> pl.Series:
    return pl.Series(ids, dtype=pl.String).gather(rows)
