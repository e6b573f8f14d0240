"""Where events and items come from: files, folders, SQL URLs, frames. Each becomes a lazy polars table.

    source                                   events                      items
    a folder                                 events.<format>             items.<format>, optional
    one file                                 the file                    none
    postgresql://..., sqlite:///...          table `events`              table `items`, optional
    a frame                                  the frame                   none
    (events, items)                          a file or a frame           a file, a frame or None

Formats by suffix: .parquet, .csv, .jsonl, .ndjson; csv and jsonl also with .gz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import polars as pl
import pyarrow as pa
import sqlalchemy as sa

from recsys.errors import InvalidInput, MissingExtra, RecsysError

Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table
Table: TypeAlias = str | Path | Frame
Source: TypeAlias = Table | tuple[Table, Table | None]


def _scan_csv(path: Path) -> pl.LazyFrame:
    # Nothing is inferred: "007" stays an id, and one odd row far down cannot change a column's type.
    return pl.scan_csv(path, infer_schema=False, glob=False)


def _scan_parquet(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False)


def _scan_jsonl(path: Path) -> pl.LazyFrame:
    return pl.scan_ndjson(path, infer_schema_length=None)


SCANNERS: Mapping[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": _scan_parquet,
    ".csv": _scan_csv,
    ".csv.gz": _scan_csv,
    ".jsonl": _scan_jsonl,
    ".jsonl.gz": _scan_jsonl,
    ".ndjson": _scan_jsonl,
    ".ndjson.gz": _scan_jsonl,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Raw tables, not read yet; `name` is the source in words, fit for a message (passwords hidden)."""

    name: str
    events: pl.LazyFrame
    items: pl.LazyFrame | None


def open_tables(source: Source) -> Tables:
    """The tables of `source`; see the table above. Raises InvalidInput where there is nothing to read."""
    if isinstance(source, tuple):
        if len(source) != 2:
            raise InvalidInput.of("source", f"a tuple of {len(source)}", "a tuple is (events, items)")
        events, items = source
        return Tables(name="frames", events=_table(events), items=None if items is None else _table(items))
    if isinstance(source, str) and "://" in source:
        return _sql_tables(source)
    if isinstance(source, str | Path) and Path(source).is_dir():
        return _folder_tables(Path(source))
    name = str(source) if isinstance(source, str | Path) else "frame"
    return Tables(name=name, events=_table(source), items=None)


# What pip calls a driver where Python calls it otherwise.
_DRIVERS = {"MySQLdb": "mysqlclient", "psycopg": "'longrec[pg]'", "psycopg2": "psycopg2-binary"}


class MissingDriver(MissingExtra):
    """A database's Python driver is not installed: names what to install."""

    def __init__(self, source: str, module: str) -> None:
        text = f"{source} is read through {module}, which is not installed: pip install {_DRIVERS.get(module, module)}"
        RecsysError.__init__(self, text)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns what the parsers raise on a broken or missing source into InvalidInput that names it."""
    try:
        yield
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError, sa.exc.SQLAlchemyError) as error:
        raise InvalidInput.of("source", name, f"cannot be read: {_first_line(error)}") from error


def _table(table: Table) -> pl.LazyFrame:
    if isinstance(table, pl.LazyFrame):
        return table
    if isinstance(table, pl.DataFrame):
        return table.lazy()
    if isinstance(table, pd.DataFrame | pa.Table):
        return _from_arrow_like(table).lazy()
    if isinstance(table, str | Path):
        return _scan_file(Path(table))
    raise InvalidInput.of("source", type(table).__name__, "expected a path, a URL, a polars, pandas or arrow table")


def _from_arrow_like(table: Any) -> pl.DataFrame:
    with readable(f"{type(table).__module__.split('.')[0]} table"):
        frame = pl.from_pandas(table) if isinstance(table, pd.DataFrame) else pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _scan_file(path: Path) -> pl.LazyFrame:
    suffix = next((s for s in sorted(SCANNERS, key=len, reverse=True) if path.name.lower().endswith(s)), None)
    if suffix is None and path.suffix.lower() in (".db", ".sqlite", ".sqlite3"):
        raise InvalidInput.of("source", str(path), f"a SQLite file is named by its URL: sqlite:///{path}")
    if suffix is None:
        reason = (
            f"unknown format; known: {', '.join(SCANNERS)}"
            if path.suffix or path.exists()
            else "no such file or folder"
        )
        raise InvalidInput.of("source", str(path), reason)
    if not path.is_file():
        raise InvalidInput.of("source", str(path), "no such file")
    with readable(str(path)):
        return SCANNERS[suffix](path)


def _folder_tables(folder: Path) -> Tables:
    events = _only_file(folder, "events")
    if events is None:
        raise InvalidInput.of("source", str(folder), f"holds no events file (events{', events'.join(SCANNERS)})")
    items = _only_file(folder, "items")
    return Tables(name=str(folder), events=_scan_file(events), items=None if items is None else _scan_file(items))


def _only_file(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{suffix}" for suffix in SCANNERS if (folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise InvalidInput.of("source", [path.name for path in found], f"several {stem} files in {folder}; keep one")
    return found[0] if found else None


def _sql_tables(text: str) -> Tables:
    engine, name = open_database(text)
    with readable(name):
        try:
            return _read_tables(engine, name)
        finally:
            engine.dispose()


def open_database(text: str) -> tuple[sa.Engine, str]:
    """The database at a URL, and its name without the password. Raises InvalidInput, MissingDriver; connects to
    nothing yet."""
    try:
        url = sa.make_url(text)
        engine = sa.create_engine(url)
    except sa.exc.NoSuchModuleError as error:
        reason = "unknown kind of source; known: sqlite, postgresql and the other databases of SQLAlchemy"
        raise InvalidInput.of("source", _scheme(text), reason) from error
    except sa.exc.ArgumentError as error:
        raise InvalidInput.of("source", _scheme(text), _first_line(error)) from error
    except ModuleNotFoundError as error:
        raise MissingDriver(_scheme(text), error.name or "its driver") from error
    name = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise InvalidInput.of("source", name, "no such file")
    return engine, name


def _scheme(text: str) -> str:
    """A URL without what may be secret in it."""
    return text.partition("://")[0] + "://…"


def _read_tables(engine: sa.Engine, name: str) -> Tables:
    tables = sa.inspect(engine).get_table_names() + sa.inspect(engine).get_view_names()
    if "events" not in tables:
        raise InvalidInput.of("source", name, "holds no table `events`")
    with engine.connect() as connection:
        frames = {
            table: pl.read_database(_all_of(table), connection, infer_schema_length=None).lazy()
            for table in ("events", "items")
            if table in tables
        }
    return Tables(name=name, events=frames["events"], items=frames.get("items"))


def _all_of(table: str) -> sa.Select[Any]:
    return sa.select(sa.text("*")).select_from(sa.table(table))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
