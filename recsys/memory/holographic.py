"""Holographic: a life as a few superposed traces; every event is in each of them, none has a place of its own.

A filler (an item's code, turned into H dimensions) is bound to a role by circular convolution, and bound pairs are
added into a trace that fades. One trace a span of time: of half-lives 32, 1,024 and 32,768 events, so that what is
recent is not drowned by what is many (Plate 1995, "Holographic reduced representations").

    trace <- decay * trace + role (*) filler            (*) circular convolution: a product of Fourier coefficients
    role (+) trace = the decayed sum of its fillers + crosstalk of the other roles      (+) circular correlation

A role is the type of the event, and with `seasons` the season of its time as well. Role vectors have Fourier
coefficients of absolute value 1, so correlation undoes convolution exactly and only crosstalk is left, of about
1 / sqrt(H) a role.

A read is the cosine of the query and what a role unbinds from a trace, in H dimensions: crosstalk lowers it, as it
should. `entries` cleans up by matching pursuit (Mallat and Zhang 1993): of what a role unbinds from a trace, the item
that responds most is named and taken off, and so on with the rest.

Known limit: a trace holds a sum, not its parts. It answers "how much of this lately", and one event among a thousand
unlike ones is below the noise, at any number of dimensions.

Cost: a write O(D) an event and O(H log H) a call, a read O(H log H) a role and trace. Bytes a user:
4 spans (H + roles) + 4 roles + 8; with the defaults 12.1 KiB.

Letters: U users, B users of a batch, E events, Q queries a user, J spans, O roles, H inner dimensions, F Fourier
coefficients, N items, D dimensions.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Complex64, Float32, Int64

from recsys.data.histories import Histories
from recsys.errors import InvalidInput
from recsys.memory.far import (
    Recalled,
    checked,
    joined,
    load_parts,
    nearest,
    save_parts,
    to_write,
    unit,
    usable,
    weightiest,
)

VERSION = 1

MONTH_S = 365.25 * 86_400.0 / 12.0

CLEANED = 64
"""Items among which clean-up looks, those that respond most in each role and trace; it names no more."""

USERS_AT_ONCE = 32
"""Users cleaned up side by side: bounds what that holds at a few MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolographicConfig:
    """`half_lives`: of the traces, in events. `types`: event types that have a role of their own; later ones share
    them. `seasons`: parts of the year that have one too, 0 for none: they need times since the epoch."""

    dimensions: int = 1_024
    half_lives: tuple[float, ...] = (32.0, 1_024.0, 32_768.0)
    types: int = 4
    seasons: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimensions < 8:
            raise InvalidInput.of("dimensions", self.dimensions, "at least 8")
        if not self.half_lives or not all(half > 0.0 for half in self.half_lives):
            raise InvalidInput.of("half_lives", self.half_lives, "one or more, all above 0")
        if self.types < 1:
            raise InvalidInput.of("types", self.types, "at least 1")
        if self.seasons < 0:
            raise InvalidInput.of("seasons", self.seasons, "at least 0")

    @property
    def num_roles(self) -> int:
        return self.types + self.seasons


