"""What every far memory promises, on lives whose content is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.data.histories import Histories
from recsys.errors import InvalidInput, MixedSnapshot
from recsys.memory.bank import Bank
from recsys.memory.far import FarMemory, Recalled, entries_at, span_of
from recsys.memory.holographic import Holographic, HolographicConfig
from recsys.memory.life import Life, LifeConfig
from recsys.memory.places import Places
from recsys.memory.slots import Slots, SlotsConfig
from tests.world import histories_of

KINDS: dict[str, tuple[type[FarMemory], Any]] = {
    "bank": (Bank, None),
    "slots": (Slots, SlotsConfig(slots=24, block=8)),
    "slots_roomy": (Slots, None),
    "slots_hebb": (Slots, SlotsConfig(slots=12, block=5, rule="hebb", half_life=50.0)),
    "holographic": (Holographic, None),
    "holographic_odd": (Holographic, HolographicConfig(dimensions=257, types=1)),
    "places": (Places, None),
    "life": (Life, None),
    "life_small": (Life, LifeConfig(recent=4, session=3, fan=2, levels=3, keep=2)),
}
NUM_ITEMS, DIMENSIONS = 90, 32
USERS = np.arange(5)

Make = Callable[..., FarMemory]


def item_codes(seed: int = 0, *, spread: float = 0.5) -> np.ndarray:
    """Nine kinds of ten items each; items of a kind are alike, kinds are not."""
    rng = np.random.default_rng(seed)
    kinds = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0][: NUM_ITEMS // 10]
    around = rng.standard_normal((NUM_ITEMS, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    vectors = np.repeat(kinds, 10, axis=0) + spread * around
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


CODES = item_codes()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    kind, config = KINDS[request.param]
    return lambda num_users=5, codes=CODES: kind.empty(num_users, codes, config)


def lives(seed: int = 1) -> Histories:
    """Five lives of 0 to 400 events over the first eight kinds of items; nobody meets the ninth kind."""
    rng = np.random.default_rng(seed)
    return histories_of([rng.integers(0, 80, length).tolist() for length in (400, 1, 0, 37, 128)])


def written(make: Make, histories: Histories) -> FarMemory:
    memory = make()
    memory.write(USERS, histories)
    return memory


def same(one: Recalled, other: Recalled, *, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(one.similarity, other.similarity, atol=atol)
    np.testing.assert_allclose(one.weight, other.weight, rtol=1e-3, atol=atol)
    np.testing.assert_array_equal(one.age, other.age)
    np.testing.assert_allclose(one.vectors, other.vectors, atol=10 * atol)


def asked(memory: FarMemory, users: np.ndarray = USERS, k: int = 1) -> Recalled:
    return memory.read(users, np.broadcast_to(CODES, (len(users), *CODES.shape)).copy(), k)


@pytest.mark.parametrize("piece", [1, 7, 32, 150])
def test_in_pieces_as_in_one_go(make: Make, piece: int) -> None:
    whole, pieces, histories = written(make, lives()), make(), lives()
    for start in range(0, int(histories.lengths.max()), piece):
        pieces.write(USERS, span_of(histories, USERS, start, piece))
    same(asked(pieces), asked(whole))
    same(pieces.entries(USERS, 20), whole.entries(USERS, 20))


def test_a_batch_as_one_by_one(make: Make) -> None:
    together, alone = written(make, lives()), make()
    for user in reversed(USERS):
        alone.write(np.array([user]), lives().take(np.array([user])))
    for user in USERS:
        one = asked(together, np.array([user]), 2)
        same(one, asked(alone, np.array([user]), 2))
        every = asked(together, USERS, 2)
        part = slice(user, user + 1)
        same(one, Recalled(every.vectors[part], every.similarity[part], every.weight[part], every.age[part]))


def test_the_order_of_users_does_not_matter(make: Make) -> None:
    order = np.array([3, 0, 4, 2, 1])
    shuffled = make()
    shuffled.write(order, lives().take(order))
    same(asked(shuffled), asked(written(make, lives())))
    turned = asked(shuffled, order)
    straight = asked(shuffled)
    np.testing.assert_allclose(turned.similarity, straight.similarity[order], atol=1e-5)
    np.testing.assert_array_equal(turned.age, straight.age[order])


def test_what_was_met_lately_is_nearer_than_what_was_never_alike(make: Make) -> None:
    memory = make()
    memory.write(np.array([0]), histories_of([[*range(0, 60, 3), *range(70, 80)]]))
    found = memory.read(np.array([0]), CODES[None, [70, 71, 72, 83, 85, 89]]).similarity[0, :, 0]
    assert found[:3].min() > found[3:].max() + 0.05


def test_an_answer_is_in_order_and_in_units(make: Make) -> None:
    found = asked(written(make, lives()), k=5)
    some = found.age >= 0
    np.testing.assert_array_equal(some, found.weight > 0)
    assert some[0].any()
    assert (found.age[0] < 400).all()
    assert (np.diff(np.where(some, found.similarity, -2.0), axis=2) <= 1e-6).all()
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=3), some, atol=1e-3)
    assert (found.similarity <= 1 + 1e-3).all()


def test_who_did_nothing_recalls_nothing(make: Make) -> None:
    for memory in (make(), written(make, lives())):
        users = np.array([2])
        for found in (asked(memory, users, 3), memory.entries(users, 3)):
            assert not found.similarity.any()
            assert not found.weight.any()
            assert not found.vectors.any()
            assert (found.age == -1).all()


def test_more_than_there_is_is_padded(make: Make) -> None:
    memory = written(make, lives())
    users = np.array([1])
    item = lives().items[lives().slice(1)]
    for found in (memory.read(users, CODES[None, item], 500), memory.entries(users, 500)):
        assert found.vectors.shape[2] == found.age.shape[2] == 500
        some = found.age[0, 0] >= 0
        assert 1 <= some.sum() < 30
        assert not found.vectors[0, 0, ~some].any()
        assert not found.weight[0, 0, ~some].any()


def test_entries_are_the_weightiest(make: Make) -> None:
    memory = written(make, lives())
    few, many = memory.entries(USERS, 3), memory.entries(USERS, 40)
    assert (np.diff(many.weight, axis=2) <= 1e-4).all()
    np.testing.assert_allclose(few.weight, many.weight[:, :, :3], rtol=1e-5)
    np.testing.assert_array_equal(many.similarity, (many.age >= 0).astype(np.float32))


def test_saved_and_loaded_it_answers_the_same_and_goes_on_the_same(make: Make, tmp_path: Path) -> None:
    memory = written(make, lives())
    memory.save(tmp_path)
    again = type(memory).load(tmp_path, CODES)
    for turn in range(2):
        one, other = asked(memory, k=3), asked(again, k=3)
        for name in ("vectors", "similarity", "weight", "age"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), (name, turn)
        np.testing.assert_array_equal(memory.size_bytes(), again.size_bytes())
        for each in (memory, again):
            each.write(USERS, lives(seed=7))


def test_a_memory_of_no_users_is_saved_too(make: Make, tmp_path: Path) -> None:
    memory = make(num_users=0)
    memory.save(tmp_path)
    nobody = np.zeros(0, np.int64)
    found = type(memory).load(tmp_path, CODES).read(nobody, np.zeros((0, 2, DIMENSIONS), np.float32), 3)
    assert found.vectors.shape == (0, 2, 3, DIMENSIONS)


def test_another_version_is_refused(make: Make, tmp_path: Path) -> None:
    memory = written(make, lives())
    memory.save(tmp_path)
    path = tmp_path / f"{memory.name}.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"version": about["version"] + 41}))
    with pytest.raises(MixedSnapshot, match=f"{about['version'] + 41}.*{about['version']}"):
        type(memory).load(tmp_path, CODES)


def test_other_codes_are_refused(make: Make, tmp_path: Path) -> None:
    memory = written(make, lives())
    memory.save(tmp_path)
    with pytest.raises(MixedSnapshot, match=r"\[90, 32\].*\[89, 32\]"):
        type(memory).load(tmp_path, CODES[:-1])


def test_ten_times_the_life_takes_no_more(make: Make) -> None:
    """The first life meets every item, so that a memory of distinct items is full as well."""
    rng = np.random.default_rng(5)
    life = np.concatenate([rng.permutation(80), rng.integers(0, 80, 320)])
    memory = make(num_users=1)
    memory.write(np.array([0]), histories_of([life.tolist()]))
    before = memory.size_bytes()
    memory.write(np.array([0]), histories_of([rng.integers(0, 80, 3_600).tolist()]))
    np.testing.assert_array_equal(memory.size_bytes(), before)
    assert 0 < before[0] <= 64 * 1024


def test_the_size_is_that_of_the_arrays_saved(make: Make, tmp_path: Path) -> None:
    memory = written(make, lives())
    memory.save(tmp_path)
    with np.load(tmp_path / f"{memory.name}.npz") as file:
        held = sum(file[name].nbytes for name in file.files if name not in ("lengths", "num_events"))
        counters = sum(file[name].nbytes for name in file.files if name in ("lengths", "num_events"))
    assert held <= memory.size_bytes().sum() <= held + counters


def test_reading_changes_nothing(make: Make, tmp_path: Path) -> None:
    memory = written(make, lives())
    memory.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    with np.load(tmp_path / f"{memory.name}.npz") as file:
        held = {name: file[name].tobytes() for name in file.files}
    codes = CODES.copy()
    first = asked(memory, k=4)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: asked(memory, k=4), range(12)):
            assert found.similarity.tobytes() == first.similarity.tobytes()
    first.vectors[:] = 7.0
    memory.entries(USERS, 10).vectors[:] = 7.0
    memory.save(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    with np.load(tmp_path / f"{memory.name}.npz") as file:
        assert held == {name: file[name].tobytes() for name in file.files}
    np.testing.assert_array_equal(CODES, codes)


def test_a_user_twice_in_a_write_is_refused(make: Make) -> None:
    with pytest.raises(InvalidInput, match="twice"):
        make().write(np.array([1, 1]), histories_of([[1], [2]]))


def test_an_unknown_user_is_refused(make: Make) -> None:
    for users in (np.array([5]), np.array([-1])):
        with pytest.raises(InvalidInput, match="5 users"):
            make().write(users, histories_of([[1]]))
        with pytest.raises(InvalidInput, match="5 users"):
            make().read(users, CODES[None, :1])
        with pytest.raises(InvalidInput, match="5 users"):
            make().entries(users, 3)


def test_entries_at_moments_know_what_came_before_and_nothing_later(request: pytest.FixtureRequest, make: Make) -> None:
    kind, config = KINDS[request.node.callspec.params["make"]]
    histories = lives()
    indptr, kept = entries_at(kind, histories, CODES, every=32, most=16, config=config)
    np.testing.assert_array_equal(np.diff(indptr), histories.lengths // 32 + 1)
    for user, step in ((0, 0), (0, 3), (0, 12), (3, 1), (4, 4), (2, 0)):
        memory = make()
        memory.write(np.array([user]), histories.prefixes(np.array([user]), np.array([32 * step])))
        wanted, row = memory.entries(np.array([user]), 16), indptr[user] + step
        np.testing.assert_allclose(kept.weight[row], wanted.weight[0, 0], rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(kept.age[row], wanted.age[0, 0], rtol=1e-3)
        np.testing.assert_allclose(kept.vectors[row], wanted.vectors[0, 0], atol=2e-3)
