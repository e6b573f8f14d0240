"""The command `indexer tune`: see `indexer.tuning`, which is imported when it runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from recsys.cli.output import Output, table
from recsys.errors import InvalidInput

if TYPE_CHECKING:
    from indexer.tuning import Tuning


def command(
    vectors: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Vectors, a row each; or use --snapshot.")
    ] = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of snapshots: the moments of the current one, asked with its users."),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="What is asked of --vectors; by default some of them, held out."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Answers to a query.")] = 100,
    least_recall: Annotated[
        float, typer.Option(min=0, max=1, help="Of the exact answers, the part that must be found.")
    ] = 0.95,
    most_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes that the index may take; any by default.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Try this kind; repeatable; all by default.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where it will serve.")] = "auto",
    json_to: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Also write the result as JSON; - for standard output, and only that."
        ),
    ] = None,
    picture_to: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw recall against latency and bytes.")
    ] = None,
) -> None:
    """Measure every kind of vector index on your own vectors, and pick one."""
    from indexer.tuning import figure_class, named, picture, tune

    if picture_to is not None:
        figure_class()  # missing is better found before the work than after
    output = Output(json_to=json_to)
    base, asked = _read(vectors, queries, snapshot)
    output.lines(f"{len(base):,} vectors of {base.shape[1]} dimensions, {len(asked):,} queries, k={k}, one thread")
    tuning = tune(
        base,
        asked,
        k=k,
        least_recall=least_recall,
        most_bytes=most_bytes,
        kinds_tried=kind,
        device=device,
        told=lambda each: output.lines(f"  {named(each)}: recall {each.recall:.4f}, {each.query_us:.0f} us"),
    )
    output.show(_shown(tuning))
    output.lines(f"{named(tuning.best) if tuning.best else 'nothing'}: {tuning.why}")
    output.result(asdict(tuning))
    if picture_to is not None:
        picture(tuning, picture_to)
    if tuning.best is None:
        raise typer.Exit(1)


def _read(vectors: Path | None, queries: Path | None, snapshot: Path | None) -> tuple[np.ndarray, np.ndarray]:
    from indexer.tuning import of_file, of_snapshot

    if snapshot is not None and vectors is None and queries is None:
        return of_snapshot(snapshot)
    if vectors is not None and snapshot is None:
        return of_file(vectors, queries)
    raise InvalidInput.of(
        "vectors", None if vectors is None else str(vectors), "give --vectors, with or without --queries, or --snapshot"
    )


def _shown(tuning: Tuning) -> Any:
    """The measurements as a table."""
    from indexer.tuning import named

    columns = (f"recall@{tuning.k}", "95 % interval", "query us", "batch ms", "MiB", "built in s")
    rows = [
        (
            named(each),
            each.recall,
            f"{each.recall_low:.4f} to {each.recall_high:.4f}",
            f"{each.query_us:.0f}",
            f"{each.batch_ms:.2f}",
            f"{each.size_bytes / 2**20:.1f}",
            f"{each.build_s:.1f}",
        )
        for each in tuning.measured
    ]
    return table(("index", *columns), rows, numbers=range(1, 7))
