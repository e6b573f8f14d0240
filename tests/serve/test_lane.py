"""Lanes: who waits, for how long, and who is sent away; the clock is the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from recsys.errors import DeadlineExceeded, Overloaded
from recsys.serve import LaneConfig
from recsys.serve.deadline import Deadline
from recsys.serve.lane import Lane


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Of deadlines and of what calls take; waits for a turn are real, and long enough for any machine."""
    clock = Clock()
    monkeypatch.setattr("recsys.serve.lane.time.monotonic", clock)
    monkeypatch.setattr("recsys.serve.deadline.time.monotonic", clock)
    return clock


def lane_of(workers: int = 1, queue: int = 100, max_wait_s: float = 0.05, num_tenants: int = 1) -> Lane:
    config = LaneConfig(workers=workers, queue=queue, default_timeout_s=20, max_timeout_s=20, max_wait_s=max_wait_s)
    return Lane(config, num_tenants=num_tenants)


def run(lane: Lane, clock: Clock, method: str, took_s: float, times: int = 1) -> None:
    for _ in range(times):
        with lane.enter(Deadline(clock.at + 20), method=method):
            clock.at += took_s


def time_out(lane: Lane, clock: Clock) -> None:
    with lane.enter(Deadline(clock.at + 20), method="m"):
        clock.at += 0.080
        raise DeadlineExceeded


class Held:
    """Calls in threads of their own, each of which stays inside until it is let go; `done` is their order."""

    def __init__(self, lane: Lane, clock: Clock) -> None:
        self.lane, self.clock = lane, clock
        self.done: list[str] = []
        self.errors: dict[str, Exception] = {}
        self._go: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def start(self, name: str, *, method: str = "m", tenant: str = "", left_s: float = 20.0) -> None:
        """Starts a call and returns once it runs or waits."""
        self._go[name] = threading.Event()
        before, deadline = self.lane.inside, Deadline(self.clock.at + left_s)

        def call() -> None:
            try:
                with self.lane.enter(deadline, method=method, tenant=tenant):
                    assert self._go[name].wait(20)
                    self.done.append(name)
            except Exception as error:  # noqa: BLE001 - looked at by the test
                self.errors[name] = error

        self._threads.append(threading.Thread(target=call))
        self._threads[-1].start()
        self.until(lambda: self.lane.inside > before)

    def let_go(self, *names: str) -> None:
        for name in names:
            self._go[name].set()
            self.until(lambda name=name: name in self.done or name in self.errors)

    def end(self) -> None:
        for event in self._go.values():
            event.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    @staticmethod
    def until(holds: Callable[[], bool]) -> None:
        for _ in range(4000):
            if holds():
                return
            threading.Event().wait(0.005)
        raise AssertionError("it never came so")


def test_as_many_wait_as_will_have_a_turn_in_time(clock: Clock) -> None:
    lane = lane_of()
    run(lane, clock, "m", 0.010, times=100)
    held = Held(lane, clock)
    for number in range(6):  # one runs, five wait: 50 ms of work
        held.start(str(number))
    with pytest.raises(Overloaded, match="about 60 ms") as caught, lane.enter(Deadline(clock.at + 20), method="m"):
        pass
    assert caught.value.retry_after_s == 0.1
    with pytest.raises(Overloaded):
        lane.refuse_if_full("m")
    assert lane.waiting == 5
    held.let_go("0", "1")
    lane.refuse_if_full("m")
    held.end()
    assert held.done[:2] == ["0", "1"]
    assert lane.inside == 0


def test_fewer_wait_when_calls_take_longer_but_one_a_worker_always_may(clock: Clock) -> None:
    lane = lane_of(workers=2)
    run(lane, clock, "m", 0.200, times=100)
    held = Held(lane, clock)
    for number in range(4):
        held.start(str(number))
    with pytest.raises(Overloaded), lane.enter(Deadline(clock.at + 20), method="m"):
        pass
    assert (lane.inside, lane.waiting) == (4, 2)
    held.end()


