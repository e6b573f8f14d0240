"""Which index to take: recall against latency and bytes, measured on one's own vectors and queries.

    indexer tune --snapshot .longrec/snapshots --least-recall 0.95 --picture index.png
    indexer tune --vectors vectors.npy --most-bytes 100000000

**The rule.** Of all kinds and efforts whose recall's 95 % interval lies at or above what is asked, and which fit the
bytes, the fastest for one query; of those within a tenth of it, which is the noise of a clock, the smallest.

Searches run on one thread, as a server runs them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from recsys import _native
from recsys.errors import InvalidInput, MissingExtra, NotFound
from recsys.index import checked_vectors, kinds
from recsys.index.faiss import FaissIndex, gpu_of
from recsys.index.recall import compared, exact_least
from recsys.match.neighbours import Neighbours
from recsys.memory.keys import latest_items, next_items, recent_items, superpose
from recsys.model import Model
from recsys.snapshot import open_snapshot

BATCH = 64
"""Queries of a batch."""
NUM_QUERIES = 500
MOST_TIMED, MOST_BATCHES = 200, 3
"""Queries and batches whose time is taken: the best of three tries of each, for a machine has other things to do."""

_EFFORTS = {
    "ivf_flat": (8, 16, 32, 64, 128, 256),
    "ivf_sq8": (8, 16, 32, 64, 128, 256),
    "ivf_fastscan": (8, 16, 32, 64, 128, 256),
    "pq": (2, 4, 8, 16),
    "hnsw": (64, 128, 256, 512, 1_024),
    "cagra": (64, 128, 256, 512),
}
_NOISE = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One kind at one effort (None: it has none). Times are medians: of one query, and of a batch of 64."""

    kind: str
    effort: int | None
    recall: float
    recall_low: float
    recall_high: float
    query_us: float
    batch_ms: float
    size_bytes: int
    build_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """All that was measured, and the one to take (None: none does what is asked), with the reason."""

    size: int
    dimension: int
    k: int
    num_queries: int
    device: str
    measured: tuple[Measured, ...]
    best: Measured | None
    why: str


def tune(
    vectors: Float32[np.ndarray, "N D"],
    queries: Float32[np.ndarray, "B D"],
    *,
    k: int = 100,
    least_recall: float = 0.95,
    most_bytes: int | None = None,
    kinds_tried: Sequence[str] | None = None,
    device: str = "auto",
    told: Callable[[Measured], None] = lambda _: None,
) -> Tuning:
    """Build each kind of index of `vectors`, ask it `queries` at several efforts, and pick by the module's rule.

    `kinds_tried`: all that `device` has where it is None. `told` hears of each measurement at once. Raises InvalidInput
    for NaN or infinity, too few vectors or queries, a recall outside 0 to 1, an unknown kind or device.
    """
    vectors = checked_vectors("vectors", vectors)
    queries = checked_vectors("queries", queries, vectors.shape[1])
    if not 0.0 <= least_recall <= 1.0:
        raise InvalidInput.of("least_recall", least_recall, "must be 0 to 1")
    if most_bytes is not None and most_bytes < 1:
        raise InvalidInput.of("most_bytes", most_bytes, "must be at least 1")
    least = exact_least(vectors.__getitem__, len(vectors), queries, k)
    measured: list[Measured] = []
    for kind in _tried(kinds_tried, vectors, device):
        began = time.perf_counter()
        index = FaissIndex.build(vectors, kind=kind, device=device)
        build_s = time.perf_counter() - began
        for effort in _efforts(index, min(k, len(index))):
            measured.append(_measure(index, effort, vectors, queries, k, least, build_s))
            told(measured[-1])
    best, why = pick(measured, least_recall=least_recall, most_bytes=most_bytes)
    return Tuning(
        size=len(vectors),
        dimension=vectors.shape[1],
        k=min(k, len(vectors)),
        num_queries=len(queries),
        device="cpu" if gpu_of(device) is None else "cuda",
        measured=tuple(measured),
        best=best,
        why=why,
    )


def pick(
    measured: Sequence[Measured], *, least_recall: float, most_bytes: int | None = None
) -> tuple[Measured | None, str]:
    """The one to take by the module's rule, and why; None where none does what is asked."""
    fitting = [each for each in measured if most_bytes is None or each.size_bytes <= most_bytes]
    if not fitting:
        smallest = min(each.size_bytes for each in measured)
        return None, f"none fits {most_bytes:,} bytes; the smallest takes {smallest:,}"
    finding = [each for each in fitting if each.recall_low >= least_recall]
    if not finding:
        nearest = max(fitting, key=lambda each: each.recall_low)
        return (
            None,
            f"none surely finds {least_recall}; the best is {named(nearest)}, at least {nearest.recall_low:.4f}",
        )
    fastest = min(finding, key=lambda each: each.query_us)
    alike = [each for each in finding if each.query_us <= _NOISE * fastest.query_us]
    best = min(alike, key=lambda each: (each.size_bytes, each.query_us))
    return best, (
        f"of {len(finding)} that surely find {least_recall}, "
        + ("it is the fastest" if best is fastest else f"it is as fast as {named(fastest)}, and smaller")
        + f": {best.query_us:.0f} us a query, {best.size_bytes / 2**20:.1f} MiB"
    )


def named(each: Measured) -> str:
    """The kind, and its effort where it has one."""
    return each.kind if each.effort is None else f"{each.kind} at {each.effort}"


