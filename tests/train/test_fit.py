"""What each fitted flow remembers, and the model that is served."""

from __future__ import annotations

import numpy as np

from recsys.match.neighbours import Neighbours
from recsys.match.popularity import Popularity
from recsys.match.suite import MATCHERS
from recsys.train.fit import fit_flow, make_stages, stage_flow, train_ranker
from tests.world import DAY_S, chains, histories_of, item_of, model_of, quick, shop, table_of


def test_popularity_alone_counts_what_passes_by() -> None:
    """Everyone moves from item 0 to item 1 on day 5; the memory ends on day 3."""
    items = table_of([item_of(0), item_of(1)])
    passing = histories_of([[0, 0, 1]] * 3, [[0.0, DAY_S, 5 * DAY_S]] * 3, clock="timestamp")
    flow = fit_flow(passing.before(3 * DAY_S), items, passing=passing)
    assert tuple(matcher.name for matcher in flow.matchers) == tuple(kind.name for kind in MATCHERS)
    for matcher in flow.matchers:
        if isinstance(matcher, Popularity):
            assert np.asarray(matcher.counts.sum(axis=0)).ravel().tolist() == [6, 3]
        if isinstance(matcher, Neighbours):
            assert matcher.histories.items.tolist() == [0] * 6


def test_a_stages_flow_remembers_its_memory() -> None:
    dataset, config = shop(40, 30), quick()
    items = table_of(dataset.catalogue.items)
    stage = make_stages(dataset.histories, items, config).test
    flow = stage_flow(stage, items, config)
    [neighbours] = [matcher for matcher in flow.matchers if isinstance(matcher, Neighbours)]
    [popularity] = [matcher for matcher in flow.matchers if isinstance(matcher, Popularity)]
    assert neighbours.histories.num_events == stage.memory.num_events
    assert popularity.counts.sum() == stage.passing.num_events > stage.memory.num_events


def test_the_served_model_remembers_everything() -> None:
    dataset = chains(40, 30)
    model = model_of(dataset, with_ranker=False)
    [neighbours] = [matcher for matcher in model.flow.matchers if isinstance(matcher, Neighbours)]
    assert neighbours.histories.num_events == model.histories.num_events == dataset.histories.num_events


def test_a_ranker_is_of_the_features_of_its_flow() -> None:
    dataset, config = chains(60, 30), quick()
    items = table_of(dataset.catalogue.items)
    ranker, flow = train_ranker(make_stages(dataset.histories, items, config), items, config)
    assert ranker.features == flow.features == tuple(ranker.booster.feature_name())
