"""An index built in parts: train once on a sample, code anywhere and in any order, merge.

    trained = train(sample, kind="ivf_sq8", size=1_000_000)
    parts = [coded(trained, shard) for shard in shards]      # on any machine; `Trained` and `Part` are plain bytes
    index = merged(trained, parts)                           # equal to one made of a single part, byte for byte

A rebuild keeps what did not change:

    trained = trained_of(older)
    index = merged(trained, [codes_of(older, unchanged_rows), coded(trained, changed)])

Codes are equal bit for bit on machines whose processors have the same instructions.

| kind                                  | `coded` keeps               | `merged`         | `codes_of`                  |
|---------------------------------------|-----------------------------|------------------|-----------------------------|
| flat, fp16, ivf_flat, ivf_sq8, pq     | codes                       | joins            | copies                      |
| ivf_fastscan                          | codes, and the exact vector | joins            | codes anew, from the vector |
| hnsw                                  | the exact vector            | builds the graph | copies the vector           |
| cagra                                 | built whole, on a GPU       |                  |                             |
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from recsys.errors import InvalidInput
from recsys.index import checked_vectors, coding, kinds
from recsys.index.coding import Part
from recsys.index.faiss import FaissIndex, trained_index
from recsys.index.kinds import faiss

__all__ = ["Part", "Trained", "coded", "codes_of", "merged", "sample_size", "train", "trained_of"]


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained index that holds no vector. `template`: FAISS's file format."""

    kind: str
    dimension: int
    template: UInt8[np.ndarray, " bytes"]

    @property
    def fingerprint(self) -> str:
        """16 hex digits: equal where codes mean the same."""
        return hashlib.sha256(self.template.tobytes()).hexdigest()[:16]


def sample_size(kind: str, size: int) -> int:
    """How many vectors `train` wants to see for an index of `size`; 0: the kind learns nothing."""
    return kinds.sample_size(kinds.chosen(kind, size), size)


def train(sample: Float32[np.ndarray, "n D"], *, kind: str = "auto", size: int, effort: int | None = None) -> Trained:
    """What an index of `size` vectors learns before the first is in it.

    `sample`: vectors like those to come, `sample_size` of them or more (all are used), or none for a kind that learns
    nothing. `kind`, `effort`: as for `FaissIndex.build`. Raises InvalidInput as that does, and for too small a sample.
    """
    sample = checked_vectors("sample", sample)
    chosen = _in_parts(kinds.chosen(kind, size))
    if len(sample) < (least := min(kinds.sample_size(chosen, size), kinds.LEAST_TRAINED)):
        raise InvalidInput.of("sample", len(sample), f"{chosen} learns from {least} vectors or more")
    if effort is not None:
        kinds.checked_effort(kind, effort)
    index = trained_index(sample, chosen, size)
    kinds.set_effort(index, chosen, effort)
    return _trained(index)


def trained_of(index: FaissIndex) -> Trained:
    """What `index` learned, without its vectors; costs a copy of it for a moment."""
    _in_parts(index.kind)
    return _trained(coding.emptied(index.on_cpu))


def coded(trained: Trained, vectors: Float32[np.ndarray, "N D"]) -> Part:
    """`vectors` as the index will keep them; each by itself, so that shards can be cut anywhere.

    Raises InvalidInput for NaN, infinity or another dimension.
    """
    vectors = checked_vectors("vectors", vectors, trained.dimension)
    return coding.encode(_opened(trained), vectors)


def merged(trained: Trained, parts: Sequence[Part], *, device: str = "auto") -> FaissIndex:
    """The index of all parts; its rows count through them in their order.

    Raises InvalidInput where there is no part, or one of another index.
    """
    if not parts:
        raise InvalidInput.of("parts", parts, "must be at least one, which may be empty")
    index = _opened(trained)
    wanted = coding.encode(index, np.empty((0, trained.dimension), np.float32)).widths
    for number, part in enumerate(parts):
        if part.widths != wanted:
            raise InvalidInput.of(f"parts[{number}].widths", part.widths, f"must be {wanted}: it is of another index")
    coding.fill(index, Part.joined(parts))
    return FaissIndex.on(index, device)


def codes_of(index: FaissIndex, rows: Int[np.ndarray, " n"]) -> Part:
    """What `index` keeps of these rows, for a newer one with the same `trained_of`; exact, nothing is coded twice
    (but for ivf_fastscan). Costs a copy of the index for a moment. Raises InvalidInput for rows that it does not have.
    """
    _in_parts(index.kind)
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(index)):
        raise InvalidInput.of("rows", (int(rows.min()), int(rows.max())), f"the index has {len(index)} rows")
    return coding.stored(index.on_cpu).take(rows)


def _in_parts(kind: str) -> str:
    if kind == "cagra":
        raise InvalidInput.of("kind", kind, "is built whole: use FaissIndex.build")
    return kind


def _trained(index: Any) -> Trained:
    return Trained(kinds.kind_of(index), int(index.d), faiss.serialize_index(index))


def _opened(trained: Trained) -> Any:
    return faiss.deserialize_index(trained.template)