def test_what_methods_take_is_told_apart(clock: Clock) -> None:
    lane = lane_of()
    run(lane, clock, "quick", 0.001, times=100)
    run(lane, clock, "slow", 0.045, times=100)
    assert lane.took_s("quick") == pytest.approx(0.001)
    assert lane.took_s("slow") == pytest.approx(0.045)
    held = Held(lane, clock)
    held.start("runs", method="quick")
    held.start("waits", method="slow")
    held.start("behind it", method="quick")
    with pytest.raises(Overloaded):
        lane.refuse_if_full("slow")
    lane.refuse_if_full("quick")
    held.end()


def test_early_failures_do_not_make_a_method_look_quick(clock: Clock) -> None:
    lane = lane_of()
    run(lane, clock, "m", 0.040, times=50)
    for _ in range(100):
        with pytest.raises(ZeroDivisionError), lane.enter(Deadline(clock.at + 20), method="m"):
            raise ZeroDivisionError
    assert lane.took_s("m") == pytest.approx(0.040)
    for _ in range(100):
        with pytest.raises(DeadlineExceeded):
            time_out(lane, clock)
    assert lane.took_s("m") == pytest.approx(0.080, rel=0.01)


def test_turns_come_in_order_and_never_to_whom_it_would_not_help(clock: Clock) -> None:
    lane = lane_of(max_wait_s=10.0)
    run(lane, clock, "m", 0.010, times=50)
    held = Held(lane, clock)
    held.start("first")
    held.start("late", left_s=0.100)
    held.start("nearly late", left_s=0.102)
    held.start("in time", left_s=0.200)
    clock.at += 0.098  # 2 and 4 ms are left, of calls that take 10
    held.let_go("first")
    held.until(lambda: {"late", "nearly late"} <= held.errors.keys())
    held.let_go("in time")
    held.end()
    assert held.done == ["first", "in time"]
    assert {type(error) for error in held.errors.values()} == {DeadlineExceeded}
    assert lane.inside == 0


def test_whoever_waits_too_long_leaves_the_queue(clock: Clock) -> None:
    lane = lane_of()
    held = Held(lane, clock)
    held.start("runs")
    with pytest.raises(DeadlineExceeded), lane.enter(Deadline(clock.at + 0.01)):
        pass
    assert (lane.inside, lane.waiting) == (1, 0)
    held.end()


def test_one_of_several_tenants_gets_half_of_the_queue(clock: Clock) -> None:
    lane = lane_of(num_tenants=3)
    run(lane, clock, "m", 0.010, times=100)
    held = Held(lane, clock)
    for number in range(3):
        held.start(str(number), tenant="greedy")
    with pytest.raises(Overloaded):
        lane.refuse_if_full("m", "greedy")
    for number in range(3, 6):
        held.start(str(number), tenant=f"other {number}")
    with pytest.raises(Overloaded):
        lane.refuse_if_full("m", "another")
    held.end()
    assert len(held.done) == 6


def test_waiting_for_a_thread_is_waiting_too(clock: Clock) -> None:
    lane = lane_of()
    lane.refuse_if_full("m", waited_s=1.0)  # nobody is before it: late or not, it may run
    held = Held(lane, clock)
    held.start("runs")
    lane.refuse_if_full("m", waited_s=0.02)
    with pytest.raises(Overloaded):
        lane.refuse_if_full("m", waited_s=0.06)
    held.end()


def test_many_threads_leave_a_lane_as_they_found_it() -> None:
    lane, most, running, lock = lane_of(workers=3, queue=5), 0, 0, threading.Lock()
    refused = 0

    def call() -> None:
        nonlocal most, running, refused
        for _ in range(200):
            try:
                with lane.enter(Deadline(time.monotonic() + 60)):
                    with lock:
                        running += 1
                        most = max(most, running)
                    with lock:
                        running -= 1
            except Overloaded:
                with lock:
                    refused += 1

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most <= 3
    assert lane.inside == lane.waiting == 0
    assert refused < 12 * 200
