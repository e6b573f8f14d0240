"""StreamEvents: acknowledged in order and once on disk, bounded, and no burden while idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

import pytest

from recsys.client import AsyncRecsysClient, EventBatch, RecsysClient
from recsys.errors import Conflict, InvalidInput, Overloaded, RecsysError
from recsys.serve import LaneConfig, Server
from recsys.serve.ingest import MAX_UNACKNOWLEDGED
from recsys.serve.pipeline import answered
from recsys.store import EventStore
from recsys.types import Event, User
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore
from tests.serve.test_admission import until


def batch(number: int, size: int = 3) -> EventBatch:
    events = tuple(
        Event(user_id="u", item_id=f"item-{row}", timestamp=1.7e9 + number, event_id=f"{number}-{row}")
        for row in range(size)
    )
    return EventBatch(events=events, request_id=f"r{number}")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RecsysClient]:
    store = EventStore.open(tmp_path / "events.db")
    with (
        Server(QUICK, shelf=FakeShelf(FakeEngine()), store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        yield client


class Feed:
    """Batches handed over one by one, as a caller has them."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[EventBatch | None] = SimpleQueue()

    def put(self, each: EventBatch) -> None:
        self._waiting.put(each)

    def end(self) -> None:
        self._waiting.put(None)

    def __iter__(self) -> Iterator[EventBatch]:
        return iter(self._waiting.get, None)


def test_batches_are_acknowledged_in_order_and_counted_once(client: RecsysClient) -> None:
    written = list(client.stream_events(map(batch, range(50))))
    assert [each.request_id for each in written] == [f"r{number}" for number in range(50)]
    assert {(each.accepted, each.duplicates) for each in written} == {(3, 0)}
    watermarks = [each.watermark for each in written]
    assert watermarks == sorted(watermarks)
    # The same again is answered with the first receipts, by either method, and writes nothing.
    assert list(client.stream_events(map(batch, range(50)))) == written
    assert client.write_events(batch(7).events, request_id="r7").watermark == written[7].watermark
    assert client.list_memories("u").total == 150


def test_an_acknowledged_batch_is_seen_while_the_stream_is_open(client: RecsysClient) -> None:
    feed = Feed()
    acknowledgements = client.stream_events(feed)
    for number in range(3):
        feed.put(batch(number))
        next(acknowledgements)
        page = client.rank_items(User(user_id="u"), ["item-1"])
        assert page.items[0].score == 101.0 + number
    feed.end()
    assert list(acknowledgements) == []


def test_a_plain_batch_gets_a_request_id(client: RecsysClient) -> None:
    [first, second] = client.stream_events([list(batch(0).events), batch(1).events])
    assert first.request_id != second.request_id
    assert first.request_id


def test_the_first_wrong_batch_ends_the_stream_after_those_before_it(client: RecsysClient) -> None:
    wrong = EventBatch(events=(Event(user_id="u", item_id=""),), request_id="wrong")
    stream = client.stream_events([batch(0), batch(1), wrong, batch(2)])
    assert [next(stream).request_id, next(stream).request_id] == ["r0", "r1"]
    with pytest.raises(InvalidInput, match=r"events\[0\]\.item_id"):
        next(stream)
    assert client.list_memories("u").total == 6


def test_another_body_under_a_known_id_is_a_conflict(client: RecsysClient) -> None:
    list(client.stream_events([batch(0)]))
    other = EventBatch(events=batch(1).events, request_id="r0")
    with pytest.raises(Conflict, match="r0"):
        list(client.stream_events([other]))


