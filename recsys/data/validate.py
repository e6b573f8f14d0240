"""The rules a row must keep, as pandera schemas over normal columns, and the search for the rows that break them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandera.polars as pa
import polars as pl

from recsys.data.columns import EventColumns
from recsys.data.report import MAX_EXAMPLES, Findings
from recsys.types import MAX_ID_BYTES, MAX_TEXT_BYTES

FUTURE_TOLERANCE_S = 24 * 3600.0
"""Clocks of clients differ and time zones get lost; more than a day ahead is a mistake."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`kind` is a key of `report.KINDS`; `good` is true where a value keeps the rule, null where it has no say."""

    kind: str
    good: Callable[[pl.Expr], pl.Expr]


Rules: TypeAlias = Mapping[str, tuple[Rule, ...]]
"""A column's rules, in the order in which they are reported."""

_IS_THERE = Rule("missing", pl.Expr.is_not_null)
_IS_TIME = Rule("no_time", pl.Expr.is_not_null)
_IS_SHORT = Rule("too_long", lambda column: column.str.len_bytes() <= MAX_ID_BYTES)
_IS_CLEAN = Rule("nul", lambda column: ~column.str.contains("\0", literal=True))
_IS_FINITE = Rule("not_finite", pl.Expr.is_finite)

ITEM_RULES: Rules = {
    "item_id": (
        _IS_THERE,
        _IS_SHORT,
        _IS_CLEAN,
        Rule("duplicate", lambda column: column.is_null() | column.is_first_distinct()),
    ),
    "text": (Rule("text_too_long", lambda column: column.str.len_bytes() <= MAX_TEXT_BYTES),),
    "attributes": (Rule("not_attributes", pl.Expr.is_not_null),),
}


def event_rules(columns: EventColumns, now: float, item_ids: Sequence[str] | None) -> Rules:
    """Rules for normal event columns; `item_ids` is None where every item is welcome."""
    latest = now + FUTURE_TOLERANCE_S if columns.clock == "timestamp" else np.inf
    future = Rule("future", lambda column: ~column.is_finite() | (column <= latest))
    known = () if item_ids is None else (_is_known(item_ids),)
    rules: dict[str, tuple[Rule, ...]] = {
        "user_id": (_IS_THERE, _IS_SHORT, _IS_CLEAN),
        "item_id": (_IS_THERE, _IS_SHORT, _IS_CLEAN, *known),
        columns.time: (_IS_TIME, _IS_FINITE, future),
        "event_type": (_IS_SHORT,),
        columns.ties: (_IS_TIME, _IS_FINITE),
        columns.value: (_IS_FINITE,),
        columns.basket: (_IS_SHORT,),
    }
    return {name: rules[name] for name in rules if name}


def bad_rows(rules: Rules, normal: pl.DataFrame) -> pl.DataFrame:
    """Columns field, kind, at (int: place in `normal`): one row for each rule that a row breaks, in table order."""
    keeps = [rule.good(pl.col(name)).fill_null(True) for name, several in rules.items() for rule in several]
    # Nearly every batch is clean, and one pass says so; pandera takes a pass a rule to find who broke which.
    if normal.select(pl.all_horizontal(keeps).all()).item():
        return pl.DataFrame(schema={"field": pl.String, "kind": pl.String, "at": pl.Int64})
    return _broken(rules, normal)


def note(findings: Findings, bad: pl.DataFrame, raw: pl.DataFrame, offset: int) -> None:
    """Adds `bad` to `findings`, with values from the raw columns; `offset` is the number of rows before this batch."""
    for (name, kind), rows in bad.group_by("field", "kind", maintain_order=True):
        places = rows["at"].head(MAX_EXAMPLES).to_list()
        column = raw[str(name)]
        findings.add(str(name), str(kind), len(rows), [(offset + at, column[at]) for at in places])


def repeated(table: pl.LazyFrame, name: str) -> pl.Series | None:
    """True (bool [E]) where a value of the column came before; None where none does. Nulls repeat nothing.

    Works on 64-bit hashes, so that ten million long ids need no second copy, and looks at strings only
    where hashes agree.
    """
    text = pl.col(name).cast(pl.String)
    hashes = table.select(pl.when(text.is_not_null()).then(text.hash())).collect(engine="streaming").to_series()
    again = hashes.is_not_null() & ~hashes.is_first_distinct()
    if not again.any():
        return None
    suspects = hashes.filter(again).unique().implode()
    some = table.with_row_index("at").filter(text.hash().is_in(suspects)).select("at", text.alias(name)).collect()
    out = np.zeros(len(hashes), bool)
    out[some.filter(~pl.col(name).is_first_distinct())["at"].to_numpy()] = True
    return pl.Series(out)


def _broken(rules: Rules, normal: pl.DataFrame) -> pl.DataFrame:
    schema = pa.DataFrameSchema({name: _column(normal.schema[name], several) for name, several in rules.items()})
    try:
        schema.validate(normal, lazy=True)
    except pa.errors.SchemaErrors as error:
        found: pl.DataFrame = error.failure_cases
        places = found.select(field="column", kind="check", at=pl.col("index").cast(pl.Int64))
        return places.sort("at", maintain_order=True)
    raise AssertionError("pandera finds no row that breaks a rule, one pass found some")


def _column(dtype: pl.DataType, rules: tuple[Rule, ...]) -> pa.Column:
    return pa.Column(dtype, [_check(rule) for rule in rules], nullable=True)


def _check(rule: Rule) -> pa.Check:
    return pa.Check(
        lambda data: data.lazyframe.select(rule.good(pl.col(data.key)).fill_null(True)),
        name=rule.kind,
        ignore_na=False,
    )


def _is_known(item_ids: Sequence[str]) -> Rule:
    # An enum keeps its hash table between batches; `is_in` would build one for each.
    known = pl.Enum(list(item_ids))
    return Rule("unknown", lambda column: column.is_null() | column.cast(known, strict=False).is_not_null())
