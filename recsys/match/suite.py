"""The matchers the engine runs with, in the order of their feature columns. Adding one is adding a file and a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recsys.encode.items import ItemTable
from recsys.errors import MixedSnapshot
from recsys.match import Corpus, Matcher
from recsys.match.facets import Facets
from recsys.match.interest import Interest
from recsys.match.kinship import Kinship
from recsys.match.lexical import Lexical
from recsys.match.linear import Linear
from recsys.match.neighbours import Neighbours
from recsys.match.popularity import Popularity
from recsys.match.recall import Recall
from recsys.match.repeat import Repeat
from recsys.match.text import Text
from recsys.match.transitions import Transitions

MATCHERS: tuple[type[Matcher], ...] = (
    Neighbours,
    Transitions,
    Linear,
    Text,
    Kinship,
    Lexical,
    Facets,
    Recall,
    Repeat,
    Popularity,
)

KNOWN: tuple[type[Matcher], ...] = (Interest, *MATCHERS)
"""Also the one that needs a trained history encoder."""


def fit_matchers(
    corpus: Corpus,
    kinds: Sequence[type[Matcher]] = MATCHERS,
    *,
    on_step: Callable[[str, int, int], None] | None = None,
) -> tuple[Matcher, ...]:
    """One fitted matcher of each kind; `on_step(name, done, all)` reports progress before each."""
    matchers = []
    for done, kind in enumerate(kinds):
        if on_step:
            on_step(kind.name, done, len(kinds))
        matchers.append(kind.fit(corpus))
    return tuple(matchers)


def save_matchers(matchers: Sequence[Matcher], folder: Path) -> None:
    """A folder a matcher, named after it."""
    for matcher in matchers:
        (folder / matcher.name).mkdir(parents=True)
        matcher.save(folder / matcher.name)


def load_matchers(
    folder: Path, items: ItemTable, names: Sequence[str], kinds: Sequence[type[Matcher]] = KNOWN
) -> tuple[Matcher, ...]:
    """The matchers of a verified snapshot, in the order of `names`; MixedSnapshot where one is unknown here."""
    by_name = {kind.name: kind for kind in kinds}
    if unknown := set(names) - set(by_name):
        raise MixedSnapshot(f"matchers {sorted(unknown)} are unknown to this version")
    return tuple(by_name[name].load(folder / name, items) for name in names)
