"""A user's own far memory: one protocol for all that keeps a life of any length and says what in it was like a query.

A mechanism is made for U users over shared item codes, is written event by event, and is read by vectors. What differs
is what is kept: every distinct item (`bank.Bank`), a matrix of slots (`slots.Slots`), superposed traces
(`holographic.Holographic`), addresses of known items (`places.Places`), or means over ever longer spans (`life.Life`).

What is written: events whose item has a code. An event of an unknown row (negative, or N and above) or of an item whose
code is zero is skipped; it is no step of age either.

Who may call: one writer at a time, and any number of readers beside it. A reader finds each user as before or as after
a write, never between; `read` and `entries` change nothing that another read could see.

Letters: U users, B users of a batch, E events, Q queries a user, k entries, M entries held, N items, D dimensions,
P moments at which entries were taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64

from recsys.data.histories import Histories
from recsys.errors import InvalidInput, MixedSnapshot

UNIT_TOLERANCE = 1e-2
"""How far from 1 a code's length may be: codes that went through half precision still pass."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What came back for each query, most similar first; where there are fewer than k: zeros, and age -1.

    `vectors` have unit length. `similarity` is cosine-like. `weight` says how many events stand behind the entry,
    decayed where the mechanism decays. `age` is the number of events written since the entry was last touched: 0 is
    the newest.
    """

    vectors: Float32[np.ndarray, "B Q k D"]
    similarity: Float32[np.ndarray, "B Q k"]
    weight: Float32[np.ndarray, "B Q k"]
    age: Float32[np.ndarray, "B Q k"]

    @classmethod
    def nothing(cls, num_users: int, num_queries: int, k: int, dimensions: int) -> Self:
        shape = (num_users, num_queries, k)
        zeros = np.zeros(shape, np.float32)
        return cls(np.zeros((*shape, dimensions), np.float32), zeros, zeros.copy(), np.full(shape, -1.0, np.float32))


class FarMemory(Protocol):
    """Keeps U users' lives; see the module's docstring for what is written and who may call."""

    name: ClassVar[str]

    @classmethod
    def empty(cls, num_users: int, codes: Float32[np.ndarray, "N D"], config: Any = None) -> Self:
        """A memory of `num_users` that did nothing. `codes` [N, D], one unit row an item, are shared, never written.

        Raises InvalidInput where a code is NaN or infinite, or is neither of unit length nor zero.
        """
        ...

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        """Append history b's events, in order, to the life of user users[b]; the users are distinct."""
        ...

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        """The k entries nearest to each query."""
        ...

    def entries(self, users: Int64[np.ndarray, " B"], most: int) -> Recalled:
        """[B, 1, most]: what is held, weightiest first and of equal weights the newest; `similarity` 1 where there is
        an entry. For an encoder that attends over the memory itself."""
        ...

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        """Of all that is kept for each user; the codes, and what is derived from them alone, are shared by all."""
        ...

    def save(self, folder: Path) -> None:
        """Write `<name>.npz` and `<name>.json` into `folder`."""
        ...

    @classmethod
    def load(cls, folder: Path, codes: Float32[np.ndarray, "N D"]) -> Self:
        """What `save` wrote. Raises MixedSnapshot where it is of another version, or `codes` of another shape."""
        ...


@dataclass(frozen=True, slots=True)
class Entries:
    """What a memory held at P moments, in half precision: zeros and age -1 where it held fewer than `most`."""

    vectors: Float16[np.ndarray, "P most D"]
    weight: Float16[np.ndarray, "P most"]
    age: Float16[np.ndarray, "P most"]


USERS_AT_ONCE = 1_024
"""Users that `entries_at` follows side by side: bounds what it holds beside its result."""


