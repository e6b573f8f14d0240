"""Resets, pings, headers without an end, readers who do not read, silent connections: others do not notice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks._traffic import Traffic, ask, offer
from recsys.v1 import ranking_service_pb2 as pb
from tests.reliability.served import ROOT, Served

pytest.importorskip("h2", reason="pip install h2")

KINDS = ("resets", "pings", "unfinished_headers", "slow_readers", "silent")
REQUEST = pb.RankItemsRequest(
    user=pb.UserContext(user_id="u"), candidates=[pb.Candidate(item_id="item-1")]
).SerializeToString()
CALLS_PER_S, TIMEOUT_S = 40.0, 1.0
LEAST = 0.7  # of the goodput without rude clients


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("rude"), "--takes", "5") as served:
        served.start()
        yield served


def polite(served: Served, seconds: float) -> Traffic:
    """Calls at fixed moments, whatever the server does, each with a deadline."""
    moments = np.arange(0.0, seconds, 1 / CALLS_PER_S)
    return offer(served.target, [REQUEST], moments, timeout_s=TIMEOUT_S)


def goodput(traffic: Traffic) -> float:
    """The share of the calls that were answered in time."""
    return len(traffic.latency_ms) / traffic.calls


@pytest.fixture(scope="module")
def quiet(served: Served) -> float:
    """Goodput while nobody is rude."""
    ask(served.target, REQUEST, timeout_s=20)
    return goodput(polite(served, 2.0))


def beside(served: Served, kind: str, quiet: float, *, seconds: float, frames_per_s: float) -> str:
    port = served.target.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "tests.reliability.rude", kind, port, str(seconds + 2), str(frames_per_s)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        traffic = polite(served, seconds)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert int(out) > seconds, "nobody was rude"
    loud = goodput(traffic)
    assert loud >= LEAST * quiet, (kind, quiet, loud, dict(traffic.failed))
    assert len(ask(served.target, REQUEST, timeout_s=20))
    return f"{kind}: {out.strip()} sent, goodput {loud / quiet:.2f} of quiet, p99 {traffic.percentile_ms(99):.0f} ms"


@pytest.mark.parametrize("kind", KINDS)
def test_others_are_answered_beside_rude_clients(served: Served, quiet: float, kind: str) -> None:
    print(beside(served, kind, quiet, seconds=1.0, frames_per_s=300))


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_others_are_answered_beside_very_rude_clients(served: Served, quiet: float, kind: str) -> None:
    # Each slow reader's call is work first. Thousands a second of them do harm: see docs/reliability.md.
    print(beside(served, kind, quiet, seconds=10, frames_per_s=300 if kind == "slow_readers" else 5_000))


def test_the_server_is_as_it_was_afterwards(served: Served, quiet: float) -> None:
    files = len(list(Path(f"/proc/{served.pid}/fd").iterdir()))
    beside(served, "silent", quiet, seconds=1.0, frames_per_s=100)
    traffic = polite(served, 1.0)
    assert goodput(traffic) > LEAST
    assert len(list(Path(f"/proc/{served.pid}/fd").iterdir())) <= files + 20
