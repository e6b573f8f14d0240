"""How fast the ranker scores: the kernel of `recsys.forest` beside LightGBM's own prediction, on equal models.

    python -m benchmarks.ranker [--quick] [--json out.json]

Models are trained on noise with missing values, so that every tree has all of its leaves and a row's path is hard to
foresee, which is LightGBM's worst case and the usual one of good features. Both sides have one thread, the same rows,
and take turns, so that a busy machine is busy for both; the clock is CPU time, which a neighbour stretches least.
Figures are the fastest of each round, medians over rounds.
Scores must be equal in every bit, or there is no figure. `setup` is the time until the first model can score, in a
process of its own: with nothing compiled yet, and with the machine code that was kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from recsys.rank import Examples, Ranker

import lightgbm as lgb  # isort: skip  (after torch, which `recsys.rank` imports)

SHAPES = ((30, 200, 31), (64, 50, 15), (64, 120, 15), (64, 240, 15), (60, 200, 63))
"""(features, trees, leaves): one from the literature on fast rankers, three like ours, one with many leaves."""
_ROWS = (1, 100, 500, 1_000)
_SETUP = """
import sys, time
from pathlib import Path
import recsys.rank
from recsys.rank import Ranker
text, start = Path(sys.argv[1]).read_text(), time.perf_counter()
ranker = Ranker.from_text(text, text.partition("feature_names=")[2].partition("\\n")[0].split(" "))
print(time.perf_counter() - start, ranker.kernel)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Milliseconds a call of `rows` rows; `ratio` is the median of the rounds' ratios."""

    features: int
    trees: int
    leaves: int
    rows: int
    kernel_ms: float
    lightgbm_ms: float
    ratio: float


def model_text(features: int, trees: int, leaves: int) -> str:
    """The text of a LambdaMART model whose trees all have `leaves` leaves."""
    examples = noise(12_000, features, seed=0)
    data = lgb.Dataset(examples.features, examples.labels, group=examples.sizes)
    parameters: dict[str, Any] = {
        "objective": "lambdarank",
        "num_leaves": leaves,
        "min_data_in_leaf": 20,
        "learning_rate": 0.05,
        "feature_fraction": 0.5,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    return str(lgb.train(parameters, data, trees).model_to_string())


def noise(rows: int, features: int, *, seed: int) -> Examples:
    """Normal features, a twentieth of them missing; some of what was chosen follows the first five."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((rows, features)).astype(np.float32)
    table[rng.random(table.shape) < 0.05] = np.nan
    labels = np.nansum(table[:, :5], axis=1) + rng.standard_normal(rows) > 2
    return Examples(features=table, labels=labels.astype(np.float32), sizes=np.full(rows // 100, 100))


def speed(ranker: Ranker, shape: tuple[int, int, int], count: int, *, rounds: int) -> Speed:
    """Raises where the kernel does not serve the model, or where one bit differs."""
    rows = noise(1_000, shape[0], seed=1).features[:count]

    def lightgbm() -> np.ndarray:
        return np.asarray(ranker.booster.predict(rows, num_threads=1))

    if ranker.kernel != "quickscorer":
        raise RuntimeError(f"no kernel: {ranker.reason}")
    np.testing.assert_array_equal(ranker.score(rows).view(np.int64), lightgbm().view(np.int64))
    times = [(fastest(lambda: ranker.score(rows)), fastest(lightgbm)) for _ in range(rounds)]
    mine, theirs = (median(side) * 1e3 for side in zip(*times, strict=True))
    features, trees, leaves = shape
    return Speed(
        features=features,
        trees=trees,
        leaves=leaves,
        rows=count,
        kernel_ms=mine,
        lightgbm_ms=theirs,
        ratio=median(other / own for own, other in times),
    )


def fastest(call: Callable[[], object], times: int = 15) -> float:
    """CPU seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def setup(text: str) -> dict[str, float]:
    """Seconds until a process has a ranker that scores: first ever, and again."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ranker.txt"
        file.write_text(text)
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        found = [
            subprocess.run(
                [sys.executable, "-c", _SETUP, str(file)], env=environment, check=True, capture_output=True, text=True
            ).stdout.split()
            for _ in range(2)
        ]
    if any(kernel != "quickscorer" for _, kernel in found):
        raise RuntimeError("no kernel in a fresh process")
    return {"first_s": float(found[0][0]), "kept_s": float(found[1][0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two models, 500 rows, fewer rounds")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    runs = []
    shapes = (SHAPES[0], SHAPES[2]) if options.quick else SHAPES
    for shape in shapes:
        text = model_text(*shape)
        ranker = Ranker.from_text(text, [f"Column_{i}" for i in range(shape[0])])
        for count in (500,) if options.quick else _ROWS:
            runs.append(speed(ranker, shape, count, rounds=5 if options.quick else 9))
            print(json.dumps(asdict(runs[-1])), flush=True)
    at_500 = [run.ratio for run in runs if run.rows == 500]
    report = {"ratio_500": min(at_500), "setup": setup(text), "runs": [asdict(run) for run in runs]}
    print(json.dumps({key: value for key, value in report.items() if key != "runs"}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