def _tried(asked: Sequence[str] | None, vectors: np.ndarray, device: str) -> list[str]:
    """The kinds to build, each once: what "auto" or few vectors turn into is measured under its own name."""
    where = "cpu" if gpu_of(device) is None else "cuda"
    asked = kinds.available(vectors.shape[1], where) if asked is None else asked
    return list(dict.fromkeys(kinds.chosen(kind, len(vectors), where) for kind in asked))


def _efforts(index: FaissIndex, k: int) -> list[int | None]:
    """Efforts that differ in what they do: lists that there are, beams that hold k."""
    if index.kind not in _EFFORTS:
        return [None]
    tried = _EFFORTS[index.kind]
    if index.kind.startswith("ivf"):
        most = int(kinds.searched(index.on_cpu).nlist)
        return list(dict.fromkeys(min(each, most) for each in tried if min(each, most) > 1)) or [None]
    return [each for each in tried if index.kind == "pq" or each >= k] or [None]


def _measure(
    index: FaissIndex,
    effort: int | None,
    vectors: np.ndarray,
    queries: np.ndarray,
    k: int,
    least: np.ndarray,
    build_s: float,
) -> Measured:
    with _native.side_by_side():
        rows = index.search(queries, min(k, len(index)), effort=effort)[1]
        alone = [queries[at : at + 1] for at in range(len(queries))][:MOST_TIMED]
        batches = [queries[at : at + BATCH] for at in range(0, max(1, len(queries) - BATCH + 1), BATCH)][:MOST_BATCHES]
        query_s, batch_s = (
            float(np.median([_seconds(index, some, k, effort) for some in asked])) for asked in (alone, batches)
        )
    found = compared(rows, least, vectors.__getitem__, queries)
    return Measured(
        kind=index.kind,
        effort=effort,
        recall=found.value,
        recall_low=found.low,
        recall_high=found.high,
        query_us=1e6 * query_s,
        batch_ms=1e3 * batch_s,
        size_bytes=index.size_bytes,
        build_s=build_s,
    )


def _seconds(index: FaissIndex, queries: np.ndarray, k: int, effort: int | None) -> float:
    tries = []
    for _ in range(3):
        began = time.perf_counter()
        index.search(queries, k, effort=effort)
        tries.append(time.perf_counter() - began)
    return min(tries)


def draw(tuning: Tuning, figure: Any) -> None:
    """Both pictures into a matplotlib figure: recall against latency, and against bytes; the pick is ringed."""
    panels = figure.subplots(1, 2, sharey=True)
    sides = (("query_us", 1.0, "one query, microseconds (p50)"), ("size_bytes", tuning.size, "bytes a vector"))
    for panel, (name, divisor, label) in zip(panels, sides, strict=True):
        for kind in dict.fromkeys(each.kind for each in tuning.measured):
            some = [each for each in tuning.measured if each.kind == kind]
            where = [getattr(each, name) / divisor for each in some]
            spread = [
                [each.recall - each.recall_low for each in some],
                [each.recall_high - each.recall for each in some],
            ]
            panel.errorbar(where, [each.recall for each in some], yerr=spread, marker="o", markersize=4, label=kind)
        if tuning.best is not None:
            at = getattr(tuning.best, name) / divisor
            panel.plot(at, tuning.best.recall, "o", markersize=13, fillstyle="none", color="black")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"recall@{tuning.k}")
    panels[1].legend(frameon=False)


def picture(tuning: Tuning, path: Path) -> None:
    """Draw it into a file. Raises MissingExtra without matplotlib."""
    figure = figure_class()(figsize=(11, 4.5), layout="constrained")
    draw(tuning, figure)
    figure.savefig(path, dpi=120)


def figure_class() -> Any:
    """matplotlib's Figure. Raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("matplotlib", "train") from error


def of_file(path: Path, queries: Path | None, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(vectors, queries) of .npy files; where no queries are named, some vectors are held out to ask with."""
    vectors = _array("vectors", path)
    if queries is not None:
        return vectors, _sample(_array("queries", queries), seed)
    if len(vectors) < 2:
        raise InvalidInput.of(
            "vectors.shape", vectors.shape, "must be two vectors or more: some are held out to ask with"
        )
    shuffled = np.random.default_rng(seed).permutation(len(vectors))
    held_out = min(NUM_QUERIES, len(vectors) // 2)
    return vectors[np.sort(shuffled[held_out:])], vectors[shuffled[:held_out]]


def _array(name: str, path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput.of(name, str(path), f"is no .npy file that can be read: {error}") from error
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        raise InvalidInput.of(name, str(path), "holds no floating-point numbers")
    return checked_vectors(name, array)


def of_snapshot(root: Path, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(vectors, queries) of the current snapshot: the keys of all moments, and the present moments of its users.

    Raises NotFound where it has no collective memory, or nobody in it.
    """
    model = Model.load(open_snapshot(root).path)
    matcher = next((each for each in model.flow.matchers if isinstance(each, Neighbours)), None)
    if matcher is None or not matcher.histories.num_events:
        raise NotFound(f"the snapshot in {root} remembers no moments")
    config, histories = matcher.config, matcher.histories
    moments = recent_items(histories, config.window)[next_items(histories) >= 0]
    present = latest_items(histories, config.window)
    vectors, queries = (superpose(items, matcher.codes, config.decay) for items in (moments, present))
    return vectors, _sample(queries[queries.any(axis=1)], seed)


def _sample(queries: np.ndarray, seed: int) -> np.ndarray:
    chosen = np.random.default_rng(seed).permutation(len(queries))[:NUM_QUERIES]
    return np.asarray(queries[chosen])
