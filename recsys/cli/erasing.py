"""`recsys delete-user`, `export-user` and `sweep`: what is held of a user, and how it goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.cli.ask import CALL_TIMEOUT_S
from recsys.cli.output import Output
from recsys.cli.progress import progress
from recsys.cli.snapshots import store_exists
from recsys.client import RecsysClient
from recsys.config import Settings
from recsys.errors import NotFound, StoreError
from recsys.model import Model
from recsys.snapshot import current_id, open_snapshot
from recsys.states import events_of, remembered
from recsys.store import EventStore
from recsys.train.erase import rewrite_erased
from recsys.types import Event, User


def delete_user(settings: Settings, output: Output, *, user_id: str, target: str | None) -> None:
    """Through a server, or in the store here; then `sweep` has to take the user out of the snapshots."""
    if target is not None:
        with RecsysClient.from_environment(target, timeout_s=CALL_TIMEOUT_S) as client:
            receipt = client.delete_user(user_id)
        output.show(
            f"gone from every answer: {receipt.events:,} events of the store, {receipt.memories:,} of the snapshot, "
            f"{receipt.rankings:,} kept rankings",
            f"gone from the store's files by {_when(receipt.live_files_clean)}, "
            f"from the snapshots' by {_when(receipt.snapshots_clean)}",
        )
        output.result(asdict(receipt))
        return
    with EventStore.open(settings.paths.store) as store:
        erasure = store.delete_user(user_id)
    output.show(
        f"{erasure.num_events:,} events are gone from {settings.paths.store}",
        f"`recsys sweep` takes the user out of the snapshots in {settings.paths.snapshots}; a server on this store "
        "leaves the user out of its answers within minutes",
    )
    output.result(asdict(erasure))


def export_user(settings: Settings, output: Output, *, user_id: str, target: str | None, file: Path | None) -> None:
    """One JSON object a line: events with what holds them, kept rankings, and the last erasure if there was one."""
    lines = list(_of_server(target, user_id) if target is not None else _here(settings, user_id))
    with file.open("w", encoding="utf-8") if file else nullcontext(sys.stdout) as out:
        out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if file:
        output.show(f"{len(lines):,} lines are in {file}")


def sweep(settings: Settings, output: Output) -> None:
    """Takes what erased users left out of the store's files and out of the snapshots."""
    root = settings.paths.snapshots
    with EventStore.open(settings.paths.store) as store, progress(silent=output.only_json) as report:
        renamed = rewrite_erased(root, store, report)
        clean = store.reclaim()
    output.show(*(f"snapshot {old} is now {new}, without the users erased since" for old, new in renamed.items()))
    if not renamed:
        output.show(f"no snapshot in {root} holds an erased user")
    output.result({"renamed": renamed, "store_clean": clean})
    if not clean:
        raise StoreError("readers at work keep erased bytes in the store's log: sweep again")


def _of_server(target: str, user_id: str) -> Iterator[dict[str, Any]]:
    with RecsysClient.from_environment(target, timeout_s=CALL_TIMEOUT_S) as client:
        held = client.export_user(user_id)
    for row in held.events:
        yield _event(row.source, row.event)
    for ranking in held.rankings:
        yield {"kind": "ranking", **asdict(ranking)}
    if held.erased_at is not None:
        yield {"kind": "erased", "at": held.erased_at}


def _here(settings: Settings, user_id: str) -> Iterator[dict[str, Any]]:
    """The store, and the current snapshot if there is one, as a server would show it."""
    if not store_exists(settings.paths.store):
        raise NotFound(f"no event store at {settings.paths.store}: name another with --store")
    with EventStore.open(settings.paths.store) as store:
        for event in store.user_events(user_id):
            yield _event("store", event)
        root = settings.paths.snapshots
        try:
            found = open_snapshot(root, current_id(root))
        except NotFound:
            found = None
        if found is not None:
            model = Model.load(found.path)
            erased = store.erased_among([user_id], after_seq=model.settings.store_seq)
            past = remembered(model.without_users(erased), User(user_id=user_id))
            for event in events_of(past, model.items, user_id):
                yield _event(found.snapshot_id, event)
        if erasure := store.erasure(user_id):
            yield {"kind": "erased", "at": erasure.time_s}


def _event(source: str, event: Event) -> dict[str, Any]:
    return {"kind": "event", "source": source, **asdict(event)}


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
