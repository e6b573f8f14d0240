"""What is counted and timed, in a registry of the server's own. No label holds anybody's id: methods, stages, codes.

`docs/operations.md` says what each metric means; `deploy/` holds a dashboard and alert rules on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from recsys.serve.ops.replay import ReplayReport

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is read when it is asked for. Times in seconds since the epoch, 0 where there is none."""

    ready: bool
    snapshots: Mapping[str, Mapping[str, str]]
    """Fingerprints by snapshot id, of what serves."""
    created: float
    watermark: float
    num_users: int
    num_items: int
    num_memories: int
    bytes_of: Mapping[str, int]
    """Bytes by part, as far as parts know their size."""
    inside: Mapping[str, int]
    """Calls that run or wait, by lane."""
    kept_rankings: int
    logged_requests: int
    replays: Sequence[ReplayReport]
    """The last comparison of each tenant that had one."""


class Metrics:
    """Every instrument, made once a server."""

    def __init__(self, read: Callable[[], Figures]) -> None:
        self.registry = CollectorRegistry()
        to = self.registry
        self.calls = Counter("recsys_calls", "Calls ended.", ["method", "code"], registry=to)
        self.call_seconds = Histogram(
            "recsys_call_seconds", "From a call's headers to its end.", ["method"], buckets=_SECONDS, registry=to
        )
        self.stage_seconds = Histogram(
            "recsys_stage_seconds", "Where the time of calls goes.", ["method", "stage"], buckets=_SECONDS, registry=to
        )
        self.wait_seconds = Histogram(
            "recsys_queue_wait_seconds",
            "From a call's headers to the start of its work: its message, its credential, its turn.",
            ["method"],
            buckets=_SECONDS,
            registry=to,
        )
        self.batch_rows = Histogram(
            "recsys_batch_rows", "Candidates, events, items or texts a call.", ["method"], buckets=_ROWS, registry=to
        )
        self.fallbacks = Counter(
            "recsys_fallbacks", "Answers that had to do without something.", ["reason"], registry=to
        )
        self.refusals = Counter(
            "recsys_refusals", "Calls that ended with an error, by its reason.", ["method", "reason"], registry=to
        )
        self.caches = Counter("recsys_cache_lookups", "What caches were asked.", ["cache", "result"], registry=to)
        to.register(_Read(read))
        ProcessCollector(registry=to)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _Read(Collector):
    """Figures that are looked up at a scrape and cost nothing between two."""

    def __init__(self, read: Callable[[], Figures]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # the registry then takes the names as they come

    def collect(self) -> Iterable[Metric]:
        found, now = self._read(), time.time()
        yield _gauge("recsys_ready", "1 while a snapshot serves.", float(found.ready))
        if found.snapshots:
            serving = InfoMetricFamily("recsys_snapshot", "What serves.")
            for snapshot_id, fingerprints in found.snapshots.items():
                names = {f"{part}_fingerprint": value for part, value in fingerprints.items()}
                serving.add_metric([], {"snapshot_id": snapshot_id, **names})
            yield serving
            yield _gauge("recsys_snapshot_age_seconds", "Since the serving snapshot was built.", now - found.created)
            yield _gauge("recsys_users", "Users with a history in the snapshot.", found.num_users)
            yield _gauge("recsys_items", "Items that can be ranked by id.", found.num_items)
            yield _gauge("recsys_memories", "Events the snapshot remembers.", found.num_memories)
        if found.watermark:
            at = found.watermark
            yield _gauge("recsys_watermark_timestamp_seconds", "Writes up to this time are visible.", at)
        yield _gauge("recsys_kept_rankings", "Answers kept for their pages and explanations.", found.kept_rankings)
        yield _gauge("recsys_logged_requests", "Ranking requests kept for a replay.", found.logged_requests)
        if found.replays:
            yield _replays(found.replays)
        yield _by(
            "recsys_memory_bytes",
            "Bytes held by parts that know their size; all of the process: process_resident_memory_bytes.",
            "part",
            found.bytes_of,
        )
        yield _by("recsys_calls_inside", "Calls that run or wait.", "lane", found.inside)


def _replays(reports: Sequence[ReplayReport]) -> Metric:
    """The worst of each figure."""
    family = GaugeMetricFamily(
        "recsys_replay", "The last comparison of a new snapshot with the old.", labels=["figure"]
    )
    figures = {
        "requests": min(each.num_requests for each in reports),
        "errors": max(each.num_errors for each in reports),
        "overlap": min(each.overlap for each in reports),
        "rank_correlation": min(each.correlation for each in reports),
        "latency_ratio": max(each.latency_ratio for each in reports),
    }
    for figure, value in figures.items():
        family.add_metric([figure], value)
    return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _by(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
