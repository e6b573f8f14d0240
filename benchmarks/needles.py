"""Needles in a life: does a memory still know a few events of an interest, a thousand to a million events later?

    python -m benchmarks.needles [--quick] [--data DIR] [--json FILE]

`benchmarks/_needles_world.py` tells how lives and questions are made. A memory scores a candidate by the similarity of
the best entry it reads for it. For each memory and depth:

    recall   share of (match, rival) pairs in which the match scores strictly higher; chance is .50
    top-1    share of matches that score higher than all 20 of their rivals; chance is .05
    noise    recall where this share of the other events is noise; the same lives and questions otherwise
    bytes    kept for a user, the largest of all lives
    write    us an event, whole lives at once, at the largest depth up to 100,000
    read     ms for 100 candidates of one user; depths take turns, median

`recall@depth` is the mean over the shares of noise (a million deep there is one, 0.25), `noise_cost` the most that
recall falls at any depth from no noise to half of it. Times are CPU time of one thread. `bank` keeps every event and is
the judge: what it misses lies in the items, not in a memory. `last_50` and `last_200` remember only so many events. The
default is what the engine ships: slots as they are configured there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int64

from benchmarks._needles_world import MATCHES, PLANTED, Lives, World, load_world, make_lives
from recsys import _native
from recsys.cli.progress import progress
from recsys.data.histories import Histories
from recsys.memory.bank import Bank
from recsys.memory.far import Recalled, nearest
from recsys.memory.holographic import Holographic
from recsys.memory.life import Life
from recsys.memory.places import Places
from recsys.memory.slots import Slots
from recsys.train.fit import Progress, quiet

DEFAULT = "slots"
NOISES = (0.0, 0.25, 0.5)
CANDIDATES = 100
NEAR, FAR = 1_000, 100_000
"""Depths whose reading times are compared."""


class Memory(Protocol):
    """What is measured of a far memory (`recsys.memory.far.FarMemory`)."""

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None: ...

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled: ...

    def size_bytes(self) -> Int64[np.ndarray, " U"]: ...


Maker = Callable[[int, Float32[np.ndarray, "N D"]], Memory]
"""(users, codes) -> a memory of theirs that holds nothing yet."""


@dataclass(slots=True)
class Window:
    """No memory: the latest `length` events of each user as they are, each compared with each query."""

    codes: Float32[np.ndarray, "N D"]
    length: int
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        for at, user in enumerate(users.tolist()):
            known = self.rows.get(user, np.zeros(0, np.int32))
            self.rows[user] = np.concatenate([known, histories.of(at).items[-self.length :]])[-self.length :]

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        kept = [self.rows[user] for user in users.tolist()]
        vectors = np.zeros((len(users), self.length, self.codes.shape[1]), np.float32)
        weight = np.zeros((len(users), self.length), np.float32)
        for at, rows in enumerate(kept):
            vectors[at, : len(rows)], weight[at, : len(rows)] = self.codes[rows[::-1]], 1.0
        age = np.broadcast_to(np.arange(self.length, dtype=np.float32), weight.shape)
        return nearest(vectors, weight, age, queries, k)

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        return np.array([rows.nbytes for rows in self.rows.values()], np.int64)


MAKERS: Mapping[str, Maker] = {
    "bank": Bank.empty,
    "slots": Slots.empty,
    "holographic": Holographic.empty,
    "places": Places.empty,
    "life": Life.empty,
    "last_50": lambda users, codes: Window(codes, 50),
    "last_200": lambda users, codes: Window(codes, 200),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many lives at each depth, and the shares of noise in them."""

    lives: Mapping[int, int]
    noises: Mapping[int, tuple[float, ...]]
    repeats: int


