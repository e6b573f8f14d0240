"""Bring a snapshot's model up to date: its history encoder learns new events with replay of old ones, its memories hold
them, its ranker stays, for the moments that it could be trained on anew have been seen by the encoder.

Items and users that are known keep their rows; new ones come after them. Letters: U users, E events.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from recsys.data.dataset import Dataset
from recsys.data.histories import Histories, histories_from_events
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput
from recsys.match.interest import Interest
from recsys.match.suite import KNOWN
from recsys.model import Model
from recsys.train.encoder import EncoderTraining
from recsys.train.fit import Progress, fit_flow, quiet
from recsys.train.forgetting import CONTINUED, continue_training, joined


def train_further(
    model: Model,
    dataset: Dataset,
    encoder: TextEncoder,
    *,
    training: EncoderTraining = CONTINUED,
    replay: float = 0.3,
    progress: Progress = quiet,
) -> tuple[Model, dict[str, float]]:
    """The model that also knows the events of `dataset`, and NDCG@10 of its encoder alone on each user's last old and
    last new event, before and after: {"old_before", "old_after", "new_before", "new_after"}.

    Each user's last new event is held out to measure by and is not learnt by the encoder (memories hold it). An encoder
    that was refitted before it was published has seen the old ones, so their "before" flatters it. Events that the
    model holds already (same user, item and time) are left out. Raises InvalidInput where the model has no history
    encoder, where nothing is new, or where the clocks differ.
    """
    interest = next((each for each in model.flow.matchers if isinstance(each, Interest)), None)
    if interest is None:
        raise InvalidInput.of("--from", "a snapshot", "has no history encoder; one is made with `recsys train --full`")
    items = _items(model, dataset, encoder, progress)
    users = model.users.extended(dataset.users)
    new = _new_events(model, dataset, items, len(users))
    told, fresh = (each.without_types(model.settings.ignored_types) for each in (model.histories, new))
    old, fresh = _of_same_types(told, fresh)
    sequence, report = _continued(interest.sequence, old, fresh, items, training, replay, progress)
    kept, added = _of_same_types(model.histories, new)
    names = [matcher.name for matcher in model.flow.matchers if matcher.name != Interest.name]
    kinds = [kind for name in names for kind in KNOWN if kind.name == name]
    flow = fit_flow(joined(old, fresh), items, kinds=kinds, sequence=sequence, progress=progress)
    # The old figures were of another encoder: only those of this training are carried.
    settings = replace(model.settings, data_fingerprint=dataset.fingerprint, metrics=report)
    life = joined(kept, added)
    return Model(settings=settings, items=items, users=users, histories=life, flow=flow, ranker=model.ranker), report


def _continued(
    sequence: SequenceEncoder,
    old: Histories,
    new: Histories,
    items: ItemTable,
    training: EncoderTraining,
    replay: float,
    progress: Progress,
) -> tuple[SequenceEncoder, dict[str, float]]:
    """Every member taught further; figures are the members' mean."""
    texts = torch.from_numpy(sequence.codes.of(items.base))
    members, reports = [], []
    for number, member in enumerate(sequence.members):
        progress("history encoder: further", number, len(sequence.members))
        taught, report = continue_training(member, old, new, texts, replace(training, seed=number), replay)
        members.append(taught)
        reports.append(report)
    progress("history encoder: further", len(members), len(members))
    mean = {name: float(np.mean([report[name] for report in reports])) for name in reports[0]}
    return SequenceEncoder(tuple(members), sequence.codes), mean


def _items(model: Model, dataset: Dataset, encoder: TextEncoder, progress: Progress) -> ItemTable:
    """The model's items and the new ones after them, with the vectors of their texts."""
    known = model.items.catalogue
    fresh = [item for item in dataset.catalogue.items if item.item_id not in known.ids]
    if not fresh:
        return model.items
    report = lambda done, total: progress("item texts", done, total)  # noqa: E731
    vectors = encoder.encode([item.text for item in fresh], progress=report)
    return ItemTable(known.extended(fresh), np.concatenate([model.items.base, vectors]))


def _new_events(model: Model, dataset: Dataset, items: ItemTable, num_users: int) -> Histories:
    """The events of `dataset` that the model does not hold, in the model's rows."""
    past, told = model.histories, dataset.histories
    if past.clock != told.clock:
        raise InvalidInput.of("clock", told.clock, f"the snapshot's events have {past.clock}")
    users = model.users.extended(dataset.users).rows(list(dataset.users))[told.users]
    rows = items.catalogue.ids.rows(list(dataset.catalogue.ids))[told.items]
    held = set(zip(past.users.tolist(), past.items.tolist(), past.times.tolist(), strict=True))
    cells = zip(users.tolist(), rows.tolist(), told.times.tolist(), strict=True)
    fresh = np.fromiter((cell not in held for cell in cells), bool, count=told.num_events)
    if not fresh.any():
        raise InvalidInput.of("events", told.num_events, "the snapshot holds all of them already")
    return histories_from_events(
        users[fresh].astype(np.int32),
        rows[fresh].astype(np.int32),
        told.times[fresh],
        num_users=num_users,
        event_types=told.event_types,
        clock=told.clock,
        types=told.types[fresh],
        values=told.values[fresh],
        baskets=told.baskets[fresh],
    )


def _of_same_types(old: Histories, new: Histories) -> tuple[Histories, Histories]:
    """Both with the types of both, the old ones' codes unchanged."""
    types = tuple(dict.fromkeys([*old.event_types, *new.event_types]))
    place = np.array([types.index(name) for name in new.event_types], np.int16)
    return replace(old, event_types=types), replace(new, event_types=types, types=place[new.types])
