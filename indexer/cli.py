"""`indexer`: rebuild, status, fetch, rollback. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 something is not
installed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from indexer.tune import command as tune
from recsys.cli import ended
from recsys.cli.output import Output, table
from recsys.errors import InvalidInput, NotFound

app = typer.Typer(
    name="indexer",
    help="LongRec, offline: snapshots from whole tables, in shards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the result as JSON; - for standard output, and only that."),
]
Out = Annotated[str, typer.Option("--out", metavar="URL", help="A folder of snapshots, or s3://, gs://, ...")]


class Place(StrEnum):
    """Where shards are built."""

    LOCAL = "local"


@app.command()
def rebuild(
    out: Out,
    events: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Table of events; without, go on from the current snapshot's."),
    ] = None,
    items: Annotated[str | None, typer.Option(metavar="URL", help="Table of items; optional.")] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="RECSYS_PATHS__STORE", help="The service's event store: its events are folded in."
        ),
    ] = None,
    on: Annotated[Place, typer.Option(help="Where shards are built.")] = Place.LOCAL,
    workers: Annotated[int, typer.Option(min=1, help="Processes that build shards here.")] = 1,
    shards: Annotated[int, typer.Option(min=1, max=64, help="Memory is bounded by one.")] = 8,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take nothing over from the current snapshot.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Train a ranker, instead of keeping the current one.")] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="Leave bad rows out and say so.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a rebuild that is at work.")] = False,
    least_recall: Annotated[
        float, typer.Option(min=0, max=1, help="Of the index; below, nothing is published.")
    ] = 0.85,
    work: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for shards; OUT/.work by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="RECSYS_CONFIG", help="TOML file, for --train.")
    ] = None,
    json: Json = None,
) -> None:
    """Build a snapshot and make it current."""
    from indexer.progress import progress
    from indexer.rebuild import RebuildConfig
    from indexer.rebuild import rebuild as run
    from indexer.remote import RemoteRoot, is_remote, local_path
    from indexer.run import LocalRunner
    from recsys.cli.learn import evaluate_config
    from recsys.config import load_settings, without_password

    for name, value in (("--events", events), ("--items", items)):
        if without_password(value) != value:
            raise InvalidInput.of(name, without_password(value), "a password among the arguments is seen by everybody")
    output, remote = Output(json_to=json), is_remote(out)
    root = _mirror(out) if remote else local_path(out)
    told = RebuildConfig(
        out=root,
        events=events,
        items=items,
        store=store,
        shards=shards,
        fresh=fresh,
        train=train,
        lenient=lenient,
        wait=wait,
        least_recall=least_recall,
        work=work,
        training=evaluate_config(load_settings(config).settings, "").train,
    )
    if remote and not fresh:
        _bring(RemoteRoot(out), root)
    with progress(silent=output.only_json) as shown, LocalRunner(workers) as runner:
        done = run(told, runner, shown)
    if remote:
        RemoteRoot(out).upload(root, done.snapshot_id)
    output.lines(done.report)
    output.show(
        table(("step", "seconds"), [(name, f"{value:.1f}") for name, value in done.seconds.items()], numbers=(1,))
    )
    output.lines(
        f"texts: {done.texts_encoded:,} encoded, {done.texts_carried:,} taken over; "
        f"moments: {done.moments_coded:,} coded, {done.moments_carried:,} taken over"
    )
    if not done.has_ranker:
        output.lines("there is no ranker: matchers alone order the answers; --train trains one")
    output.lines(f"snapshot {done.snapshot_id} is current in {out}")
    output.result(asdict(done) | {"out": out})


app.command("tune")(tune)


@app.command()
def status(out: Out, json: Json = None) -> None:
    """What lies in OUT: snapshots, sizes, figures."""
    from indexer.remote import RemoteRoot, is_remote, local_path
    from recsys.cli.words import size, span
    from recsys.snapshot import current_id, list_snapshots

    output = Output(json_to=json)
    if is_remote(out):
        manifests, current = RemoteRoot(out).manifests(), RemoteRoot(out).current_id()
    else:
        manifests, current = list_snapshots(local_path(out)), current_id(local_path(out))
    facts: list[dict[str, Any]] = [
        {
            "snapshot_id": each.snapshot_id,
            "created": each.created,
            "current": each.snapshot_id == current,
            "size_bytes": sum(entry.size_bytes for entry in each.files.values()),
            "store_seq": each.config.get("store_seq", 0),
            "metrics": dict(each.metrics),
        }
        for each in manifests
    ]
    rows = [
        (
            each["snapshot_id"],
            span(max(time.time() - each["created"], 0.0)),
            size(each["size_bytes"]),
            "current" if each["current"] else "",
            each["metrics"].get("moments_recall@100", "not measured"),
        )
        for each in facts
    ]
    output.show(table(("snapshot", "age", "size", "current", "recall of moments"), rows, numbers=(2, 4)))
    output.result({"out": out, "current": current, "snapshots": facts})


@app.command()
def fetch(
    url: Annotated[str, typer.Argument(help="Where `rebuild --out` put it.")],
    folder: Annotated[Path, typer.Argument(help="A local folder of snapshots, to serve from.")],
    snapshot: Annotated[str | None, typer.Option(metavar="ID", help="Not the current one but this.")] = None,
    json: Json = None,
) -> None:
    """Bring a snapshot from object storage into a local folder, verified, and make it current there."""
    from indexer.remote import RemoteRoot

    output = Output(json_to=json)
    snapshot_id = RemoteRoot(url).fetch(folder, snapshot)
    output.lines(f"snapshot {snapshot_id} is current in {folder}")
    output.result({"snapshot_id": snapshot_id, "folder": folder})


@app.command()
def rollback(out: Out, json: Json = None) -> None:
    """Make the snapshot before the current one current."""
    from indexer.remote import RemoteRoot, is_remote, local_path
    from recsys.snapshot import rollback as back

    output = Output(json_to=json)
    snapshot_id = RemoteRoot(out).rollback() if is_remote(out) else back(local_path(out))
    output.lines(f"snapshot {snapshot_id} is current in {out}")
    output.result({"snapshot_id": snapshot_id, "out": out})


def _mirror(url: str) -> Path:
    """Where a remote root is rebuilt; kept, so that a rebuild that died goes on."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "longrec" / "rebuild" / hashlib.sha256(url.encode()).hexdigest()[:16]


def _bring(remote: Any, root: Path) -> None:
    """The remote's current snapshot, to go on from; there may be none yet."""
    from recsys.snapshot import activate, list_snapshots

    try:
        wanted = remote.current_id()
    except NotFound:
        return
    if wanted in {each.snapshot_id for each in list_snapshots(root)}:
        activate(root, wanted)
    else:
        remote.fetch(root, wanted)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command (None: the process's arguments) and exits with its code; a mistake gets a message, no stack."""
    ended(lambda: app(arguments, prog_name="indexer"))
