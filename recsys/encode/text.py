"""Item texts to unit vectors, with any Hugging Face encoder of safetensors weights.

The default comes embedded in a package (all-MiniLM-L6-v2), so a first run needs no download from a hub.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np
from jaxtyping import Float32, Int64

from recsys.encode.cache import VectorCache
from recsys.encode.source import ModelSource
from recsys.errors import InvalidInput, RecsysError

if TYPE_CHECKING:
    from recsys.encode.model import PassageModel
    from recsys.encode.passages import PassageTokenizer

DType = Literal["auto", "float32", "bfloat16"]
Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""

MAX_TEXT_CHARS = 1_000_000
"""The longest text that is taken: at worst 4,500 passages of 256 tokens, a minute or two of one core."""

_CHUNK_TEXTS = 2_048  # sorted by length together and cached together; more would not pack better


class TextEncoder:
    """Texts in, unit vectors out; `load` builds one. Safe for concurrent `encode`.

    `fingerprint` names weights, tokenizer, pooling and window: vectors of equal fingerprints may be compared. It does
    not name the number format, for bf16 is only taken where its vectors lie within 0.001 of cosine of the fp32 ones.
    """

    def __init__(self, source: ModelSource, *, device: str, dtype: DType, cache: VectorCache | None) -> None:
        self._source = source
        self._device = device
        self._dtype: DType = dtype
        self._cache = cache
        self._loading = threading.Lock()
        self._loaded: tuple[PassageTokenizer, PassageModel] | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | None = None,
        *,
        device: str = "auto",
        dtype: DType = "auto",
        max_tokens: int = 256,
        cache: VectorCache | str | Path | None = None,
    ) -> Self:
        """Find a model by folder or hub name (None: the embedded one). The weights are read when first needed.

        `device` "auto", "cpu" or "cuda"; `max_tokens` of a passage, at most the model's own window; `cache` a folder or
        a VectorCache. Raises InvalidInput (no such model, or one this encoder cannot follow), MissingExtra.
        """
        if dtype not in get_args(DType):
            raise InvalidInput.of("dtype", dtype, f"must be one of {', '.join(get_args(DType))}")
        source = ModelSource.describe(name_or_path, max_tokens=max_tokens)
        known = VectorCache(cache) if isinstance(cache, str | Path) else cache
        return cls(source, device=device, dtype=dtype, cache=known)

    @property
    def dimension(self) -> int:
        return self._source.dimension

    @property
    def max_tokens(self) -> int:
        """Of one passage: what was asked for, or the model's own window if that is shorter."""
        return self._source.window

    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    @property
    def folder(self) -> Path:
        """Where the model's files lie."""
        return self._source.folder

    @property
    def dtype(self) -> str:
        """The number format of the weights, "float32" or "bfloat16"; reads them."""
        return self._parts()[1].dtype

    @property
    def is_loaded(self) -> bool:
        """Whether the weights have been read, which they are not while the cache knows every text."""
        return self._loaded is not None

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float32[np.ndarray, "N D"]:
        """Unit vectors of `texts`, in order; a text without a token has the zero vector: nothing is known of it.

        Equal texts are encoded once. One that is longer than the window is read as overlapping passages, whose vectors
        are averaged by tokens. Lone surrogates read as "?". Raises InvalidInput for a text that is no string or longer
        than MAX_TEXT_CHARS.
        """
        texts = _checked(texts)
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        rows = np.fromiter((places[text] for text in texts), np.int64, len(texts))
        return self._encode_distinct(list(places), np.bincount(rows, minlength=len(places)), progress)[rows]

    def save(self, folder: Path) -> None:
        """Copy the model's files into `folder`; loaded from there with equal `max_tokens`, its fingerprint is equal."""
        self._source.save(folder)

    def warm_up(self) -> None:
        """Read the weights now and run them once."""
        tokenizer, model = self._parts()
        model.embed(tokenizer.passages(["warm"]).ids)

    def _encode_distinct(
        self, texts: list[str], counts: Int64[np.ndarray, " N"], progress: Progress | None
    ) -> Float32[np.ndarray, "N D"]:
        keys = [self._key(text) for text in texts]
        out, todo = self._look_up(texts, keys)
        total = int(counts.sum())
        done = total - int(counts[todo].sum())
        report = progress or (lambda done, total: None)
        report(done, total)
        for start in range(0, len(todo), _CHUNK_TEXTS):
            chunk = todo[start : start + _CHUNK_TEXTS]
            out[chunk] = self._embed([texts[row] for row in chunk])
            if self._cache is not None:
                self._cache.put([keys[row] for row in chunk], out[chunk])
            done += int(counts[chunk].sum())
            report(done, total)
        return out

    def _look_up(self, texts: list[str], keys: list[bytes]) -> tuple[Float32[np.ndarray, "N D"], list[int]]:
        """The vectors known without the model (zero elsewhere), and the rows it has to encode."""
        known = {} if self._cache is None else self._cache.get(keys)
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, key in enumerate(keys):
            if key in known:
                out[row] = known[key]
        return out, [row for row, key in enumerate(keys) if key not in known and texts[row].strip()]

    def _embed(self, texts: list[str]) -> Float32[np.ndarray, "N D"]:
        tokenizer, model = self._parts()
        passages = tokenizer.passages(texts)
        if not passages.ids:
            return np.zeros((len(texts), self.dimension), np.float32)
        vectors = passages.pool(model.embed(passages.ids), len(texts))
        if not np.isfinite(vectors).all():
            raise RecsysError(f"the text encoder {self._source.folder} answered with NaN or infinity")
        return vectors

    def _parts(self) -> tuple[PassageTokenizer, PassageModel]:
        with self._loading:
            if self._loaded is None:
                from recsys.encode.model import PassageModel
                from recsys.encode.passages import PassageTokenizer

                self._loaded = (
                    PassageTokenizer.load(self._source.folder, self._source.window),
                    PassageModel.load(self._source, device=self._device, dtype=self._dtype),
                )
            return self._loaded

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.fingerprint}\n{self._dtype}\n{text}".encode()).digest()


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InvalidInput.of("texts", texts, "must be a sequence of strings, not one string")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput.of(f"texts[{row}]", text, "must be a string")
        if len(text) > MAX_TEXT_CHARS:
            raise InvalidInput.of(f"texts[{row}]", text, f"has {len(text)} characters, {MAX_TEXT_CHARS} at most")
    return [text if text.isascii() else text.encode("utf-8", "replace").decode() for text in texts]
