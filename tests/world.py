"""Small worlds whose answers are known, and an encoder that needs no weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from scipy import sparse

from recsys.data.catalogue import Catalogue
from recsys.data.dataset import Dataset
from recsys.data.histories import Clock, Histories, histories_from_events
from recsys.data.ids import IdMap
from recsys.data.report import ValidationReport
from recsys.encode.codes import ItemCodes
from recsys.encode.history import HistoryEncoder, HistoryEncoderConfig
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.encode.text import TextEncoder
from recsys.match import Corpus, States
from recsys.model import Model, ModelSettings
from recsys.rank import RankerConfig
from recsys.recommend import Recommender
from recsys.train.fit import TrainConfig, fit_flow, make_stages, train_model, train_ranker
from recsys.train.stages import StageConfig
from recsys.types import Event, Item

DAY_S = 86_400.0
START_S = 1_600_000_000.0


class WordEncoder:
    """Texts to unit vectors by their words alone: of equal words equal, of no common word about orthogonal."""

    def __init__(self, dimension: int = 32) -> None:
        self.dimension = dimension
        self.fingerprint = f"words-{dimension}"

    def encode(self, texts: Sequence[str], *, progress: object = None) -> np.ndarray:
        vectors = np.stack([sum(map(self._word, words(text)), np.zeros(self.dimension)) for text in texts])
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def warm_up(self) -> None:
        """Nothing to load."""

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.random.default_rng(seed).standard_normal(self.dimension)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


ENCODER = cast(TextEncoder, WordEncoder())


def item_of(row: int) -> Item:
    """Items of five kinds and seven makers."""
    kind, maker = f"kind{row % 5}", f"maker{row % 7}"
    return Item(
        item_id=f"i{row}", title=f"{maker} thing{row}", description=f"a {kind} of {maker}", categories=("all", kind)
    )


def table_of(items: Sequence[Item]) -> ItemTable:
    return ItemTable(Catalogue(list(items)), ENCODER.encode([item.text for item in items]))


def histories_of(
    lives: Sequence[Sequence[int]], times: Sequence[Sequence[float]] | None = None, *, clock: Clock = "position"
) -> Histories:
    """One history a list of item rows."""
    steps = [list(map(float, range(len(life)))) for life in lives] if times is None else times
    return histories_from_events(
        np.repeat(np.arange(len(lives)), [len(life) for life in lives]).astype(np.int32),
        np.array([item for life in lives for item in life], np.int32),
        np.array([time for life in steps for time in life], np.float64),
        num_users=len(lives),
        clock=clock,
    )


def dataset_of(histories: Histories, items: Sequence[Item]) -> Dataset:
    counts = {"events_read": histories.num_events, "events_kept": histories.num_events}
    return Dataset(
        catalogue=Catalogue(list(items)),
        users=IdMap([f"u{row}" for row in range(len(histories))], name="user_id"),
        histories=histories,
        report=ValidationReport(source="a small world", items_read=len(items), items_kept=len(items), **counts),
    )


def chains(num_users: int = 300, num_items: int = 80, *, seed: int = 0, clock: Clock = "position") -> Dataset:
    """Lives that mostly step from item i to i + 1; nobody meets an item twice, and all items are about as popular."""
    rng = np.random.default_rng(seed)
    lives = [_chain(rng, num_items) for _ in range(num_users)]
    times = None
    if clock == "timestamp":
        times = [START_S + np.cumsum(rng.uniform(0.1, 30.0, len(life))) * DAY_S for life in lives]
    return dataset_of(histories_of(lives, times, clock=clock), [item_of(row) for row in range(num_items)])


def _chain(rng: np.random.Generator, num_items: int) -> list[int]:
    life = [int(rng.integers(num_items))]
    for _ in range(int(rng.integers(8, 16))):
        following = (life[-1] + 1) % num_items if rng.random() < 0.75 else int(rng.integers(num_items))
        if following not in life:
            life.append(following)
    return life


def shop(num_users: int = 150, num_items: int = 60, *, seed: int = 0) -> Dataset:
    """A year of baskets of one to three items at one moment; a user mostly buys its four favourites again."""
    rng = np.random.default_rng(seed)
    lives, times = [], []
    for _ in range(num_users):
        favourites = rng.choice(num_items, 4, replace=False)
        life, moments = [], []
        for moment in START_S + np.sort(rng.uniform(0, 365, int(rng.integers(6, 20)))) * DAY_S:
            for _ in range(int(rng.integers(1, 4))):
                life.append(int(rng.choice(favourites) if rng.random() < 0.8 else rng.integers(num_items)))
                moments.append(float(moment))
        lives.append(life)
        times.append(moments)
    items = [item_of(row) for row in range(num_items)]
    return dataset_of(histories_of(lives, times, clock="timestamp"), items)


def corpus_of(dataset: Dataset) -> Corpus:
    items = table_of(dataset.catalogue.items)
    return Corpus(histories=dataset.histories, items=items, sequence=sequence_of(items))


def sequence_of(items: ItemTable, *, window: int = 8, memory: str = "") -> SequenceEncoder:
    """A history encoder that nobody trained; its item rows hang on the items' ids, not on their places."""
    torch.manual_seed(0)
    codes = ItemCodes.fit(items.base, 16)
    config = HistoryEncoderConfig(
        num_items=len(items.base),
        text_width=codes.width,
        memory=memory,
        memory_width=codes.width if memory == "slots" else 0,
        window=window,
        width=16,
    )
    encoder = HistoryEncoder(config).eval()
    words = WordEncoder(config.width)
    with torch.no_grad():
        encoder.items.id.weight.copy_(torch.from_numpy(words.encode(list(items.catalogue.ids))))
    return SequenceEncoder((encoder,), codes)


