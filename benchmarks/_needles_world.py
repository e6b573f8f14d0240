"""Long lives with a few events of an interest hidden deep in them, and the questions that need those events.

An interest is a crowd of real items of like texts (titles and categories); interests lie apart. A life plants 3 to 5
events of each of a few interests `depth` events before its end. The rest of it are runs of the user's own interests
(Zipf) and noise: any items, of an interest or of none, that are not near what is planted or asked. A question sets
another item of a planted interest (the match) against items of interests that the life never held, about as popular
(the rivals).

Letters: N items, D dims, I interests, B lives, L events of a life, P planted interests, M matches a life,
R rivals a match.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64

from recsys.config import vector_cache_folder
from recsys.data.dataset import Dataset, load_dataset
from recsys.data.demo import load_demo
from recsys.data.histories import Histories, histories_from_events
from recsys.encode.cache import VectorCache
from recsys.encode.codes import ItemCodes
from recsys.encode.items import ItemTable
from recsys.encode.text import TextEncoder
from recsys.evaluate.build import encode_items
from recsys.train.fit import Progress, quiet

SEED = 7
DIMENSIONS = 32
"""Of item codes: at 64 KiB a user, slots keep more of a life in many short codes than in few long ones."""
MAX_ITEMS = 20_000
"""The items most met, where there are more: interests are found by comparing all with all."""
ALIKE, APART = 0.75, 0.4
"""Cosines: of an interest's items and its centre at least, of two interests' centres at most."""
LEAST, MOST = 10, 60
"""Items of an interest: five to plant and four to ask for, with one to spare; no interest is half the shop."""

PLANTED, MATCHES, RIVALS = 8, 4, 20
"""Interests planted in a life, matches asked for each of them, rivals of each match."""
STRETCH = 100
"""Events among which the planted ones lie."""
RUN = 8
"""Events in a row of one interest, on average: people stay with a thing for a while."""
START_S, STEP_S, PAUSE_S = 1.5e9, 60.0, 3_600.0


@dataclass(frozen=True, slots=True)
class World:
    """Item codes, how often each item was met by everybody, and the items and the centre of each of I interests."""

    codes: Float32[np.ndarray, "N D"]
    popularity: Int64[np.ndarray, " N"]
    interests: tuple[Int64[np.ndarray, " n"], ...]
    centres: Float32[np.ndarray, "I D"]


@dataclass(frozen=True, slots=True)
class Lives:
    """B lives and what is asked of them: `asked[b, m, 0]` is the match, `asked[b, m, 1:]` are its rivals."""

    depth: int
    noise: float
    histories: Histories
    asked: Int32[np.ndarray, "B M R+1"]
    planted: Int64[np.ndarray, "B P"]


def load_world(data: Path | None = None, report: Progress = quiet) -> World:
    """The world of the demo's films, or of the data set in the folder `data`."""
    dataset = load_demo() if data is None else load_dataset(data)
    with closing(VectorCache(vector_cache_folder())) as cache:
        return world_of(dataset, encode_items(dataset, TextEncoder.load(cache=cache), report))


def world_of(dataset: Dataset, items: ItemTable, dimensions: int = DIMENSIONS) -> World:
    """Interests among the items most met."""
    popularity = np.bincount(dataset.histories.items, minlength=len(items))
    rows = np.sort(np.argsort(-popularity, kind="stable")[:MAX_ITEMS])
    vectors = items.vectors(rows)
    codes = ItemCodes.fit(vectors, dimensions).of(vectors)
    interests, centres = find_interests(codes)
    return World(codes, popularity[rows], interests, codes[centres])


def find_interests(
    codes: Float32[np.ndarray, "N D"], *, alike: float = ALIKE, apart: float = APART, least: int = LEAST
) -> tuple[tuple[Int64[np.ndarray, " n"], ...], list[int]]:
    """(crowds, the items they stand round), the densest first; each item belongs to one crowd at most."""
    crowd = np.concatenate([(part @ codes.T >= alike).sum(axis=1) for part in _blocks(codes)])
    free = np.ones(len(codes), bool)
    centres: list[int] = []
    found = []
    for row in np.argsort(-crowd, kind="stable")[: int((crowd >= least).sum())]:
        if centres and (codes[centres] @ codes[row]).max() > apart:
            continue
        near = np.where(free, codes @ codes[row], -1.0)
        members = np.argsort(-near, kind="stable")[: min(MOST, int((near >= alike).sum()))]
        if len(members) >= least:
            centres.append(int(row))
            found.append(np.sort(members))
            free[members] = False
    return tuple(found), centres


