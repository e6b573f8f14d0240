"""A rebuild from beginning to end: spill, shards, merge, gate, publish. It may die anywhere: the snapshot before goes
on serving, and the next run of the same rebuild takes up the shards that were finished.

Rows of users and items stand by (hash of the id, id), so they hang on neither the sources' order nor the shards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from indexer import merge
from indexer.base import Base
from indexer.failpoints import failpoint
from indexer.gate import judge
from indexer.hashing import MAX_SHARDS
from indexer.plan import Shards, file_digest
from indexer.remembered import Written, remembered
from indexer.result import Rebuilt
from indexer.run import DISK_FULL, LocalRunner, Runner
from indexer.shard import EncoderSource, ItemsShard, ItemsTask, NamedEncoder, UsersShard, UsersTask
from indexer.source import of_dataset, of_frame, of_store, open_table
from indexer.spill import Feed, Spilled, spill_events, spill_items
from indexer.texts import encoded
from indexer.work import Work, working
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import Dataset
from recsys.data.ids import IdMap
from recsys.data.report import Problem, ValidationReport
from recsys.encode.items import ItemTable
from recsys.encode.sequence import SequenceEncoder
from recsys.errors import InvalidInput, MixedSnapshot, NotFound, RecsysError
from recsys.match.interest import Interest
from recsys.match.neighbours import Neighbours, NeighboursConfig
from recsys.model import Model, ModelSettings
from recsys.rank import Ranker
from recsys.snapshot import clear_litter, open_snapshot
from recsys.store import EventStore
from recsys.train.fit import Progress, TrainConfig, make_stages, quiet, train_ranker
from recsys.train.publish import publish
from recsys.train.sequence import fit_sequences, refit_sequence
from recsys.train.stages import repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildConfig:
    """`events`, `items`: see `indexer.source`; `events` None goes on from what the current snapshot holds. `store`: of
    the service, whose events are folded in and whose erased users stay out. `fresh` takes nothing from the current
    snapshot. `train` trains a ranker (and what `training` says) instead of keeping its one.

    `kind`: of the index of moments, see `recsys.index.kinds`. `encoder` None: the current snapshot's, or the default.
    """

    out: Path
    events: str | None = None
    items: str | None = None
    store: str | None = None
    shards: int = 8
    fresh: bool = False
    train: bool = False
    lenient: bool = False
    wait: bool = False
    least_recall: float = 0.85
    kind: str = "auto"
    work: Path | None = None
    encoder: EncoderSource | None = None
    training: TrainConfig = TrainConfig()
    neighbours: NeighboursConfig = NeighboursConfig()

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= MAX_SHARDS:
            raise InvalidInput.of("shards", self.shards, f"must be 1 to {MAX_SHARDS}")
        if not 0.0 <= self.least_recall <= 1.0:
            raise InvalidInput.of("least_recall", self.least_recall, "must be 0 to 1")
        if self.events is None and self.fresh:
            raise InvalidInput.of("events", None, "a fresh rebuild needs a table of events")


def rebuild(config: RebuildConfig, runner: Runner | None = None, progress: Progress = quiet) -> Rebuilt:
    """Builds a snapshot below `config.out` and makes it current.

    Raises InvalidInput (a source, a row: see `ValidationReport`), Conflict (another rebuild is at work), Refused (the
    model is not fit to serve), MixedSnapshot (the current snapshot is of another encoder), RecsysError (the disk is
    full). Whatever it raises, the snapshot before stays current.
    """
    with working(config.work or config.out / ".work", wait=config.wait) as work:
        clear_litter(config.out)
        store = _store_of(config.store) if config.store else None
        try:
            with store or nullcontext():
                return _Rebuild(config, work, runner or LocalRunner(), store, progress).run()
        except Exception as error:
            if not _is_disk_full(error):
                raise
            work.forget()
            raise RecsysError(
                f"the disk is full: {error}; nothing was published, the snapshot before serves on"
            ) from error


class _Rebuild:
    def __init__(
        self, config: RebuildConfig, work: Work, runner: Runner, store: EventStore | None, progress: Progress
    ) -> None:
        self.config, self.work, self.runner, self.store, self.progress = config, work, runner, store, progress
        self.base = None if config.fresh else _current(config.out)
        self.shards = Shards(work, self.runner, progress, config.shards)
        self.told = Rebuilt(base=self.base.snapshot_id if self.base else "", store_seq=self._store_seq())
        self.encoder_source = config.encoder or _encoder_of(self.base)
        self.encoder = self.encoder_source.load()
        if self.base is not None and self.base.settings.encoder_fingerprint != self.encoder.fingerprint:
            wanted = self.base.settings.encoder_fingerprint
            reason = (
                f"the current snapshot's texts were encoded by {wanted}, this encoder is {self.encoder.fingerprint}"
            )
            raise MixedSnapshot(f"{reason}: rebuild with --fresh")

    def run(self) -> Rebuilt:
        with self._step("spill"):
            events, items, met = self._spill()
        with self._step("items"):
            catalogue, item_rows, bad_items = self._items(items, met)
        with self._step("users"):
            shards, tasks = self._users(events, item_rows)
            dataset = self._dataset(catalogue, shards, events, items, bad_items)
        with self._step("texts"):
            vectors = encoded(catalogue, self.base, self.encoder_source, self.encoder, self.shards, self.told)
            table = ItemTable(catalogue, vectors)
        with self._step("train"):
            settings, ranker, sequence = self._judged_by(dataset, table)
        with self._step("moments"):
            config = self.config.neighbours
            written = Written(dataset=dataset, items=table, ignored_types=settings.ignored_types, config=config)
            neighbours, learnt = remembered(written, tasks, self.base, self.shards, self.told, kind=self.config.kind)
        with self._step("merge"):
            model = self._model(dataset, table, settings, ranker, sequence, neighbours)
        with self._step("gate"):
            self.told.figures = judge(model, self.encoder, least_recall=self.config.least_recall)
        with self._step("publish"):
            metrics = {**model.settings.metrics, **self.told.figures}
            model = replace(model, settings=replace(model.settings, metrics=metrics))
            self.told.snapshot_id = publish(model, self.config.out, beside=learnt.save)
        self.work.forget()
        self.told.built, self.told.resumed = self.shards.built, self.shards.resumed
        return self.told

    # --- sources -----------------------------------------------------------------------------------------------------

    def _store_seq(self) -> int:
        """Read before anything else of the store: who is erased after it is masked by whoever serves the snapshot."""
        if self.store is not None:
            return self.store.seq
        return self.base.settings.store_seq if self.base and self.config.events is None else 0

    def _spill(self) -> tuple[Spilled, Spilled | None, set[str]]:
        feeds, met = self._feeds()
        counted = self.told
        what = "events read"
        events = spill_events(
            feeds, self.work.run / "events", self.config.shards, on_rows=lambda rows: self.progress(what, rows, 0)
        )
        self.progress(what, events.rows_read, events.rows_read)
        counted.events_erased = events.rows_erased
        table = None
        if self.config.items is not None:
            table = open_table(self.config.items, "items")
        elif self.config.events is None and self.base is not None:
            table = of_frame(f"snapshot {self.base.snapshot_id}", self.base.catalogue.to_frame())
        items = None if table is None else spill_items(table, self.work.run / "items", self.config.shards)
        if not events.rows_kept:
            raise InvalidInput.of("events", self.config.events, "holds no good event")
        return events, items, met

    def _feeds(self) -> tuple[list[Feed], set[str]]:
        """The table and, after it, what the store holds beyond it. With `met`: ids of items that need no item table."""
        config, met = self.config, set[str]()
        if config.events is not None:
            source, after_seq = open_table(config.events, "events"), 0
        elif self.base is not None:
            source = of_dataset(f"snapshot {self.base.snapshot_id}", self.base.dataset())
            after_seq = self.base.settings.store_seq
        else:
            raise InvalidInput.of("--events", None, f"there is no snapshot in {config.out} to go on from")
        listed = config.items is not None or config.events is None
        feeds = [Feed(source, self._erased(after_seq), None if listed else met)]
        if self.store is not None and self.told.store_seq > after_seq:
            feeds.append(Feed(of_store(self.store, self.told.store_seq, after_seq), item_ids=met))
        return feeds, met

    def _erased(self, after_seq: int) -> Callable[[Iterable[str]], Collection[str]]:
        """A tombstone speaks of all that came before it, so of any table; what the store holds came after."""
        store = self.store
        if store is None or store.last_erased_seq <= after_seq:
            return lambda users: ()
        return lambda users: store.erased_among(users, after_seq=after_seq)

    # --- shards ------------------------------------------------------------------------------------------------------

    def _items(self, spilled: Spilled | None, met: set[str]) -> tuple[Catalogue, Path, list[Problem]]:
        tasks = [
            ItemsTask(spilled=path, spilled_digest=digest, done=self.work.done)
            for path, digest in (zip(spilled.files, spilled.digests, strict=True) if spilled else ())
        ]
        shards = [ItemsShard.read(place) for place in self.shards.map(tasks)]
        told = [] if self.store is None else self.store.items()
        catalogue, deleted = merge.catalogue_of(shards, told, sorted(met))
        if not len(catalogue):
            raise InvalidInput.of("items", self.config.items, "holds no good item")
        path = self.work.run / "item_rows.parquet"
        merge.item_rows(catalogue, deleted).write_parquet(path)
        return catalogue, path, [problem for shard in shards for problem in shard.problems]

    def _users(self, spilled: Spilled, item_rows: Path) -> tuple[list[UsersShard], list[UsersTask]]:
        digest = file_digest(item_rows)
        tasks = [
            UsersTask(
                spilled=path, spilled_digest=each, item_rows=item_rows, item_rows_digest=digest, done=self.work.done
            )
            for path, each in zip(spilled.files, spilled.digests, strict=True)
        ]
        shards = [UsersShard.read(place, spilled.clock) for place in self.shards.map(tasks)]
        self.told.duplicates = sum(shard.num_duplicates for shard in shards)
        self.told.events_of_deleted = sum(shard.num_of_deleted for shard in shards)
        return shards, tasks

    def _dataset(
        self,
        catalogue: Catalogue,
        shards: list[UsersShard],
        events: Spilled,
        items: Spilled | None,
        bad_items: list[Problem],
    ) -> Dataset:
        """What was read, as one value. Raises InvalidData where a row is bad, unless told to be lenient."""
        users, life = merge.histories_of(shards, events.clock)
        problems = [*bad_items, *events.problems, *(problem for shard in shards for problem in shard.problems)]
        report = ValidationReport(
            source=self.config.events or self.told.base,
            events_read=events.rows_read,
            events_kept=life.num_events,
            items_read=items.rows_read if items else 0,
            items_kept=len(catalogue),
            problems=merge.problems_of(problems),
            ignored=(*(items.ignored if items else ()), *events.ignored),
        )
        if not self.config.lenient:
            report.raise_problems()
        told = self.told
        told.report, told.num_users, told.num_items = str(report), len(users), len(catalogue)
        told.num_events = life.num_events
        return Dataset(catalogue=catalogue, users=IdMap(users, name="user_id"), histories=life, report=report)

    # --- model -------------------------------------------------------------------------------------------------------

    def _judged_by(
        self, dataset: Dataset, items: ItemTable
    ) -> tuple[ModelSettings, Ranker | None, SequenceEncoder | None]:
        """Settings, ranker and history encoder: trained anew, those of the base, or none."""
        made = ModelSettings(
            encoder=getattr(self.encoder_source, "name", None),
            encoder_fingerprint=self.encoder.fingerprint,
            encoder_max_tokens=getattr(self.encoder_source, "max_tokens", 256),
            include_seen=False,
            ignored_types=self.config.training.ignored_types,
            store_seq=self.told.store_seq,
            data_fingerprint=dataset.fingerprint,
        )
        if self.config.train:
            return self._trained(dataset, items, made)
        if self.base is not None:
            kept = self.base.settings
            rows = self.base.catalogue.ids.rows(list(dataset.catalogue.ids.ids), unknown=-1)
            settings = replace(kept, store_seq=made.store_seq, data_fingerprint=made.data_fingerprint)
            return settings, self.base.ranker(), self.base.sequence(rows)
        repeated = dataset.histories.clock == "timestamp" and repeats(
            dataset.histories.without_types(made.ignored_types)
        )
        return replace(made, include_seen=repeated), None, None

    def _trained(
        self, dataset: Dataset, items: ItemTable, made: ModelSettings
    ) -> tuple[ModelSettings, Ranker | None, SequenceEncoder | None]:
        config = self.config.training
        stages = make_stages(dataset.histories, items, config)
        sequences = fit_sequences(stages, items, config.sequence, self.progress, seed=config.stages.seed)
        ranker, _ = train_ranker(stages, items, config, self.progress, sequences)
        sequence = sequences.test
        if sequence is not None:
            told = dataset.histories.without_types(config.ignored_types)
            sequence = refit_sequence(sequence, told, items, config.sequence, progress=self.progress)
        return replace(made, include_seen=stages.include_seen), ranker, sequence

    def _model(
        self,
        dataset: Dataset,
        items: ItemTable,
        settings: ModelSettings,
        ranker: Ranker | None,
        sequence: SequenceEncoder | None,
        neighbours: Neighbours,
    ) -> Model:
        names = [*([Interest.name] if sequence else []), *(each.name for each in self.config.training.matchers)]
        if self.base is not None and not self.config.train:
            names = list(self.base.matchers)
        told = dataset.histories.without_types(settings.ignored_types)
        flow = merge.flow_of(told, items, names, neighbours=neighbours, sequence=sequence, progress=self.progress)
        if (
            ranker is not None
            and self.base is not None
            and not self.config.train
            and flow.features != self.base.features
        ):
            raise MixedSnapshot(
                "the ranker of the current snapshot reads other features than there are now: say --train"
            )
        self.told.has_ranker = ranker is not None
        return Model(
            settings=settings,
            items=items,
            users=dataset.users,
            histories=dataset.histories,
            flow=flow,
            ranker=ranker,
        )

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        failpoint(f"before-{name}")
        start_s = time.perf_counter()
        yield
        self.told.seconds[name] = time.perf_counter() - start_s
        failpoint(f"after-{name}")


def _store_of(url: str) -> EventStore:
    """Opened, and not made: a store that is not there has forgotten who was erased."""
    path = Path(url.removeprefix("sqlite:///"))
    if ":/" not in str(path) and not path.is_file():
        raise InvalidInput.of("--store", url, "no such file")
    return EventStore.open(url)


def _current(out: Path) -> Base | None:
    try:
        return Base(open_snapshot(out))
    except NotFound:
        return None


def _encoder_of(base: Base | None) -> EncoderSource:
    if base is None:
        return NamedEncoder()
    return NamedEncoder(name=base.settings.encoder, max_tokens=base.settings.encoder_max_tokens)


def _is_disk_full(error: BaseException) -> bool:
    """Libraries hide what the system said: numpy in a text, FAISS and polars in errors of their own."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    text = str(error)
    said = (os.strerror(number) in text for number in DISK_FULL)
    return any(said) or ("requested and" in text and "written" in text)
