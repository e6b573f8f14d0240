"""What each mixer of the history encoder costs as the window grows: one layer, forward and backward.

    python -m benchmarks.mixers [--quick] [--width D] [--json FILE]

Every batch holds the same number of events, cut into windows of T: a mixer whose cost is linear in T takes the same
time an event at every T. Events are some hours apart, so that sessions end. CPU time of one thread, which a neighbour
cannot stretch; mixers take turns at each T, medians over rounds; the first round only warms.

    us       an event, forward and backward
    growth   us at the longest window over us at the shortest: 1 is linear, the ratio of the lengths is quadratic
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from recsys import _native
from recsys.cli.progress import progress
from recsys.encode.mixers import MIXERS
from recsys.encode.window import Window
from recsys.train.fit import Progress, quiet

HEADS = 2
_HOURS_APART_S = 6 * 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Windows of `lengths`, `events` in each batch."""

    lengths: tuple[int, ...]
    events: int
    rounds: int
    width: int = 64


FULL = Plan(lengths=(64, 128, 256, 512, 1_024, 2_048), events=8_192, rounds=7)
QUICK = Plan(lengths=(64, 256, 1_024), events=2_048, rounds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One mixer: microseconds an event by length of the window, and its parameters."""

    us_per_event: dict[str, float]
    growth: float
    num_parameters: int


def compare(plan: Plan, report: Progress = quiet) -> dict[str, Cost]:
    """Every mixer at every length."""
    torch.manual_seed(0)
    mixers = {name: make(plan.width, HEADS, max(plan.lengths)) for name, make in MIXERS.items()}
    spent: dict[str, dict[str, float]] = {name: {} for name in mixers}
    for done, T in enumerate(plan.lengths):
        report("windows", done, len(plan.lengths))
        for name, us in _costs(mixers, T, plan).items():
            spent[name][str(T)] = us
    report("windows", len(plan.lengths), len(plan.lengths))
    first, last = str(plan.lengths[0]), str(plan.lengths[-1])
    return {
        name: Cost(us_per_event=us, growth=us[last] / us[first], num_parameters=_size(mixers[name]))
        for name, us in spent.items()
    }


def _costs(mixers: dict[str, nn.Module], T: int, plan: Plan) -> dict[str, float]:
    """Microseconds an event of each mixer; they take turns, so that a busy machine is busy for all."""
    source = torch.Generator().manual_seed(T)
    window = random_window(plan.events // T, T, source)
    x = torch.randn(plan.events // T, T, plan.width, generator=source)
    rounds: dict[str, list[float]] = {name: [] for name in mixers}
    for _ in range(plan.rounds + 1):
        for name, mixer in mixers.items():
            rounds[name].append(_seconds(mixer, x, window))
    return {name: 1e6 * median(seconds[1:]) / x[..., 0].numel() for name, seconds in rounds.items()}


def _seconds(mixer: nn.Module, x: Tensor, window: Window) -> float:
    mixer.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    start = time.process_time()
    mixer(x, window).sum().backward()
    return time.process_time() - start


def random_window(B: int, T: int, source: torch.Generator) -> Window:
    """Full windows of events at random times."""
    nothing = torch.zeros(B, T, dtype=torch.int64)
    waits = torch.empty(B, T, dtype=torch.float64).exponential_(1 / _HOURS_APART_S, generator=source)
    return Window(
        items=nothing,
        types=nothing,
        values=nothing,
        gaps=nothing,
        times=1.6e9 + waits.cumsum(dim=1),
        lengths=torch.full((B,), T),
    )


def _size(mixer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in mixer.parameters())


def show(costs: dict[str, Cost], plan: Plan) -> None:
    print(f"us an event, forward and backward, width {plan.width}, {HEADS} heads, {plan.events:,} events a batch")
    print("| mixer | parameters | " + " | ".join(f"T = {T:,}" for T in plan.lengths) + " | growth |")
    print("|---" * (3 + len(plan.lengths)) + "|")
    for name, cost in costs.items():
        cells = " | ".join(f"{us:.2f}" for us in cost.us_per_event.values())
        print(f"| {name} | {cost.num_parameters:,} | {cells} | {cost.growth:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three lengths, small batches")
    parser.add_argument("--width", type=int, default=64, metavar="D", help="dimensions of the layer (64)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    _native.limit_threads(1)
    chosen = QUICK if options.quick else FULL
    plan = Plan(lengths=chosen.lengths, events=chosen.events, rounds=chosen.rounds, width=options.width)
    with progress(silent=False) as report:
        costs = compare(plan, report)
    show(costs, plan)
    if options.json:
        result: dict[str, Any] = {"plan": asdict(plan), "mixers": {name: asdict(cost) for name, cost in costs.items()}}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
