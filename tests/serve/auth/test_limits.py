"""Rates and quotas: what is used up is refused, with the time when there is more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.errors import InvalidInput, LimitExceeded
from recsys.serve.auth.limits import DAY_S, Bucket, EventQuota, QuotaConfig, Rates
from recsys.serve.caller import Scope


class Clock:
    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def test_a_bucket_gives_its_rate_over_any_time() -> None:
    clock = Clock()
    bucket = Bucket(5.0, clock=clock)
    given = 0
    for tick in range(1000):
        clock.at = tick * 0.01
        given += bucket.take() == 0.0
    assert given == 5 + 49  # a full bucket, then five a second for just under ten seconds


def test_a_slow_bucket_still_lets_one_through() -> None:
    clock = Clock()
    bucket = Bucket(0.1, clock=clock)
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(10.0)
    clock.at = 10.0
    assert bucket.take() == 0.0


def test_each_scope_has_a_bucket_of_its_own() -> None:
    rates = Rates({Scope.RANK: 1.0}, clock=Clock())
    rates.take(Scope.RANK)
    with pytest.raises(LimitExceeded, match="rank") as caught:
        rates.take(Scope.RANK)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    for _ in range(100):
        rates.take(Scope.WRITE)


def test_a_days_events_are_counted_by_what_was_accepted() -> None:
    clock = Clock(10 * DAY_S + 3600)
    quota = EventQuota(10, clock=clock)
    with quota.taking(6) as accepted:
        accepted(4)  # two were duplicates
    assert quota.used == 4
    with pytest.raises(ZeroDivisionError), quota.taking(6):
        raise ZeroDivisionError
    assert quota.used == 4
    with pytest.raises(LimitExceeded, match="4 of 10") as caught, quota.taking(7):
        pass
    assert caught.value.retry_after_s == DAY_S - 3600
    clock.at = 11 * DAY_S
    with quota.taking(10) as accepted:
        accepted(10)
    assert quota.used == 10


def test_writes_under_way_count_so_that_two_do_not_share_what_is_left() -> None:
    quota = EventQuota(10, clock=Clock())
    with quota.taking(6), pytest.raises(LimitExceeded), quota.taking(6):
        pass
    assert quota.used == 0


def test_a_write_that_ends_the_day_after_gives_nothing_back_to_it() -> None:
    clock = Clock(DAY_S - 1)
    quota = EventQuota(10, clock=clock)
    with quota.taking(10):
        clock.at = DAY_S + 1
        with quota.taking(3) as accepted:
            accepted(3)
    assert quota.used == 3


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "usage" / "shop.json", Clock(5 * DAY_S)
    first = EventQuota(10, path, clock)
    with first.taking(7) as accepted:
        accepted(7)
    first.close()
    assert [each.name for each in path.parent.iterdir()] == ["shop.json"]
    assert EventQuota(10, path, clock).used == 7
    path.write_text("{")
    with pytest.raises(InvalidInput, match="damaged"):
        EventQuota(10, path, clock)


def test_without_a_quota_nothing_is_counted_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    quota = EventQuota(None, path)
    with quota.taking(10**9) as accepted:
        accepted(10**9)
    quota.close()
    assert quota.used == 0
    assert not path.exists()


def test_what_was_saved_is_json(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    quota = EventQuota(10, path, Clock(3 * DAY_S))
    with quota.taking(2) as accepted:
        accepted(2)
    assert json.loads(path.read_text()) == {"day": 3, "events": 2}


@pytest.mark.parametrize("name", ["events_per_day", "items"])
def test_quotas_are_not_negative(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        QuotaConfig(**{name: -1})