def make_lives(world: World, num_lives: int, depth: int, noise: float, *, seed: int = SEED) -> Lives:
    """Lives of 1.1 * depth + 100 events; those of another `noise` differ in nothing but the noise."""
    made = [_life(world, depth, noise, (seed, depth, number)) for number in range(num_lives)]
    lives, steps, asked, planted = zip(*made, strict=True)
    histories = histories_from_events(
        np.repeat(np.arange(num_lives, dtype=np.int32), [len(life) for life in lives]),
        np.concatenate(lives),
        np.concatenate([START_S + np.cumsum(step) for step in steps]),
        num_users=num_lives,
    )
    return Lives(depth, noise, histories, np.stack(asked), np.stack(planted))


def _life(
    world: World, depth: int, noise: float, seed: tuple[int, ...]
) -> tuple[Int32[np.ndarray, " L"], np.ndarray, np.ndarray, np.ndarray]:
    """(items, seconds since the event before, what is asked, the planted interests) of one life."""
    # One stream for what must not change with the noise, one for the noise.
    rng, noisy = np.random.default_rng(seed), np.random.default_rng((*seed, 1))
    planted, asked, own = _parts(rng.permutation(len(world.interests)))
    length = depth + depth // 10 + STRETCH
    items, begins = _runs(world, own, length, rng)
    swapped = noisy.random(length) < noise
    items[swapped] = noisy.choice(_strange(world, np.concatenate([planted, asked])), int(swapped.sum()))
    places = length - depth - 1 - rng.permutation(STRETCH)
    questions, used = [], 0
    for interest in planted:
        members, count = rng.permutation(world.interests[interest]), int(rng.integers(3, 6))
        items[places[used : used + count]] = members[:count]
        questions.append(_questions(world, members[count : count + MATCHES], asked, rng))
        used += count
    return items, np.where(begins, PAUSE_S, STEP_S), np.concatenate(questions), planted


def _parts(interests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interests to plant, to ask for in vain, and of the user's own."""
    share = (len(interests) - PLANTED) // 3
    if share * LEAST < RIVALS:
        raise SystemExit(f"{len(interests)} interests are too few for {PLANTED} planted ones and two other kinds")
    planted, asked, own, _ = np.split(interests, PLANTED + np.array([0, share, 2 * share]))
    return planted, asked, own


def _strange(world: World, interests: np.ndarray) -> Int64[np.ndarray, " n"]:
    """Items that have a text and are near none of `interests`."""
    near = (world.codes @ world.centres[interests].T).max(axis=1)
    return np.flatnonzero((near < APART) & world.codes.any(axis=1))


def _runs(world: World, own: np.ndarray, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(items, whether a run begins) of a life among its own interests: the r-th of them comes as often as 1/r."""
    begins = rng.random(length) < 1 / RUN
    begins[0] = True
    weight = 1.0 / np.arange(1, len(own) + 1)
    runs = rng.choice(len(own), int(begins.sum()), p=weight / weight.sum())
    interest = runs[np.cumsum(begins) - 1]
    items = np.zeros(length, np.int32)
    for at, members in enumerate(world.interests[row] for row in own):
        here = interest == at
        liking = world.popularity[members] + 1.0
        items[here] = rng.choice(members, int(here.sum()), p=liking / liking.sum())
    return items, begins


def _questions(
    world: World, matches: np.ndarray, asked: np.ndarray, rng: np.random.Generator
) -> Int32[np.ndarray, "m R+1"]:
    """Each match and its rivals: of the five times as many items nearest in popularity some by chance."""
    strangers = np.concatenate([world.interests[interest] for interest in asked])
    rows = []
    for match in matches:
        unlike = np.abs(np.log1p(world.popularity[strangers]) - np.log1p(world.popularity[match]))
        alike = strangers[np.argsort(unlike, kind="stable")[: 5 * RIVALS]]
        rows.append([match, *rng.choice(alike, RIVALS, replace=False)])
    return np.array(rows, np.int32)


def _blocks(rows: np.ndarray, size: int = 1_024) -> list[np.ndarray]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]
