"""The plain script: a ranking server as one writes it in a day, without this engine. `benchmarks.serve` runs it beside.

    python -m benchmarks.plain FOLDER --json FILE

FOLDER is a snapshot's (it has item vectors, users and histories); FILE gets the port once it serves.

Text vectors come precomputed from a sentence encoder. Each call looks the user's whole history up anew with FAISS,
builds match features, asks LightGBM, and keeps nothing. It speaks RankItems, so that the same callers ask both.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as _faiss
import grpc
import numpy as np
import polars as pl
import torch  # noqa: F401  (it brings the OpenMP runtime that lightgbm needs and a slim system lacks)

import lightgbm as lgb  # isort: skip  (after torch)

from recsys.v1 import ranking_service_pb2 as pb

faiss: Any = _faiss  # its stubs name a part of what is there

NEAREST = 10
THREADS = 2
NUM_MOMENTS, NUM_CANDIDATES, LONGEST = 300, 100, 1_000


@dataclass(frozen=True, slots=True)
class Data:
    """Unit vectors [N, D], rows by item id, item rows by user id, how often each item was met [N]."""

    vectors: np.ndarray
    rows: dict[str, int]
    histories: dict[str, np.ndarray]
    counts: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Data:
        ids = pl.read_parquet(folder / "catalogue.parquet")["item_id"].to_list()
        users = pl.read_parquet(folder / "users.parquet")["user_id"].to_list()
        with np.load(folder / "histories.npz") as file:
            items, indptr = file["items"], file["indptr"]
        lives = np.split(items, indptr[1:-1])
        return cls(
            vectors=np.load(folder / "vectors.npy"),
            rows={id_: row for row, id_ in enumerate(ids)},
            histories=dict(zip(users, lives, strict=True)),
            counts=np.bincount(items, minlength=len(ids)),
        )


def features(data: Data, history: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Match features of candidate rows [K] against a history of item rows [L]: [K, 8]."""
    out = np.zeros((len(candidates), 8), np.float32)
    out[:, 0] = np.log1p(data.counts[candidates])
    if len(history) == 0:
        return out
    events, wanted = data.vectors[history], data.vectors[candidates]
    index = faiss.IndexFlatIP(events.shape[1])
    index.add(events)
    near, _ = index.search(wanted, min(NEAREST, len(history)))
    last = np.full(len(data.vectors), -1)
    last[history] = np.arange(len(history))
    out[:, 1], out[:, 2] = near[:, 0], near.mean(axis=1)
    out[:, 3:6] = wanted @ np.stack([events.mean(axis=0), events[-10:].mean(axis=0), events[-1]]).T
    out[:, 6] = np.bincount(history, minlength=len(last))[candidates]
    out[:, 7] = np.where(last[candidates] >= 0, len(history) - last[candidates], 0)
    return out


def train(data: Data, seed: int = 0) -> lgb.Booster:
    """LightGBM's ranker with its defaults, on the last event of some users against random items."""
    rng = np.random.default_rng(seed)
    lives = [life for life in data.histories.values() if 1 < len(life) <= LONGEST]
    rows = []
    for place in rng.choice(len(lives), min(NUM_MOMENTS, len(lives)), replace=False):
        others = rng.choice(len(data.vectors), NUM_CANDIDATES - 1)
        rows.append(features(data, lives[place][:-1], np.append(lives[place][-1], others)))
    labels = np.tile(np.arange(NUM_CANDIDATES) == 0, len(rows)).astype(int)
    ranker = lgb.LGBMRanker(verbose=-1, n_jobs=THREADS)
    ranker.fit(np.concatenate(rows), labels, group=[NUM_CANDIDATES] * len(rows))
    return ranker.booster_


def rank_items(data: Data, booster: lgb.Booster, request: pb.RankItemsRequest) -> pb.RankItemsResponse:
    """RankItems of known items."""
    history = data.histories.get(request.user.user_id, np.zeros(0, np.int32))
    candidates = np.array([data.rows[candidate.item_id] for candidate in request.candidates])
    scores = np.asarray(booster.predict(features(data, history, candidates), num_threads=1))
    best_first = np.argsort(-scores, kind="stable").tolist()
    return pb.RankItemsResponse(
        items=[
            pb.RankedItem(item_id=request.candidates[i].item_id, score=scores[i], rank=rank, index=i)
            for rank, i in enumerate(best_first, start=1)
        ]
    )


def handlers(data: Data, booster: lgb.Booster) -> grpc.GenericRpcHandler:
    """The one method that is served."""
    method = grpc.unary_unary_rpc_method_handler(
        lambda request, context: rank_items(data, booster, request),
        request_deserializer=pb.RankItemsRequest.FromString,
        response_serializer=pb.RankItemsResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("recsys.v1.RankingService", {"RankItems": method})


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the plain script on a free port of loopback.")
    parser.add_argument("folder", type=Path, help="a snapshot's folder")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="write the port here")
    arguments = parser.parse_args()
    data = Data.read(arguments.folder)
    faiss.omp_set_num_threads(1)
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers([handlers(data, train(data))])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    arguments.json.write_text(json.dumps({"port": port}))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