def entries_at(
    kind: type[FarMemory],
    histories: Histories,
    codes: Float32[np.ndarray, "N D"],
    every: int = 32,
    most: int = 32,
    config: Any = None,
) -> tuple[Int64[np.ndarray, " starts"], Entries]:
    """The entries of each user before event 0, `every`, 2 * `every`, ...: (indptr, entries).

    The state before event t of user u, and of what follows the last event too, is in row indptr[u] + t // every: it
    knows the events before `every` * (t // every) and no later one.
    """
    counts = histories.lengths // every + 1
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    out = Entries(
        np.zeros((indptr[-1], most, codes.shape[1]), np.float16),
        np.zeros((indptr[-1], most), np.float16),
        np.full((indptr[-1], most), -1.0, np.float16),
    )
    for start in range(0, len(histories), USERS_AT_ONCE):
        group = np.arange(start, min(start + USERS_AT_ONCE, len(histories)))
        memory = kind.empty(len(group), codes, config)
        for step in range(1, int(counts[group].max())):
            users = group[counts[group] > step]
            memory.write(users - start, span_of(histories, users, (step - 1) * every, every))
            _keep(out, indptr[users] + step, memory.entries(users - start, most))
    return indptr, out


def _keep(out: Entries, rows: np.ndarray, found: Recalled) -> None:
    most = np.finfo(np.float16).max
    out.vectors[rows] = found.vectors[:, 0]
    out.weight[rows] = np.minimum(found.weight[:, 0], most)
    out.age[rows] = np.minimum(found.age[:, 0], most)


def span_of(histories: Histories, users: np.ndarray, start: int, length: int) -> Histories:
    """Events `start` to `start + length` of each of `users`."""
    upto = np.minimum(histories.lengths[users], start + length)
    spans = histories.prefixes(users, upto)
    return spans.keep(np.arange(spans.num_events) - np.repeat(spans.indptr[:-1], upto) >= start)


# --- what the mechanisms share -------------------------------------------------------------------------------------


def usable(codes: Float32[np.ndarray, "N D"]) -> Bool[np.ndarray, " N"]:
    """Which items have a code; raises InvalidInput where a code is no unit vector and not zero."""
    lengths = np.linalg.norm(codes, axis=1)
    wrong = np.flatnonzero(~((np.abs(lengths - 1.0) <= UNIT_TOLERANCE) | (lengths == 0.0)))
    if len(wrong):
        row = int(wrong[0])
        raise InvalidInput.of(f"codes[{row}]", float(lengths[row]), "a code has length 1, or is zero for none")
    return np.asarray(lengths > 0.0)


def checked(users: np.ndarray, num_users: int) -> Int64[np.ndarray, " B"]:
    """`users` as rows; raises InvalidInput where one is no user of this memory."""
    wrong = np.flatnonzero((users < 0) | (users >= num_users))
    if len(wrong):
        raise InvalidInput.of(f"users[{wrong[0]}]", int(users[wrong[0]]), f"the memory has {num_users} users")
    return np.asarray(users, np.int64)


def to_write(
    users: np.ndarray, histories: Histories, num_users: int, known: Bool[np.ndarray, " N"]
) -> tuple[Int64[np.ndarray, " B"], Histories]:
    """The users, checked to be distinct, and their events of items that have a code."""
    users = checked(users, num_users)
    if len(users) != len(histories):
        raise InvalidInput.of("users", len(users), f"there are {len(histories)} histories")
    if len(np.unique(users)) < len(users):
        raise InvalidInput.of("users", len(users), "a user comes twice in one write")
    rows = histories.items
    inside = (rows >= 0) & (rows < len(known))
    good = inside & known[np.where(inside, rows, 0)] if len(known) else inside
    return users, histories if good.all() else histories.keep(good)


