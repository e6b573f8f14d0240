"""The item table -> Items, checked; small beside events, so row by row and readable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from recsys.data.columns import ITEM_COLUMNS, id_column, require, text_column
from recsys.data.report import Findings, Problem
from recsys.data.validate import ITEM_RULES, bad_rows, note
from recsys.errors import InvalidInput
from recsys.types import MAX_TEXT_BYTES, Item

CATEGORY_SEPARATOR = "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRows:
    """The good items, in table order, and what was wrong with the others."""

    items: tuple[Item, ...]
    num_read: int
    problems: tuple[Problem, ...]
    ignored: tuple[str, ...]


def read_items(table: pl.LazyFrame) -> ItemRows:
    """Reads a whole item table; bad rows are left out or mended as `KINDS` says. Raises InvalidData, InvalidInput."""
    schema = table.collect_schema()
    require([] if "item_id" in schema else ["item_id"], "items", schema)
    used = [name for name in ITEM_COLUMNS if name in schema]
    raw = table.select(used).collect()
    ids = raw.select(id_column("item_id", schema)).to_series()
    attributes = [_attributes(value) for value in _column(raw, "attributes")]
    items = _items(raw, ids, attributes)
    texts = pl.Series("text", [item.text for item in items], dtype=pl.String)
    understood = pl.Series("attributes", [None if found is None else True for found in attributes], dtype=pl.Boolean)
    bad = bad_rows(ITEM_RULES, pl.DataFrame([ids, texts, understood]))
    findings = Findings("items")
    note(findings, bad, raw.with_columns(texts), 0)
    dropped = set(bad.filter(pl.col("field") == "item_id")["at"])
    return ItemRows(
        items=tuple(cut(item) for row, item in enumerate(items) if row not in dropped),
        num_read=len(raw),
        problems=findings.problems,
        ignored=tuple(f"items.{name}" for name in schema if name not in used),
    )


def cut(item: Item) -> Item:
    """The item with a text of at most MAX_TEXT_BYTES: its description is cut; if that is not enough, only
    the title is kept, cut."""
    over = _size(item.text) - MAX_TEXT_BYTES
    if over <= 0:
        return item
    shorter = replace(item, description=_first_bytes(item.description, _size(item.description) - over))
    if _size(shorter.text) <= MAX_TEXT_BYTES:
        return shorter
    return Item(item_id=item.item_id, title=_first_bytes(item.title, MAX_TEXT_BYTES))


def _items(raw: pl.DataFrame, ids: pl.Series, attributes: list[Mapping[str, str] | None]) -> list[Item]:
    texts = raw.with_columns(text_column(name, raw.schema) for name in ("title", "description"))
    rows = zip(ids, texts["title"], texts["description"], _column(raw, "categories"), attributes, strict=True)
    return [
        Item(
            item_id=id_ or "",
            title=title,
            description=description,
            categories=_categories(categories),
            attributes=found or {},
        )
        for id_, title, description, categories, found in rows
    ]


def _column(raw: pl.DataFrame, name: str) -> list[object]:
    return raw[name].to_list() if name in raw else [None] * len(raw)


def _categories(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, str | list):
        raise InvalidInput.of("items.categories", value, "expected a list or text separated by |")
    parts = value.split(CATEGORY_SEPARATOR) if isinstance(value, str) else value
    return tuple(text for part in parts if part is not None and (text := str(part).strip()))


def _attributes(value: object) -> Mapping[str, str] | None:
    """Names and values as strings, nulls left out; None where `value` is neither an object nor JSON of one."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except ValueError:
            return None
    if value is None:
        return {}
    if not isinstance(value, dict):
        return None
    return {str(name): _plain(found) for name, found in value.items() if found is not None}


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _size(text: str) -> int:
    return len(text.encode())


def _first_bytes(text: str, size_bytes: int) -> str:
    return text.encode()[: max(size_bytes, 0)].decode(errors="ignore")
