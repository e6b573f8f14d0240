"""Texts to passages of token ids: a text longer than the window becomes several that overlap, it is never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from tokenizers import Tokenizer

from recsys.errors import InvalidInput

_OVERLAP = 8  # one eighth of the window is read twice, so that no sentence is only seen torn


@dataclass(frozen=True, slots=True)
class Passages:
    """P passages of N texts: `ids` with special tokens, `owners` the text of each, `weights` its own tokens."""

    ids: list[list[int]]
    owners: Int64[np.ndarray, " P"]
    weights: Float32[np.ndarray, " P"]

    def pool(self, vectors: Float32[np.ndarray, "P D"], num_texts: int) -> Float32[np.ndarray, "N D"]:
        """One vector a text: its passages averaged by tokens, at unit length (zero if there are none)."""
        sums = np.zeros((num_texts, vectors.shape[1]), np.float32)
        np.add.at(sums, self.owners, vectors * self.weights[:, None])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        units: Float32[np.ndarray, "N D"] = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
        return units


class PassageTokenizer:
    """A tokenizer whose truncation is set once: sharing one whose truncation changes gives silently wrong ids."""

    def __init__(self, tokenizer: Tokenizer, window: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(window, stride=window // _OVERLAP)
        self._tokenizer = tokenizer
        self._num_special: int = tokenizer.num_special_tokens_to_add(False)

    @classmethod
    def load(cls, folder: Path, window: int) -> PassageTokenizer:
        """The fast tokenizer of a model folder."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput.of("name_or_path", str(folder), f"its tokenizer does not load ({error})") from error
        if not tokenizer.is_fast:
            raise InvalidInput.of("name_or_path", str(folder), "has no fast (Rust) tokenizer")
        return cls(tokenizer.backend_tokenizer, window)

    def passages(self, texts: Sequence[str]) -> Passages:
        """The passages of `texts`, in order; a text without a token has none."""
        ids, owners = [], []
        for row, encoding in enumerate(self._tokenizer.encode_batch_fast(list(texts))):
            for part in (encoding, *encoding.overflowing):
                if len(part.ids) > self._num_special:
                    ids.append(part.ids)
                    owners.append(row)
        weights = np.array([len(passage) - self._num_special for passage in ids], np.float32)
        return Passages(ids, np.array(owners, np.int64), weights)