def nearest(
    vectors: Float32[np.ndarray, "B M D"],
    weight: Float32[np.ndarray, "B M"],
    age: Float32[np.ndarray, "B M"],
    queries: Float32[np.ndarray, "B Q D"],
    k: int,
    found: Bool[np.ndarray, "B Q M"] | None = None,
) -> Recalled:
    """The k of M entries nearest to each query, of those `found` where given; an entry of weight 0 is none."""
    similarity = queries @ vectors.transpose(0, 2, 1)
    similarity += np.where(weight > 0.0, 0.0, -np.inf).astype(np.float32)[:, None, :]
    if found is not None:
        similarity[~found] = -np.inf
    return _picked(vectors, similarity, weight, age, k)


def weightiest(
    vectors: Float32[np.ndarray, "B M D"],
    weight: Float32[np.ndarray, "B M"],
    age: Float32[np.ndarray, "B M"],
    most: int,
) -> Recalled:
    """`most` of M entries by weight, of equal weights the newest first; an entry of weight 0 is none."""
    order = np.lexsort((age, -weight))[:, :most]
    rows = np.arange(len(order))[:, None]
    some = weight[rows, order] > 0.0
    similarity = np.where(some, 1.0, -np.inf).astype(np.float32)[:, None, :]
    return _picked(vectors[rows, order], similarity, weight[rows, order], age[rows, order], most)


def _picked(vectors: np.ndarray, similarity: np.ndarray, weight: np.ndarray, age: np.ndarray, k: int) -> Recalled:
    num_users, num_queries, num_held = similarity.shape
    out = Recalled.nothing(num_users, num_queries, k, vectors.shape[2])
    at = _top(similarity, min(k, num_held))
    users = np.arange(num_users)[:, None, None]
    best = np.take_along_axis(similarity, at, axis=2)
    some, held = best > -np.inf, np.s_[:, :, : at.shape[2]]
    out.similarity[held] = np.where(some, best, 0.0)
    out.weight[held] = np.where(some, weight[users, at], 0.0)
    out.age[held] = np.where(some, age[users, at], -1.0)
    out.vectors[held] = np.where(some[..., None], vectors[users, at], 0.0)
    return out


def _top(similarity: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest of the last axis, largest first; of equal ones the first."""
    if k == 1:
        return np.asarray(similarity.argmax(axis=2)[..., None])
    if 4 * k < similarity.shape[2]:
        some = np.sort(np.argpartition(-similarity, k - 1, axis=2)[..., :k], axis=2)
        order = np.argsort(-np.take_along_axis(similarity, some, axis=2), axis=2, kind="stable")
        return np.take_along_axis(some, order, axis=2)
    return np.argsort(-similarity, axis=2, kind="stable")[..., :k]


def joined(parts: list[Recalled], dimensions: int, num_queries: int, k: int) -> Recalled:
    """Answers for users one after the other."""
    if not parts:
        return Recalled.nothing(0, num_queries, k, dimensions)
    names = ("vectors", "similarity", "weight", "age")
    return Recalled(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def unit(vectors: Float32[np.ndarray, "*any D"]) -> Float32[np.ndarray, "*any D"]:
    """`vectors` at length 1; zero stays zero."""
    lengths = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.where(lengths > 0.0, lengths, 1.0), np.float32)


def save_parts(
    folder: Path, name: str, version: int, codes: np.ndarray, config: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """`<name>.json` says what the arrays in `<name>.npz` are."""
    about = {"version": version, "codes": list(codes.shape), "config": dict(config)}
    (folder / f"{name}.json").write_text(json.dumps(about, sort_keys=True))
    np.savez(folder / f"{name}.npz", **arrays)


def load_parts(
    folder: Path, name: str, version: int, codes: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(config, arrays) as `save_parts` wrote them; raises MixedSnapshot where version or codes differ."""
    about = json.loads((folder / f"{name}.json").read_text())
    if about["version"] != version:
        raise MixedSnapshot(f"{name}.json: the memory has version {about['version']}, this code reads {version}")
    if about["codes"] != list(codes.shape):
        raise MixedSnapshot(f"{name}.json: written over codes of shape {about['codes']}, not {list(codes.shape)}")
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return dict(about["config"]), {key: file[key] for key in file.files}