def test_what_the_callers_iterator_raises_comes_back(client: RecsysClient) -> None:
    def failing() -> Iterator[EventBatch]:
        yield batch(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(client.stream_events(failing()))
    with pytest.raises(InvalidInput):
        list(client.stream_events([[Event(user_id="\udc80", item_id="i")]]))
    assert client.list_memories("u").total == 3


async def test_the_async_twin(make_world) -> None:
    world = make_world()
    async with AsyncRecsysClient(world.target, timeout_s=20) as client:

        async def batches():
            for number in range(20):
                yield batch(number)

        found = [each.request_id async for each in client.stream_events(batches())]
        assert found == [f"r{number}" for number in range(20)]
        assert [each.request_id async for each in client.stream_events([batch(20)])] == ["r20"]
    assert len(world.store.rows) == 63


def test_idle_streams_hold_no_place_in_the_lane(make_world) -> None:
    one = LaneConfig(workers=1, queue=0, default_timeout_s=20, max_timeout_s=20)
    world = make_world(write=one, max_streams=4)
    feeds = [Feed() for _ in range(4)]
    streams = [world.client.stream_events(feed) for feed in feeds]
    for number, (feed, stream) in enumerate(zip(feeds, streams, strict=True)):
        feed.put(batch(number))
        assert next(stream).accepted == 3
    assert world.client.write_events(batch(9).events).accepted == 3  # four streams are open and idle
    with pytest.raises(Overloaded, match="4 streams"):
        next(world.client.stream_events([batch(10)]))
    for feed, stream in zip(feeds, streams, strict=True):
        feed.end()
        assert list(stream) == []
    assert [each.accepted for each in world.client.stream_events([batch(10)])] == [3]


def test_a_silent_stream_is_cancelled(make_world) -> None:
    world = make_world(stream_idle_s=0.2)
    feed = Feed()
    feed.put(batch(0))
    stream = world.client.stream_events(feed)
    assert next(stream).accepted == 3
    with pytest.raises(RecsysError):
        next(stream)
    feed.end()


class HeldStore(FakeStore):
    """Acknowledges nothing until told."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Future, object]] = []

    def enqueue_events(self, events, *, request_id="", digest=b""):
        done: Future = Future()
        self.held.append((done, super().write_events(events, request_id=request_id, digest=digest)))
        return done


def test_no_more_is_read_than_may_be_unacknowledged() -> None:
    store = HeldStore()
    with (
        Server(QUICK, shelf=FakeShelf(FakeEngine()), store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        written: list[str] = []
        stream = client.stream_events(map(batch, range(3 * MAX_UNACKNOWLEDGED)))
        reading = threading.Thread(target=lambda: written.extend(each.request_id for each in stream))
        reading.start()
        until(lambda: len(store.held) == MAX_UNACKNOWLEDGED)
        for place in range(3 * MAX_UNACKNOWLEDGED):
            until(lambda place=place: len(store.held) > place)
            assert len(store.held) <= place + MAX_UNACKNOWLEDGED
            done, receipt = store.held[place]
            done.set_result(receipt)
        reading.join(20)
    assert written == [f"r{number}" for number in range(3 * MAX_UNACKNOWLEDGED)]


def test_a_cancelled_stream_leaves_no_thread_behind(make_world) -> None:
    world = make_world(max_streams=1)

    def readers() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "stream-reader"]

    for number in range(5):
        feed = Feed()
        feed.put(batch(number))
        stream = world.client.stream_events(feed)
        next(stream)
        stream.close()
        feed.end()
        until(lambda: not readers())
    assert [each.accepted for each in world.client.stream_events([batch(9)])] == [3]  # and no place taken


def test_full_is_waited_for_not_refused(make_world) -> None:
    class Full(FakeStore):
        refusals = 3

        def enqueue_events(self, events, *, request_id="", digest=b""):
            if self.refusals:
                self.refusals -= 1
                raise Overloaded("full", retry_after_s=0.01)
            return super().enqueue_events(events, request_id=request_id, digest=digest)

    store = Full()
    with (
        Server(QUICK, shelf=FakeShelf(FakeEngine()), store=store) as server,
        RecsysClient(f"127.0.0.1:{server.port}", timeout_s=20) as client,
    ):
        assert [each.accepted for each in client.stream_events([batch(0), batch(1)])] == [3, 3]
    assert store.refusals == 0


def test_stopping_does_not_wait_for_idle_streams(make_world) -> None:
    world = make_world(drain_s=20.0)
    feed = Feed()
    feed.put(batch(0))
    stream = world.client.stream_events(feed)
    next(stream)
    stopping = threading.Thread(target=world.server.stop)
    stopping.start()
    with pytest.raises(RecsysError):
        list(stream)
    stopping.join(10)
    assert not stopping.is_alive()
    feed.end()


class TestAnswered:
    def test_answers_keep_the_order_of_the_requests(self) -> None:
        promises: list[Future[int]] = [Future() for _ in range(5)]
        for number in (4, 2, 0, 3, 1):
            promises[number].set_result(number)
        assert list(answered(iter(range(5)), promises.__getitem__, most=5)) == list(range(5))

    @pytest.mark.parametrize("most", [1, 3])
    def test_failures_come_after_the_answers_before_them(self, most: int) -> None:
        def begin(number: int) -> Future[int]:
            if number == 3:
                raise KeyError(number)
            done: Future[int] = Future()
            done.set_result(number)
            return done

        found = answered(iter(range(9)), begin, most=most)
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError):
            next(found)