FULL = Plan(
    lives={1_000: 40, 10_000: 20, 100_000: 8, 1_000_000: 2},
    noises={1_000: NOISES, 10_000: NOISES, 100_000: NOISES, 1_000_000: (0.25,)},
    repeats=60,
)
QUICK = Plan(
    lives={1_000: 16, 10_000: 6, 100_000: 2},
    noises={1_000: NOISES, 10_000: NOISES, 100_000: NOISES},
    repeats=30,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One memory after the lives of one depth and share of noise: what it won, and what it took."""

    depth: int
    noise: float
    won: Bool[np.ndarray, "B M R"]
    write_us: float
    bytes_per_user: int

    @property
    def recall(self) -> float:
        return float(self.won.mean())

    @property
    def top1(self) -> float:
        return float(self.won.all(axis=2).mean())


def compare(world: World, plan: Plan, makers: Mapping[str, Maker] = MAKERS, report: Progress = quiet) -> dict[str, Any]:
    """The figures of every memory, and of the default one by itself."""
    lives = [
        make_lives(world, count, depth, noise) for depth, count in plan.lives.items() for noise in plan.noises[depth]
    ]
    found = {name: measure(name, make, world, lives, plan.repeats, report) for name, make in makers.items()}
    mine = found[DEFAULT]
    near = {depth: recall for depth, recall in mine["recall@depth"].items() if int(depth) <= FAR}
    kept = ("bytes_per_user", "read_ratio_100k_1k", "noise_cost")
    return {"default": {"recall@depth": near} | {key: mine[key] for key in kept}, "mechanisms": found}


def measure(
    name: str, make: Maker, world: World, lives: list[Lives], repeats: int, report: Progress = quiet
) -> dict[str, Any]:
    """Writes all lives into memories of this kind and asks what they know."""
    trials, kept = [], {}
    for done, these in enumerate(lives):
        report(f"{name}: lives", done, len(lives))
        memory = make(len(these.histories), world.codes)
        trials.append(trial(memory, world, these))
        kept[these.depth] = (memory, these)
    report(f"{name}: lives", len(lives), len(lives))
    return figures(trials, read_ms(kept, world, repeats))


def trial(memory: Memory, world: World, lives: Lives) -> Trial:
    """Writes `lives` into an empty memory and asks their questions."""
    start = time.process_time()
    memory.write(np.arange(len(lives.histories)), lives.histories)
    seconds = time.process_time() - start
    return Trial(
        depth=lives.depth,
        noise=lives.noise,
        won=ask(memory, world, lives),
        write_us=1e6 * seconds / lives.histories.num_events,
        bytes_per_user=int(memory.size_bytes().max()),
    )


def ask(memory: Memory, world: World, lives: Lives) -> Bool[np.ndarray, "B M R"]:
    """Whether the match outranks each of its rivals."""
    scores = np.zeros(lives.asked.shape, np.float32)
    for user, asked in enumerate(lives.asked):
        read = memory.read(np.array([user]), world.codes[asked.reshape(1, -1)])
        scores[user] = read.similarity[..., 0].reshape(asked.shape)
    return np.asarray(scores[..., :1] > scores[..., 1:])


def read_ms(kept: Mapping[int, tuple[Memory, Lives]], world: World, repeats: int) -> dict[int, float]:
    """Median CPU time of a read at each depth; they take turns, so that a busy machine is busy for all."""
    spent: dict[int, list[float]] = {depth: [] for depth in kept}
    rng = np.random.default_rng(0)
    for turn in range(repeats + 1):
        queries = world.codes[rng.integers(0, len(world.codes), (1, CANDIDATES))]
        for depth, (memory, lives) in kept.items():
            user = np.array([turn % len(lives.histories)])
            start = time.process_time()
            memory.read(user, queries)
            spent[depth].append(1e3 * (time.process_time() - start))
    return {depth: median(times[1:]) for depth, times in spent.items()}  # the first one only warms


def figures(trials: list[Trial], reads: Mapping[int, float]) -> dict[str, Any]:
    """One memory's figures, by depth and by noise."""
    depths = sorted({each.depth for each in trials})
    by_depth = {depth: [each for each in trials if each.depth == depth] for depth in depths}
    timed = max(depth for depth in depths if depth <= max(FAR, depths[0]))
    noisy = {depth: {each.noise: each.recall for each in by_depth[depth]} for depth in depths}
    falls = [recall[NOISES[0]] - recall[NOISES[-1]] for recall in noisy.values() if len(recall) == len(NOISES)]
    return {
        "recall@depth": {str(depth): float(np.mean([each.recall for each in by_depth[depth]])) for depth in depths},
        "top1@depth": {str(depth): float(np.mean([each.top1 for each in by_depth[depth]])) for depth in depths},
        "recall@noise": {
            str(depth): {str(noise): recall for noise, recall in noisy[depth].items()} for depth in depths
        },
        "noise_cost": max(falls) if falls else None,
        "bytes_per_user": max(each.bytes_per_user for each in trials),
        "write_us": float(np.mean([each.write_us for each in by_depth[timed]])),
        "read_ms": {str(depth): reads[depth] for depth in depths},
        "read_ratio_100k_1k": reads[FAR] / reads[NEAR] if {NEAR, FAR} <= set(depths) else None,
    }


def show(result: dict[str, Any], plan: Plan) -> None:
    depths = [str(depth) for depth in plan.lives]
    questions = ", ".join(f"{count * PLANTED * MATCHES:,} at {depth:,}" for depth, count in plan.lives.items())
    print(f"questions for each share of noise: {questions}")
    print("| memory | " + " | ".join(f"recall, top-1 at {int(depth):,}" for depth in depths), end="")
    print(" | noise cost | bytes a user | write us | " + " | ".join(f"read ms at {int(d):,}" for d in depths) + " |")
    print("|---" * (5 + 2 * len(depths)) + "|")
    for name, row in result["mechanisms"].items():
        cells = [f"{row['recall@depth'][depth]:.3f}, {row['top1@depth'][depth]:.2f}" for depth in depths]
        cells += [f"{row['noise_cost']:.3f}", f"{row['bytes_per_user']:,}", f"{row['write_us']:.2f}"]
        cells += [f"{row['read_ms'][depth]:.2f}" for depth in depths]
        print(f"| {name} | " + " | ".join(cells) + " |")
    mine = result["default"]
    print(f"default ({DEFAULT}): reading at {FAR:,} costs {mine['read_ratio_100k_1k']:.2f} x that at {NEAR:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer lives, none deeper than 100,000")
    parser.add_argument("--data", type=Path, metavar="DIR", help="items of the data set in this folder, not the demo's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    _native.limit_threads(1)
    plan = QUICK if options.quick else FULL
    with progress(silent=False) as report:
        world = load_world(options.data, report)
        result = compare(world, plan, report=report)
    show(result, plan)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
