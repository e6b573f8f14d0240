"""Raw columns of any type -> the columns the checks and arrays want: ids as strings, times as float seconds.

A value that cannot be understood becomes null (ids, times) or NaN (values): the checks find it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recsys.data.histories import Clock
from recsys.errors import InvalidData, InvalidInput, Violation, shorten

DEFAULT_EVENT_TYPE = "view"
CLOCKS: Mapping[str, Clock] = {"timestamp": "timestamp", "seconds_since_first": "relative", "position": "position"}
"""Time columns, the best first; the first one that is there sets the clock."""
BASKETS = ("basket_id", "session_id")
ITEM_COLUMNS = ("item_id", "title", "description", "categories", "attributes")

# Seconds reach this in the year 5138, milliseconds passed it in 1973: above it a number means milliseconds.
_MILLISECONDS_FROM = 1e11
_ISO_FORMATS = ("%+", "%FT%T%.f", "%FT%H:%M", "%F")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventColumns:
    """Which of a table's columns mean what. Optional ones are "" where the table lacks them."""

    time: str
    clock: Clock
    basket: str
    ties: str
    value: str
    event_id: str
    used: tuple[str, ...]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, schema: pl.Schema) -> EventColumns:
        """Raises InvalidData naming the required columns that are missing."""
        time = next((name for name in CLOCKS if name in schema), "")
        missing = [name for name in ("user_id", "item_id") if name not in schema]
        require([*missing, *([] if time else [" or ".join(CLOCKS)])], "events", schema)
        ties = "position" if "position" in schema and time != "position" else ""
        basket = next((name for name in BASKETS if name in schema), "")
        known = ("user_id", "item_id", "event_type", time, ties, "value", basket, "event_id")
        return cls(
            time=time,
            clock=CLOCKS[time],
            basket=basket,
            ties=ties,
            value="value" if "value" in schema else "",
            event_id="event_id" if "event_id" in schema else "",
            used=tuple(name for name in known if name in schema),
            ignored=tuple(name for name in schema if name not in known),
        )

    def normal(self, schema: pl.Schema) -> list[pl.Expr]:
        """Expressions for the normal form of the table's columns, under their own names."""
        time = time_column if self.clock == "timestamp" else number_column
        out = [id_column("user_id", schema), id_column("item_id", schema), time(self.time, schema)]
        out += [number_column(self.ties, schema)] if self.ties else []
        out += [_value_column(schema)] if self.value else []
        out += [id_column(self.basket, schema)] if self.basket else []
        return [*out, _event_type_column(schema)]


def require(missing: list[str], table: str, schema: pl.Schema) -> None:
    """Raises InvalidData where columns are missing."""
    if missing:
        reason = "required column is missing"
        found = f"{reason}; found columns: {shorten(list(schema))}{_delimiter_hint(schema)}"  # said once, at the end
        reasons = [reason] * (len(missing) - 1) + [found]
        raise InvalidData(
            [Violation(f"{table}.{name}", "None", each) for name, each in zip(missing, reasons, strict=True)]
        )


def _delimiter_hint(schema: pl.Schema) -> str:
    """Several names in one column are a file cut at another sign than the comma."""
    found = next((sign for name in schema for sign in (";", "\t", "|") if sign in name), None)
    return f"; they hold {found!r}: is that the delimiter? A comma is expected" if found else ""


def id_column(name: str, schema: pl.Schema) -> pl.Expr:
    """Strings as they are, integers as their digits; "" counts as missing.

    Floats that are whole numbers count as integers: that is what pandas makes of integers with gaps.
    """
    dtype, column = schema[name], pl.col(name)
    if dtype.is_float():
        whole = pl.when(column.is_finite() & (column == column.floor())).then(column)
        text = whole.cast(pl.Int64, strict=False).cast(pl.String)
    elif dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        text = column.cast(pl.String)
    else:
        raise InvalidInput.of(name, dtype, "ids are strings or integers")
    return pl.when(text != "").then(text).alias(name)


def time_column(name: str, schema: pl.Schema) -> pl.Expr:
    """Seconds since the epoch: from datetimes (naive ones are UTC), numbers of seconds or milliseconds, ISO 8601."""
    dtype, column = schema[name], pl.col(name)
    if dtype in (pl.Datetime, pl.Date):
        return (column.dt.epoch("us") / 1e6).alias(name)
    number = number_column(name, schema)
    seconds = pl.when(number.abs() >= _MILLISECONDS_FROM).then(number / 1e3).otherwise(number)
    if dtype != pl.String:
        return seconds.alias(name)
    iso = column.str.strip_chars().str.replace(" ", "T", literal=True)
    parsed = [iso.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC") for form in _ISO_FORMATS]
    return pl.coalesce(seconds, pl.coalesce(parsed).dt.epoch("us") / 1e6).alias(name)


def number_column(name: str, schema: pl.Schema) -> pl.Expr:
    """float64; text that is no number becomes null."""
    dtype = schema[name]
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Null)):
        raise InvalidInput.of(name, dtype, "expected numbers" + (" or times" if name == "timestamp" else ""))
    return pl.col(name).cast(pl.Float64, strict=False).alias(name)


def text_column(name: str, schema: pl.Schema) -> pl.Expr:
    """Strings, "" where missing."""
    return (pl.col(name).cast(pl.String).fill_null("") if name in schema else pl.lit("")).alias(name)


def _value_column(schema: pl.Schema) -> pl.Expr:
    # What was given and is no number must not pass for "not given".
    number = number_column("value", schema).cast(pl.Float32, strict=False)
    return pl.when(pl.col("value").is_not_null() & number.is_null()).then(float("nan")).otherwise(number).alias("value")


def _event_type_column(schema: pl.Schema) -> pl.Expr:
    if "event_type" not in schema:
        return pl.lit(DEFAULT_EVENT_TYPE).alias("event_type")
    return id_column("event_type", schema).fill_null(DEFAULT_EVENT_TYPE).alias("event_type")
