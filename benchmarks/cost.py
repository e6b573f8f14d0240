"""What a request costs as a history grows, and how much of it a memory knows for its bytes.

    python -m benchmarks.cost [--quick] [--json FILE] [--pictures DIR]

cost      ms to score 100 candidates for one user after so many events, median CPU time of one thread: a read of each
          memory of `benchmarks.needles`, and attention over all events (two blocks of width 64, four heads; it ends
          where a request takes seconds)
quality   share of (match, rival) pairs won at the needles' depth of 100,000, a quarter of the other events noise,
          against bytes a user: each memory in several sizes (--quick: a depth of 10,000)

`--pictures` draws both as `cost_by_length.png` and `quality_by_bytes.png`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._needles_world import World, load_world, make_lives
from benchmarks.needles import CANDIDATES, MAKERS, Maker, Window, trial
from recsys import _native
from recsys.cli.progress import progress
from recsys.errors import MissingExtra
from recsys.memory.bank import Bank
from recsys.memory.far import span_of
from recsys.memory.holographic import Holographic, HolographicConfig
from recsys.memory.life import Life, LifeConfig
from recsys.memory.places import Places
from recsys.memory.slots import Slots, SlotsConfig
from recsys.train.fit import Progress, quiet

import torch  # isort: skip
from torch import nn  # isort: skip

WIDTH, HEADS, BLOCKS = 64, 4, 2
NOISE = 0.25
ATTENTION = "attention over all"
LABELS = {
    "bank": "bank (every event)",
    "slots": "slots (default)",
    "holographic": "holographic",
    "places": "places",
    "life": "life",
    "last_50": "last 50 events",
    "last_200": "last 200 events",
    "window": "only the last events",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Lengths at which requests are timed, of memories and of attention; lives and depth at which quality is asked."""

    lengths: tuple[int, ...]
    attended: tuple[int, ...]
    repeats: int
    lives: int
    depth: int


