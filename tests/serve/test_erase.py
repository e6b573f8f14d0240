"""DeleteUser and ExportUser: gone from every answer at once, from every file in time, and back only as a new life."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.client import RecsysClient
from recsys.errors import NotFound
from recsys.serve import Server
from recsys.serve.memories import merged
from recsys.serve.shelf import SnapshotShelf
from recsys.snapshot import list_snapshots
from recsys.store import EventStore
from recsys.train.publish import publish
from recsys.types import Event, Fallback, Item, User
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore
from tests.world import ENCODER, START_S, chains, dataset_of, model_of

CANARY = "canary-user-7"
MARK = 1234.5678


def test_delete_and_export_over_the_fake(make_world: Callable[..., object]) -> None:
    past = tuple(Event(user_id="u", item_id=f"item-{i}", timestamp=float(i)) for i in range(3))
    world = make_world(FakeEngine(memory={"u": past, "v": past}))
    world.client.write_events([Event(user_id="u", item_id="item-9", timestamp=10.0, event_id="e")])
    ranking = world.client.rank_items(User(user_id="u"), ["item-1", "item-9"])
    held = world.client.export_user("u")
    assert [(each.source, each.event.item_id) for each in held.events] == [
        ("store", "item-9"),
        *(("s1", f"item-{i}") for i in range(3)),
    ]
    assert [each.ranking_id for each in held.rankings] == [ranking.ranking_id]
    assert held.erased_at is None

    receipt = world.client.delete_user("u")
    assert (receipt.events, receipt.memories, receipt.rankings) == (1, 3, 1)
    assert receipt.live_files_clean - receipt.at == 900
    assert receipt.snapshots_clean - receipt.at == receipt.request_digests_expire - receipt.at == 86_400

    page = world.client.rank_items(User(user_id="u"), ["item-1", "item-9"])
    assert page.fallbacks == (Fallback.UNKNOWN_USER,)
    assert world.client.list_memories("u").total == 0
    with pytest.raises(NotFound):
        world.client.explain(ranking.ranking_id)
    gone = world.client.export_user("u")
    assert gone.events == ()
    assert gone.erased_at == receipt.at
    assert world.client.list_memories("v").total == 3

    again = world.client.delete_user("u")
    assert (again.at, again.events, again.memories) == (receipt.at, 1, 0)
    world.client.write_events([Event(user_id="u", item_id="item-2", timestamp=20.0)])
    assert [each.event.item_id for each in world.client.list_memories("u").memories] == ["item-2"]
    assert world.client.delete_user("u").at > receipt.at


def test_a_user_erased_before_a_swap_or_a_start_stays_erased(make_world: Callable[..., object]) -> None:
    past = (Event(user_id="u", item_id="item-1", timestamp=1.0),)
    old, new = FakeEngine(memory={"u": past}), FakeEngine(snapshot_id="s2", memory={"u": past})
    later = FakeEngine(snapshot_id="s3", memory={"u": past}, store_seq=5)  # learnt after the tombstone: a new life
    world = make_world(old, new, later)
    world.client.delete_user("u")
    for snapshot_id, total in (("s2", 0), ("s1", 0), ("s3", 1)):
        world.client.activate_snapshot(snapshot_id)
        assert world.client.list_memories("u").total == total
    world.client.activate_snapshot("s2")
    world.client.activate_snapshot("s3", force=True)
    assert world.client.rollback_snapshot().snapshot_id == "s2"
    assert world.client.list_memories("u").total == 0


def test_a_ranking_under_way_while_its_user_is_erased_is_not_kept(make_world: Callable[..., object]) -> None:
    hooks: list[Callable[[], object]] = []
    world = make_world(FakeEngine(before=lambda: hooks and hooks.pop()()))
    hooks.append(lambda: world.client.delete_user("u"))
    ranking = world.client.rank_items(User(user_id="u"), ["item-1"])
    with pytest.raises(NotFound):
        world.client.explain(ranking.ranking_id)
    assert world.client.export_user("u").rankings == ()
    kept = world.client.rank_items(User(user_id="u"), ["item-1"])
    assert len(world.client.explain(kept.ranking_id)) == 1


def test_a_sweep_sees_what_another_process_erased_and_changes_over() -> None:
    past = (Event(user_id="u", item_id="item-1", timestamp=1.0),)
    store, shelf = FakeStore(), FakeShelf(FakeEngine(memory={"u": past}))
    quick = replace(QUICK, sweep_interval_s=0.02, rewrite_interval_s=0.1)
    with (
        Server(quick, shelf=shelf, store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        assert client.list_memories("u").total == 1
        store.delete_user("u")
        end = time.monotonic() + 20
        while client.serving_state().serving.snapshot_id != "s1-clean":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert client.list_memories("u").total == 0
        assert store.reclaimed > 0


def test_pages_shift_by_nothing_that_is_written_between_them(make_world: Callable[..., object]) -> None:
    past = tuple(Event(user_id="u", item_id=f"item-{i}", timestamp=float(10 * i)) for i in range(6))
    world = make_world(FakeEngine(memory={"u": past}))
    first = world.client.list_memories("u", page_size=2)
    world.client.write_events([Event(user_id="u", item_id=f"late-{at}", timestamp=at) for at in (5.0, 35.0, 45.0, 1e3)])
    second = world.client.list_memories("u", page_size=2, page_token=first.next_page_token)
    third = world.client.list_memories("u", page_size=9, page_token=second.next_page_token)
    shown = [each.event.item_id for page in (first, second, third) for each in page.memories]
    assert shown == ["item-5", "item-4", "late-35.0", "item-3", "item-2", "item-1", "late-5.0", "item-0"]
    assert third.next_page_token == ""
    # Events of one time, and without any: each once, in the order of arrival.
    ties = [(number, Event(user_id="u", item_id=f"t{number}", timestamp=7.0)) for number in (3, 8)]
    bare = [Event(user_id="u", item_id=f"b{number}") for number in range(2)]
    rows = merged([*bare, Event(user_id="u", item_id="t3", timestamp=7.0, event_type="buy")], ties)
    assert [row.event.item_id for row in rows] == ["b0", "b1", "t3", "t3", "t8"]
    assert len({row.cursor for row in rows}) == 5


def test_memories_come_as_they_were_written(make_world: Callable[..., object]) -> None:
    exact = Event(user_id="u", item_id="item-1", timestamp=5.0, value=0.1, event_id="mine", session_id="s")
    rounded = replace(exact, value=float(np.float32(0.1)), event_id="", session_id="0")
    world = make_world(FakeEngine(memory={"u": (rounded,)}, store_seq=1))
    world.client.write_events([exact])
    assert [each.event for each in world.client.list_memories("u").memories] == [exact]
    assert [each.event for each in world.client.list_memories("u", query_text="item").memories] == [exact]


@dataclass(frozen=True)
class Real:
    client: RecsysClient
    server: Server
    store: EventStore
    shelf: SnapshotShelf
    folder: Path


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    """A trained engine over a real store, filled from the same lives; the canary has one event of its own kind."""
    dataset = chains(num_users=120, num_items=40, clock="timestamp")
    ids = [f"u{row}" if row != 7 else CANARY for row in range(120)]
    users = type(dataset.users)(ids, name="user_id")
    items = [*dataset.catalogue.items, Item(item_id="canary-item")]
    life = dataset.histories
    at = life.indptr[8] - 1  # the canary's last event: of a kind, a value and an item that nobody else has
    kinds, values, rows = life.types.copy(), life.values.copy(), life.items.copy()
    kinds[at], values[at], rows[at] = 1, MARK, 40
    told = replace(life, types=kinds, values=values, items=rows, event_types=("view", "canary-kind"))
    dataset = replace(dataset_of(told, items), users=users)
    where = tmp_path / "events.db"
    store = EventStore.open(where)
    events = [
        Event(
            user_id=ids[user],
            item_id=items[item].item_id,
            event_type=told.event_types[kind],
            timestamp=float(time_s),
            value=None if np.isnan(value) else MARK,
            event_id=f"{ids[user]}-{place}",
            session_id=f"{ids[user]}-session",
        )
        for place, (user, item, kind, time_s, value) in enumerate(
            zip(told.users, told.items, told.types, told.times, told.values, strict=True)
        )
    ]
    for start in range(0, len(events), 500):
        store.write_events(events[start : start + 500], request_id=f"{CANARY}-{start}")
    model = model_of(dataset)
    root = tmp_path / "snapshots"
    for number in range(2):  # two that hold the canary, the second is current
        settings = replace(model.settings, store_seq=store.seq, metrics={"number": float(number)})
        settings = replace(settings, data_fingerprint=f"{number}")
        publish(replace(model, settings=settings), root)
    shelf = SnapshotShelf(root, encoder=ENCODER, store_url=str(where), niceness=0)
    with (
        Server(QUICK, shelf=shelf, store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=60) as client,
    ):
        yield Real(client, server, store, shelf, tmp_path)


def found_in(folder: Path, *needles: bytes) -> set[str]:
    """The files that hold any of `needles`, as they are or in a parquet or zip file, read as such."""
    out = set()
    for path in (each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                data += b"".join(file[name].tobytes() + str(file[name]).encode() for name in file.files)
        if path.suffix == ".parquet":
            data += pl.read_parquet(path).write_json().encode()
        if any(needle in data for needle in needles):
            out.add(str(path.relative_to(folder)))
    return out


def test_erased_to_the_byte(real: Real) -> None:
    needles = (b"canary", np.float32(MARK).tobytes(), np.float64(MARK).tobytes())
    before = found_in(real.folder, *needles)
    assert any(each.startswith("events.db") for each in before)
    assert {
        each for each in before if each.endswith(("users.parquet", "histories.npz", "past.npz", "catalogue.parquet"))
    }
    late = User(user_id=CANARY, now=START_S)
    assert real.client.rank_items(late, [f"i{row}" for row in range(40)]).fallbacks == ()
    neighbour = real.client.rank_items(User(user_id="u3"), [f"i{row}" for row in range(40)], include_parts=True)
    held = real.client.export_user(CANARY)
    assert {each.source for each in held.events} == {"store", real.server.snapshot_id}
    assert MARK in {each.event.value for each in held.events if each.source == "store"}

    receipt = real.client.delete_user(CANARY)
    assert receipt.events * 2 == len(held.events)
    assert receipt.memories == receipt.events
    assert receipt.rankings == 1
    stranger = real.client.rank_items(User(user_id="nobody", now=START_S), [f"i{row}" for row in range(40)])
    after = real.client.rank_items(late, [f"i{row}" for row in range(40)])
    assert after.fallbacks == (Fallback.UNKNOWN_USER,)
    assert [(row.item_id, row.score) for row in after.items] == [(row.item_id, row.score) for row in stranger.items]
    assert real.client.list_memories(CANARY).total == 0
    assert real.client.export_user(CANARY).events == ()
    # The store's files are clean at once: nobody was reading.
    assert {each for each in found_in(real.folder, *needles) if not each.startswith("snapshots/")} == set()

    # Snapshots are rewritten in a process of their own, keep their order, and the server changes over.
    old = [each.snapshot_id for each in list_snapshots(real.shelf.root)]
    sweeper = real.server.tenants["default"]._sweeper
    sweeper.rewrite()
    assert found_in(real.folder, *needles) == set()
    fresh = list_snapshots(real.shelf.root)
    assert [each.metrics["number"] for each in fresh] == [1.0, 0.0]
    assert not {each.snapshot_id for each in fresh} & set(old)
    assert real.server.snapshot_id == fresh[0].snapshot_id == real.shelf.current()
    assert real.client.rank_items(late, ["i1", "i2"]).fallbacks == (Fallback.UNKNOWN_USER,)
    again = real.client.rank_items(User(user_id="u3"), [f"i{row}" for row in range(40)], include_parts=True)
    assert again.fallbacks == neighbour.fallbacks == ()
    assert real.shelf.holding_erased(real.store) == []

    # A new life begins with nothing of the old one.
    real.client.write_events([Event(user_id=CANARY, item_id="i5", timestamp=START_S + 1e7)])
    assert real.client.list_memories(CANARY).total == 1


def test_an_erased_users_moments_do_not_vote(real: Real) -> None:
    """The canary alone went to canary-item: whoever stands where it stood is led there by its moment alone."""
    held = [each.event for each in real.client.export_user(CANARY).events if each.source == "store"]
    held.sort(key=lambda event: event.timestamp)
    same = tuple(replace(event, user_id="", event_id="", event_type="view", value=None) for event in held[:-1])
    asked = User(events=same, now=held[-1].timestamp)

    def votes() -> tuple[float, float]:
        [row] = real.client.rank_items(asked, ["canary-item"], include_parts=True).items
        return row.parts["neighbours_shared"], row.parts["neighbours_nearest"]

    assert min(votes()) > 0
    real.client.delete_user(CANARY)
    assert votes() == (0.0, 0.0)
