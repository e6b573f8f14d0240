"""The vectors of a catalogue's texts: those that the base has read already, and the others, a shard at a time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from indexer.base import Base
from indexer.merge import texts_by_shard
from indexer.plan import Shards, file_digest
from indexer.result import Rebuilt
from indexer.shard import EncoderSource, TextsTask
from recsys.data.catalogue import Catalogue
from recsys.encode.text import TextEncoder


def encoded(
    catalogue: Catalogue,
    base: Base | None,
    source: EncoderSource,
    encoder: TextEncoder,
    shards: Shards,
    told: Rebuilt,
) -> Float32[np.ndarray, "N D"]:
    """The vector of each item's text. `base` is of the same encoder: a text that it holds is not read again."""
    texts = list(catalogue.texts)
    known = {} if base is None else {text: row for row, text in enumerate(base.catalogue.texts)}
    fresh = list(dict.fromkeys(text for text in texts if text not in known))
    told.texts_encoded, told.texts_carried = len(fresh), len(set(texts)) - len(fresh)
    tasks: list[TextsTask] = []
    places: dict[str, tuple[int, int]] = {}
    for number, part in enumerate(texts_by_shard(fresh, shards.number)):
        if len(part):
            path = shards.work.run / f"texts-{number:02d}.parquet"
            part.to_frame().write_parquet(path)
            tasks.append(
                TextsTask(
                    texts=path,
                    texts_digest=file_digest(path),
                    encoder=source,
                    fingerprint=encoder.fingerprint,
                    done=shards.work.done,
                )
            )
            places |= {text: (len(tasks) - 1, row) for row, text in enumerate(part)}
    vectors = [np.load(place / "vectors.npy", allow_pickle=False) for place in shards.map(tasks)]
    out = np.zeros((len(texts), encoder.dimension), np.float32)
    for row, text in enumerate(texts):
        if text in known and base is not None:
            out[row] = base.vectors[known[text]]
        else:
            shard, at = places[text]
            out[row] = vectors[shard][at]
    return out
