"""Ten times what the server can do, offered by a clock that waits for nobody.

`tests/serve/test_overload.py` offers twice as much, and `tests/serve/test_lane.py` counts with a clock of its own; here
the load comes from another process, at CI size to see that nothing breaks, at full size to measure what is promised.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._traffic import Traffic, arrivals, ask, offer
from recsys.v1 import ranking_service_pb2 as pb
from tests.reliability.served import Served

TAKES_MS, WORKERS = 100, 4
PEAK_PER_S = WORKERS / (TAKES_MS / 1e3)
TIMEOUT_S = 1.0
REQUEST = pb.RankItemsRequest(
    user=pb.UserContext(user_id="u"), candidates=[pb.Candidate(item_id="item-1")]
).SerializeToString()


def at(target: str, load: float, seconds: float, seed: int) -> Traffic:
    """`load` times the most that the workers can do, at moments drawn beforehand."""
    moments = arrivals(load * PEAK_PER_S, seconds, np.random.default_rng(seed))
    return offer(target, [REQUEST], moments, timeout_s=TIMEOUT_S, max_in_flight=10_000)


def test_ten_times_the_load_is_refused_by_name_and_passes(tmp_path: Path) -> None:
    with Served(tmp_path, "--takes", str(TAKES_MS), "--workers", str(WORKERS)) as served:
        target = served.start()
        ask(target, REQUEST, timeout_s=20)
        loud = at(target, 10.0, 2.0, seed=1)
        assert len(loud.latency_ms) > 0
        assert set(loud.failed) <= {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
        assert loud.failed["RESOURCE_EXHAUSTED"] > 0.5 * loud.calls
        assert ask(target, REQUEST, timeout_s=20)  # and right afterwards it serves as before


@pytest.mark.full
def test_ten_times_the_load_costs_the_accepted_little(tmp_path: Path) -> None:
    with Served(tmp_path, "--takes", str(TAKES_MS), "--workers", str(WORKERS)) as served:
        target = served.start()
        ask(target, REQUEST, timeout_s=20)
        usual = at(target, 0.8, 10.0, seed=1)
        loud = at(target, 10.0, 10.0, seed=2)
        after = at(target, 0.8, 5.0, seed=3)
        good = len(loud.latency_ms) / loud.seconds / PEAK_PER_S
        p99, usual_p99 = (float(np.percentile(each.latency_ms, 99)) for each in (loud, usual))
        print(
            f"goodput {good:.2f} of peak; p99 of accepted {p99:.0f} ms, at 80 % load {usual_p99:.0f} ms; "
            f"failed {dict(loud.failed)}; afterwards {dict(after.failed)} of {after.calls}"
        )
        assert good >= 0.9
        assert p99 <= 2 * usual_p99
        assert sum(after.failed.values()) <= 0.1 * after.calls