FULL = Plan(
    lengths=(1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    attended=(1_000, 2_000, 4_000, 8_000, 16_000),
    repeats=30,
    lives=4,
    depth=100_000,
)
QUICK = Plan(lengths=(1_000, 10_000, 100_000), attended=(1_000, 2_000, 4_000), repeats=10, lives=4, depth=10_000)


class Block(nn.Module):
    """A causal transformer block: attention and a two-layer net, each on normed input, added to what was."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.net = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(self.norms[0](x)).view(1, -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        read: torch.Tensor = x + self.net(self.norms[1](x))
        return read


def attention_ms(length: int, repeats: int) -> float:
    """An encoder without a memory: blocks over all events, and the last state against the candidates."""
    torch.manual_seed(0)
    blocks = nn.Sequential(*(Block() for _ in range(BLOCKS))).eval()
    events, candidates = torch.randn(1, length, WIDTH), torch.randn(CANDIDATES, WIDTH)

    @torch.inference_mode()
    def request() -> None:
        _ = candidates @ blocks(events)[0, -1]

    return _median_ms(request, repeats if length <= 4_000 else 3)


def cost_of(make: Maker, world: World, plan: Plan, repeats: int) -> dict[str, float]:
    """Read times of one life, as it grows to each length."""
    life = make_lives(world, 1, max(plan.lengths), NOISE).histories
    memory, user = make(1, world.codes), np.zeros(1, np.int64)
    rng = np.random.default_rng(0)
    queries = world.codes[rng.integers(0, len(world.codes), (1, CANDIDATES))]
    found, told = {}, 0
    for length in plan.lengths:
        memory.write(user, span_of(life, user, told, length - told))
        told = length
        found[str(length)] = _median_ms(lambda: memory.read(user, queries), repeats)
    return found


def _median_ms(request: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats + 1):
        start = time.process_time()
        request()
        spent.append(1e3 * (time.process_time() - start))
    return median(spent[1:])  # the first one only warms


def sizes() -> Iterator[tuple[str, str, Maker]]:
    """(memory, setting, how to make it) of all that quality is asked of."""
    yield "bank", "every event", Bank.empty
    yield "places", "defaults", Places.empty
    for slots in (16, 32, 64, 128, 256, 512):
        yield "slots", f"{slots} slots", _configured(Slots.empty, SlotsConfig(slots=slots))
    yield "slots", "defaults", Slots.empty
    for keep in (4, 8, 16, 32, 64, 128):
        yield "life", f"{keep} a level", _configured(Life.empty, LifeConfig(keep=keep))
    for dimensions in (256, 1_024, 4_096):
        config = HolographicConfig(dimensions=dimensions)
        yield "holographic", f"{dimensions} dimensions", _configured(Holographic.empty, config)
    for length in (50, 200, 1_000, 5_000, 20_000):
        yield "window", f"last {length:,}", _window(length)


def _window(length: int) -> Maker:
    return lambda users, codes: Window(codes, length)


def _configured(empty: Callable[..., Any], config: object) -> Maker:
    return lambda users, codes: empty(users, codes, config)


def compare(
    world: World,
    plan: Plan,
    makers: Mapping[str, Maker] = MAKERS,
    settings: Sequence[tuple[str, str, Maker]] | None = None,
    report: Progress = quiet,
) -> dict[str, Any]:
    """{"cost": memory -> length -> ms, "quality": memory -> points of setting, bytes and recall}."""
    cost = {}
    for done, (name, make) in enumerate(makers.items()):
        report(f"cost: {name}", done, len(makers))
        cost[name] = cost_of(make, world, plan, plan.repeats)
    report("cost: attention", len(makers) - 1, len(makers))
    cost[ATTENTION] = {str(length): attention_ms(length, plan.repeats) for length in plan.attended}
    return {"cost": cost, "quality": quality(world, plan, list(sizes()) if settings is None else settings, report)}


def quality(
    world: World, plan: Plan, settings: Sequence[tuple[str, str, Maker]], report: Progress
) -> dict[str, list[dict[str, Any]]]:
    lives = make_lives(world, plan.lives, plan.depth, NOISE)
    found: dict[str, list[dict[str, Any]]] = {}
    for done, (name, setting, make) in enumerate(settings):
        report(f"quality: {name}, {setting}", done, len(settings))
        got = trial(make(plan.lives, world.codes), world, lives)
        point = {"setting": setting, "bytes_per_user": got.bytes_per_user, "recall": got.recall, "top1": got.top1}
        found.setdefault(name, []).append(point)
    return {name: sorted(points, key=lambda point: point["bytes_per_user"]) for name, points in found.items()}


def draw(result: dict[str, Any], folder: Path, depth: int) -> None:
    """Both pictures, in `folder`. Raises MissingExtra without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "bench") from error
    folder.mkdir(parents=True, exist_ok=True)
    by_length, by_bytes = (Figure(figsize=(7.5, 4.5), layout="constrained") for _ in range(2))
    axes = by_length.subplots()
    for name, times in result["cost"].items():
        line = "--" if name == ATTENTION else "-"
        axes.plot([int(length) for length in times], list(times.values()), line, marker="o", label=_label(name))
    axes.set(xscale="log", yscale="log", xlabel="events of the user", ylabel=f"ms for {CANDIDATES} candidates")
    axes.set_title("What a request costs as a history grows (one thread)")
    _finish(by_length, axes, folder / "cost_by_length.png")
    axes = by_bytes.subplots()
    for name, points in result["quality"].items():
        bytes_, recalls = zip(*((point["bytes_per_user"], point["recall"]) for point in points), strict=True)
        axes.plot(bytes_, recalls, marker="o", label=_label(name).replace(" (default)", ""))
    axes.axhline(0.5, color="grey", linestyle=":", label="chance")
    axes.set(xscale="log", xlabel="bytes a user", ylabel="pairs won", ylim=(0.3, 1.02))
    axes.set_title(f"What a memory knows {depth:,} events later, for its bytes")
    _finish(by_bytes, axes, folder / "quality_by_bytes.png")


def _label(name: str) -> str:
    return LABELS.get(name, name)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def show(result: dict[str, Any]) -> None:
    for name, times in result["cost"].items():
        print(f"{name:18s} " + "  ".join(f"{int(length):,}: {ms:.2f} ms" for length, ms in times.items()))
    for name, points in result["quality"].items():
        for point in points:
            print(
                f"{name:12s} {point['setting']:18s} {point['bytes_per_user']:10,} bytes"
                f"  {point['recall']:.3f} of pairs  {point['top1']:.2f} first"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter lives, fewer repeats")
    parser.add_argument("--data", type=Path, metavar="DIR", help="items of the data set in this folder, not the demo's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw both pictures into this folder")
    options = parser.parse_args()
    _native.limit_threads(1)
    plan = QUICK if options.quick else FULL
    with progress(silent=False) as report:
        result = compare(load_world(options.data, report), plan, report=report)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.pictures:
        draw(result, options.pictures, plan.depth)


if __name__ == "__main__":
    main()