@dataclass(frozen=True, slots=True)
class _Held:
    """All that is kept, a row a user. `mass`: the decayed number of events in each trace, by role."""

    traces: np.ndarray  # float32 [U J H]
    mass: np.ndarray  # float32 [U J O]
    last: np.ndarray  # int32 [U O], the place of the role's last event
    num_events: np.ndarray  # int64 [U]

    @classmethod
    def empty(cls, num_users: int, config: HolographicConfig) -> Self:
        spans = len(config.half_lives)
        return cls(
            traces=np.zeros((num_users, spans, config.dimensions), np.float32),
            mass=np.zeros((num_users, spans, config.num_roles), np.float32),
            last=np.full((num_users, config.num_roles), -1, np.int32),
            num_events=np.zeros(num_users, np.int64),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Holographic:
    """A `FarMemory` of superposed traces."""

    name: ClassVar[str] = "holographic"
    __slots__ = ("_codes", "_config", "_held", "_known", "_lock", "_roles", "_turn")

    def __init__(self, codes: Float32[np.ndarray, "N D"], config: HolographicConfig, held: _Held) -> None:
        if config.dimensions < codes.shape[1]:
            raise InvalidInput.of("dimensions", config.dimensions, f"fewer than the codes' {codes.shape[1]}")
        self._codes, self._known = codes, usable(codes)
        self._config, self._held = config, held
        self._roles, self._turn = _roles(config), _turn(codes.shape[1], config)
        self._lock = threading.Lock()  # a reader copies, the writer publishes

    @classmethod
    def empty(cls, num_users: int, codes: Float32[np.ndarray, "N D"], config: HolographicConfig | None = None) -> Self:
        config = config or HolographicConfig()
        return cls(codes, config, _Held.empty(num_users, config))

    def write(self, users: Int64[np.ndarray, " B"], histories: Histories) -> None:
        users, histories = to_write(users, histories, len(self._held.num_events), self._known)
        for row, user in enumerate(users):
            if histories.lengths[row]:
                self._write(int(user), histories.of(row))

    def _write(self, user: int, history: Histories) -> None:
        """One user's events: summed by role in the codes' dimensions, then turned and bound once."""
        held, ages = self._held, history.ages.astype(np.float32)
        roles = self._roles_of(history)
        decay = np.exp2(-ages / np.array(self._config.half_lives, np.float32)[:, None])
        sums = np.zeros((len(decay), self._config.num_roles, self._codes.shape[1]), np.float32)
        mass = np.zeros(sums.shape[:2], np.float32)
        last = held.last[user].copy()
        codes = self._codes[history.items]
        for role in np.unique(roles[roles >= 0]):
            at = np.flatnonzero((roles == role).any(axis=0))
            sums[:, role], mass[:, role] = decay[:, at] @ codes[at], decay[:, at].sum(axis=1)
            last[role] = held.num_events[user] + at[-1]
        bound = (np.fft.rfft(sums @ self._turn) * self._roles).sum(axis=1)
        faded = np.exp2(-len(ages) / np.array(self._config.half_lives))[:, None].astype(np.float32)
        traces = faded * held.traces[user] + np.fft.irfft(bound, self._config.dimensions).astype(np.float32)
        with self._lock:
            held.traces[user], held.mass[user] = traces, faded * held.mass[user] + mass
            held.last[user] = last
            held.num_events[user] += len(ages)

    def _roles_of(self, history: Histories) -> np.ndarray:
        """The roles of each event [2, E], -1 for none."""
        config = self._config
        seasons = np.full(history.num_events, -1)
        if config.seasons and history.clock == "timestamp":
            seasons = (
                config.types + (history.times / (12.0 * MONTH_S) * config.seasons).astype(np.int64) % config.seasons
            )
        return np.stack([history.types % config.types, seasons])

    def read(self, users: Int64[np.ndarray, " B"], queries: Float32[np.ndarray, "B Q D"], k: int = 1) -> Recalled:
        """Entries are traces by role: `vectors` is what was unbound, as codes; `similarity` counts crosstalk too."""
        fillers, mass, age = self._unbound(users)
        found = nearest(unit(fillers), mass, age, queries @ self._turn, k)
        back = unit(found.vectors @ self._turn.T)
        return Recalled(back, found.similarity, found.weight, found.age)

    def entries(self, users: Int64[np.ndarray, " B"], most: int) -> Recalled:
        """The items that each role and trace is made of; `weight` is how many of its events are that item."""
        parts = [users[start : start + USERS_AT_ONCE] for start in range(0, len(users), USERS_AT_ONCE)]
        return joined([self._clean(part, most) for part in parts], self._codes.shape[1], 1, most)

    def _clean(self, users: np.ndarray, most: int) -> Recalled:
        fillers, mass, age = self._unbound(users)
        response = (fillers @ self._turn.T) @ self._codes.T
        top = min(CLEANED, response.shape[2])
        rows = np.argsort(-response, axis=2)[..., :top]
        codes = self._codes[rows]
        weight = _pursuit(np.take_along_axis(response, rows, axis=2), codes, mass)
        flat = (len(users), mass.shape[1] * top)
        ages = np.broadcast_to(age[..., None], rows.shape)
        return weightiest(codes.reshape(*flat, codes.shape[3]), weight.reshape(flat), ages.reshape(flat), most)

    def _unbound(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(what each role unbinds from each trace [B, J O, H], its mass [B, J O], its age [B, J O])."""
        users, held = checked(users, len(self._held.num_events)), self._held
        with self._lock:
            traces, mass = held.traces[users], held.mass[users]
            ages = (held.num_events[users][:, None] - 1 - held.last[users]).astype(np.float32)
        spectrum = np.fft.rfft(traces)[:, :, None, :] * self._roles.conj()
        fillers = np.fft.irfft(spectrum, self._config.dimensions).astype(np.float32)
        flat = (len(users), mass.shape[1] * mass.shape[2])
        age = np.broadcast_to(ages[:, None, :], mass.shape).reshape(flat)
        return fillers.reshape(*flat, self._config.dimensions), mass.reshape(flat), age

    def size_bytes(self) -> Int64[np.ndarray, " U"]:
        num_users = len(self._held.num_events)
        total = sum(array.nbytes for array in self._held.arrays().values())
        return np.full(num_users, total // max(num_users, 1), np.int64)

    def save(self, folder: Path) -> None:
        with self._lock:
            save_parts(folder, self.name, VERSION, self._codes, asdict(self._config), self._held.arrays())

    @classmethod
    def load(cls, folder: Path, codes: Float32[np.ndarray, "N D"]) -> Self:
        config, arrays = load_parts(folder, cls.name, VERSION, codes)
        config["half_lives"] = tuple(config["half_lives"])
        return cls(codes, HolographicConfig(**config), _Held(**arrays))


def _roles(config: HolographicConfig) -> Complex64[np.ndarray, "O F"]:
    """Random unitary vectors, as Fourier coefficients; the first and, of an even number, the last are real."""
    rng = np.random.default_rng([config.seed, 0])
    coefficients = np.exp(2j * np.pi * rng.random((config.num_roles, config.dimensions // 2 + 1)))
    coefficients[:, 0] = 1.0
    if config.dimensions % 2 == 0:
        coefficients[:, -1] = 1.0
    return np.asarray(coefficients, np.complex64)


def _turn(dimensions: int, config: HolographicConfig) -> Float32[np.ndarray, "D H"]:
    """Orthonormal rows in random directions: fillers look like noise, as binding wants, and keep their cosines."""
    rng = np.random.default_rng([config.seed, 1])
    turn, _ = np.linalg.qr(rng.standard_normal((config.dimensions, dimensions)))
    return np.ascontiguousarray(turn.T, np.float32)


def _pursuit(
    response: Float32[np.ndarray, "B X G"], codes: Float32[np.ndarray, "B X G D"], mass: Float32[np.ndarray, "B X"]
) -> Float32[np.ndarray, "B X G"]:
    """How often each of G items is in a sum of `mass` codes; half an event is none, and all are `mass` at most."""
    weight, left = np.zeros_like(response), mass.copy()
    alike = codes @ codes.transpose(0, 1, 3, 2)
    for _ in range(response.shape[2]):
        best = response.argmax(axis=2)[..., None]
        share = np.minimum(np.take_along_axis(response, best, axis=2)[..., 0], left)
        share = np.where(share >= 0.5, share, np.float32(0.0))
        if not share.any():
            break
        left -= share
        np.put_along_axis(weight, best, np.take_along_axis(weight, best, axis=2) + share[..., None], axis=2)
        response = response - share[..., None] * np.take_along_axis(alike, best[..., None], axis=2)[:, :, 0]
    return weight
