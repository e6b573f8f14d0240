"""The contract of the event store, on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.errors import Conflict, InvalidInput, Overloaded, StoreError
from recsys.store import EventStore
from recsys.types import Event, Item


def event(user: str = "ann", item: str = "lamp", at: float | None = 1.0, name: str = "") -> Event:
    return Event(user_id=user, item_id=item, timestamp=at, event_id=name)


FULL = Event(
    user_id="ünï 用户",
    item_id="🛋",
    event_type="purchase",
    timestamp=1_700_000_000.25,
    value=-2.5,
    event_id="e1",
    session_id="s",
)
LAMP = Item(
    item_id="lamp", title="Lamp", description="It glows", categories=("a", "b"), attributes={"z": "1", "a": "2"}
)


def test_an_empty_store_is_empty(store: EventStore) -> None:
    assert (store.seq, store.watermark) == (0, 0.0)
    assert store.user_events("ann") == []
    assert store.items() == []
    assert list(store.iter_events()) == []
    assert store.events_frame().shape == (0, 8)


def test_an_event_comes_back_as_it_was(store: EventStore) -> None:
    store.write_events([FULL])
    assert store.user_events(FULL.user_id) == [FULL]


def test_events_come_in_time_order_and_ties_in_order_of_arrival(store: EventStore) -> None:
    store.write_events([event(item="c", at=3.0), event(item="a1", at=1.0)])
    store.write_events([event(item="a2", at=1.0), event(item="b", at=2.0), event(user="bob", item="x")])
    assert [each.item_id for each in store.user_events("ann")] == ["a1", "a2", "b", "c"]


def test_after_seq_gives_what_came_later(store: EventStore) -> None:
    first = store.write_events([event(item="a", at=9.0)])
    second = store.write_events([event(item="b", at=1.0)])
    assert [each.item_id for each in store.user_events("ann", after_seq=first.seq)] == ["b"]
    assert [each.item_id for _, each in store.iter_events(after_seq=first.seq)] == ["b"]
    assert store.events_frame(after_seq=first.seq)["item_id"].to_list() == ["b"]
    assert store.user_events("ann", after_seq=second.seq) == []
    assert store.seq == second.seq > first.seq


def test_an_event_without_a_time_happened_when_it_arrived(where: str) -> None:
    with EventStore.open(where, clock=lambda: 1234.5) as store:
        receipt = store.write_events([event(at=None)])
        assert store.user_events("ann")[0].timestamp == receipt.watermark == 1234.5


def test_an_event_id_is_kept_once_for_its_user(store: EventStore) -> None:
    first = store.write_events([event(name="e1"), event(name="e2"), event(name="e1", item="again")])
    assert (first.accepted, first.duplicates) == (2, 1)
    second = store.write_events([event(name="e2", item="again"), event(name="e3"), event(user="bob", name="e1")])
    assert (second.accepted, second.duplicates) == (2, 1)
    assert [each.item_id for each in store.user_events("ann")] == ["lamp"] * 3
    assert len(store.user_events("bob")) == 1


def test_events_without_an_id_are_all_kept(store: EventStore) -> None:
    assert store.write_events([event(), event()]).accepted == 2
    assert len(store.user_events("ann")) == 2


def test_the_same_request_gets_the_first_receipt(store: EventStore) -> None:
    first = store.write_events([event()], request_id="r1", digest=b"x")
    store.write_events([event()])
    assert store.write_events([event()], request_id="r1", digest=b"x") == first
    assert len(store.user_events("ann")) == 2


def test_the_same_request_with_another_body_is_a_conflict(store: EventStore) -> None:
    store.write_events([event()], request_id="r1")
    with pytest.raises(Conflict, match="r1"):
        store.write_events([event(item="other")], request_id="r1")
    with pytest.raises(Conflict, match="r1"):
        store.write_items([LAMP], request_id="r1")
    assert len(store.user_events("ann")) == 1
    assert store.items() == []


def test_a_request_is_remembered_for_a_day(where: str) -> None:
    now = [1000.0]
    with EventStore.open(where, clock=lambda: now[0]) as store:
        store.write_events([event()], request_id="r1")
        now[0] += 24 * 3600 - 1
        store.write_events([event()], request_id="r1")
        assert len(store.user_events("ann")) == 1
        now[0] += 2
        store.write_events([event()], request_id="r1")
        assert len(store.user_events("ann")) == 2


def test_retries_in_parallel_have_one_effect(store: EventStore) -> None:
    def write(index: int) -> int:
        return store.write_events([event(item=f"i{index % 20}")], request_id=f"r{index % 20}").seq

    with ThreadPoolExecutor(16) as pool:
        seqs = list(pool.map(write, range(200)))
    assert len(store.user_events("ann")) == 20
    assert all(seqs[index] == seqs[index % 20] for index in range(200))


def test_parallel_writers_lose_nothing_and_share_no_number(store: EventStore) -> None:
    def write(writer: int) -> None:
        for batch in range(10):
            store.write_events([event(user=f"u{writer}", item=f"{batch}.{row}") for row in range(7)])
            assert len(store.user_events(f"u{writer}")) == 7 * (batch + 1)  # its own writes are seen at once

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    seqs = [seq for seq, _ in store.iter_events()]
    assert len(seqs) == len(set(seqs)) == 8 * 10 * 7
    assert seqs == sorted(seqs)
    assert seqs[-1] == store.seq


def test_a_refused_write_takes_no_neighbour_with_it(store: EventStore) -> None:
    store.write_events([event(user="base")], request_id="taken")

    def write(index: int) -> bool:
        try:
            store.write_events([event(user=f"u{index}")] * 3, request_id="taken" if index % 3 == 0 else f"r{index}")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        written = list(pool.map(write, range(60)))
    assert written == [index % 3 != 0 for index in range(60)]
    assert [len(store.user_events(f"u{index}")) for index in range(60)] == [3 * ok for ok in written]


def test_two_stores_on_one_place_are_one(where: str) -> None:
    with EventStore.open(where) as one, EventStore.open(where) as other:

        def write(store: EventStore) -> None:
            for _ in range(20):
                store.write_events([event()])

        threads = [threading.Thread(target=write, args=(store,)) for store in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.seq == other.seq == 40
        assert len(other.user_events("ann")) == 40


def test_watermarks_rise_even_when_the_clock_does_not(where: str) -> None:
    with EventStore.open(where, clock=iter([500.0, 400.0] * 100).__next__) as store:
        marks = [store.write_events([event()]).watermark for _ in range(5)]
        assert marks == sorted(set(marks))
        assert store.watermark == marks[-1]


def test_all_is_there_after_reopening(where: str) -> None:
    with EventStore.open(where) as store:
        receipt = store.write_events([FULL, event()], request_id="r1")
        items = store.write_items([LAMP])
    with EventStore.open(where) as store:
        assert (store.seq, store.watermark) == (items.seq, items.watermark)
        assert store.user_events(FULL.user_id) == [FULL]
        assert store.items() == [LAMP]
        assert store.write_events([FULL, event()], request_id="r1") == receipt


def test_the_latest_version_of_an_item_counts(store: EventStore) -> None:
    old, new = Item(item_id="lamp", title="Old"), Item(item_id="chair")
    first = store.write_items([old, new, LAMP])
    assert (first.accepted, first.duplicates) == (2, 1)
    assert store.items() == [LAMP, new]
    changed = Item(item_id="lamp", title="Newer")
    second = store.write_items([changed, new])
    assert (second.accepted, second.duplicates) == (1, 1)
    assert store.items() == [new, changed]
    assert store.items(after_seq=first.seq) == [changed]


def test_items_and_events_share_one_sequence(store: EventStore) -> None:
    seqs = [store.write_events([event()]).seq, store.write_items([LAMP]).seq, store.write_events([event()]).seq]
    assert seqs == [1, 2, 3]


def test_a_frame_holds_what_iteration_gives(store: EventStore) -> None:
    store.write_events([FULL, event(at=0.5)])
    frame = store.events_frame()
    assert frame.columns[0] == "seq"
    given = [
        (seq, each.user_id, each.timestamp, each.value, each.event_id or None) for seq, each in store.iter_events()
    ]
    assert frame.select("seq", "user_id", "timestamp", "value", "event_id").rows() == given


def test_a_deleted_user_is_gone(store: EventStore) -> None:
    store.write_events([event(), event(user="bob"), event()])
    erasure = store.delete_user("ann")
    assert erasure.num_events == 2
    assert store.user_events("ann") == []
    assert len(store.user_events("bob")) == 1
    assert store.delete_user("ann") == erasure == store.erasure("ann")
    assert store.erasure("bob") is None


def test_a_deleted_users_bytes_leave_the_files(tmp_path: Path) -> None:
    with EventStore.open(tmp_path / "events.db") as store:
        store.write_events([event(user=f"canary-{index}", name=f"canary-{index}") for index in range(200)])
        for index in range(200):
            store.delete_user(f"canary-{index}")
        assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (event(user=""), r"events\[1\]\.user_id=''"),
        (event(item="x" * 257), r"events\[1\]\.item_id=.*256 bytes"),
        (event(item="ü" * 129), r"events\[1\]\.item_id=.*256 bytes"),
        (event(user="a\x00b"), r"events\[1\]\.user_id=.*NUL"),
        (event(user="\ud800"), r"events\[1\]\.user_id=.*UTF-8"),
        (event(at=math.nan), r"events\[1\]\.timestamp=nan"),
        (Event(user_id="u", item_id="i", value=math.inf), r"events\[1\]\.value=inf"),
    ],
)
def test_what_cannot_be_kept_is_named_and_nothing_is_written(store: EventStore, wrong: Event, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        store.write_events([event(), wrong])
    assert store.seq == 0


def test_too_large_a_batch_is_refused(store: EventStore) -> None:
    with pytest.raises(InvalidInput, match="1001 rows: at most 1000"):
        store.write_events([event()] * 1001)
    assert store.write_events([event()] * 1000).accepted == 1000


def test_a_full_queue_refuses_at_once(where: str) -> None:
    held, entered = threading.Event(), threading.Event()

    def clock() -> float:
        entered.set()
        assert held.wait(30)
        return 1.0

    with EventStore.open(where, clock=clock, max_waiting=2) as store, ThreadPoolExecutor(3) as pool:
        running = pool.submit(store.write_events, [event()])
        assert entered.wait(30)
        while_it_runs = [pool.submit(store.write_events, [event()]) for _ in range(2)]
        while not store._committer._waiting.full():
            time.sleep(0.001)
        try:
            with pytest.raises(Overloaded, match="2 writes wait already") as caught:
                store.write_events([event()])
        finally:
            held.set()
        assert [each.result(30).accepted for each in (running, *while_it_runs)] == [1, 1, 1]
        assert 0 < caught.value.retry_after_s < 30


def test_a_closed_store_says_so(where: str) -> None:
    store = EventStore.open(where)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.write_events([event()])


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("mysql://user:secret@host/db", InvalidInput, "url='mysql'.*sqlite:///path or postgresql://"),
        ("postgresql://u:secret@host:port/db", InvalidInput, "url='postgresql://…': not a database URL"),
        (":memory:", InvalidInput, "memory forgets"),
        ("postgresql://u:secret@127.0.0.1:1/db", StoreError, r"cannot open the event store at .*u:\*\*\*@"),
        ("/dev/null/events.db", StoreError, "cannot open the event store at /dev/null/events.db"),
    ],
)
def test_a_place_that_holds_no_store_is_named_without_its_password(
    where: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        EventStore.open(where)
    assert "secret" not in str(caught.value)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing like a database\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt: file is not a database"):
        EventStore.open(path)


def test_a_store_of_another_format_is_refused(where: str) -> None:
    with EventStore.open(where) as store, store._engines.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE longrec_state SET format = 99")
    with pytest.raises(StoreError, match="format 99"):
        EventStore.open(where)


def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    with EventStore.open(tmp_path / "events.db") as store:
        store.write_events([event()])
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_tombstone_reaches_up_to_its_number(store: EventStore) -> None:
    store.write_events([event()])
    before = store.seq
    assert store.erased_among(["ann", "bob"], after_seq=0) == frozenset()
    erasure = store.delete_user("ann")
    assert store.last_erased_seq == erasure.seq == store.seq > before
    assert store.erased_among(["ann", "bob"], after_seq=before) == {"ann"}
    assert store.erased_among(["ann", "bob"], after_seq=erasure.seq) == frozenset()
    # A new life has higher numbers, and ends with a tombstone of its own.
    later = store.write_events([event(item="new")])
    assert [each.item_id for each in store.user_events("ann")] == ["new"]
    assert later.seq > erasure.seq
    assert store.delete_user("ann").seq > later.seq
    assert store.delete_user("nobody").num_events == 0
    assert store.erased_among(["nobody"], after_seq=later.seq) == {"nobody"}


def test_a_late_retry_brings_nothing_back(store: EventStore) -> None:
    first = store.write_events([event(name="e1")], request_id="r")
    store.delete_user("ann")
    assert store.write_events([event(name="e1")], request_id="r") == first
    assert store.user_events("ann") == []


def test_tombstones_outlive_the_process(where: str) -> None:
    with EventStore.open(where) as store:
        store.write_events([event()])
        erasure = store.delete_user("ann")
    with EventStore.open(where) as store:
        assert store.erasure("ann") == erasure
        assert store.erased_among(["ann"], after_seq=0) == {"ann"}
        assert store.delete_user("ann") == erasure


def test_bytes_kept_in_the_log_by_a_reader_leave_with_the_next_sweep(tmp_path: Path) -> None:
    with EventStore.open(tmp_path / "events.db") as store:
        store.write_events([event(user="canary", name=f"canary-{index}") for index in range(500)])
        with store._engines.readers.connect() as reader:
            reader.exec_driver_sql("BEGIN")
            assert reader.exec_driver_sql("SELECT count(*) FROM longrec_events").scalar_one() == 500
            assert store.delete_user("canary").num_events == 500
            assert any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())
            reader.exec_driver_sql("COMMIT")
        assert store.reclaim()
        assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())


def test_enqueued_batches_are_applied_in_their_order(store: EventStore) -> None:
    pending = [store.enqueue_events([event(item=f"i{number}")], request_id=f"r{number}") for number in range(50)]
    seqs = [each.result(30).seq for each in pending]
    assert seqs == sorted(seqs)
    assert [each.item_id for _, each in store.iter_events()] == [f"i{number}" for number in range(50)]
    with pytest.raises(Conflict):
        store.enqueue_events([event(item="other")], request_id="r1").result(30)