def asked(histories: Histories, items: ItemTable, *, now: float | None = None) -> States:
    """States asked a day after each user's last event, of the empty ones at 0, or all at `now`."""
    last = np.where(histories.lengths > 0, histories.last_times, 0.0)
    return States(histories=histories, now=last + DAY_S if now is None else np.full(len(histories), now), items=items)


def random_states(items: ItemTable, num_states: int = 12, *, seed: int = 0) -> States:
    """Histories of 0 to 30 events over all rows of `items`, with repeats; the first two are empty."""
    rng = np.random.default_rng(seed)
    lengths = [0, 0, *rng.integers(1, 30, num_states - 2)]
    lives = [rng.integers(0, len(items), n).tolist() for n in lengths]
    times = [START_S + np.sort(rng.uniform(0, 400, n)) * DAY_S for n in lengths]
    return asked(histories_of(lives, times, clock="timestamp"), items, now=START_S + 500 * DAY_S)


def renumbered(histories: Histories, place: np.ndarray) -> Histories:
    """The same lives where item row i is called place[i]."""
    return replace(histories, items=place[histories.items].astype(np.int32))


def reordered(items: Sequence[Item], place: np.ndarray) -> list[Item]:
    """`items` with item i in row place[i]."""
    return [items[row] for row in np.argsort(place)]


def dense(matrix: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(matrix.todense())


def quick(*, seed: int = 0, with_validation: bool = False, test_days: float = 60.0) -> TrainConfig:
    """Enough training for a small world."""
    stages = StageConfig(test_days=test_days, validation_days=40.0, seed=seed, with_validation=with_validation)
    ranker = RankerConfig(max_trees=30, min_data_in_leaf=20, patience=10, learning_rate=0.1, num_threads=1)
    return TrainConfig(stages=stages, ranker=ranker)


def model_of(dataset: Dataset, *, with_ranker: bool = True) -> Model:
    """A model of the whole data set, trained in about a second."""
    config, items = quick(), table_of(dataset.catalogue.items)
    stages = make_stages(dataset.histories, items, config)
    settings = ModelSettings(
        encoder=None,
        encoder_fingerprint=ENCODER.fingerprint,
        include_seen=stages.include_seen,
        data_fingerprint=dataset.fingerprint,
        metrics={"ndcg@10": 0.5},
    )
    if with_ranker:
        return train_model(dataset, items, settings, train_ranker(stages, items, config)[0], config)
    flow = fit_flow(dataset.histories, items)
    return Model(
        settings=settings, items=items, users=dataset.users, histories=dataset.histories, flow=flow, ranker=None
    )


def recommender_of(model: Model) -> Recommender:
    return Recommender.of(model, ENCODER)


def events(*item_ids: str, user_id: str = "", start_s: float | None = None) -> tuple[Event, ...]:
    """Views of items one after the other, an hour apart where there is a start."""
    return tuple(
        Event(user_id=user_id, item_id=item_id, timestamp=None if start_s is None else start_s + 3_600.0 * step)
        for step, item_id in enumerate(item_ids)
    )
