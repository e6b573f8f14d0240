"""The encoder's weights on a device: token ids in, one vector a passage out.

Letters: P passages, B passages of a batch, T tokens of the longest of them, D dims.

What makes it fast on a CPU, each measured with MiniLM-L6 (`python -m benchmarks.encode`): passages sorted by length
into batches of about 1,024 tokens (larger ones leave the cache), bf16 weights where the CPU multiplies bf16 itself, and
plain attention, which for windows of up to 512 tokens beats the fused kernel by a tenth.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float, Float32, Int64

from recsys import _native  # noqa: F401
from recsys.encode.source import ModelSource, Pooling
from recsys.errors import InvalidInput

import torch  # isort: skip
from safetensors import SafetensorError  # isort: skip
from transformers import AutoModel, PreTrainedModel  # isort: skip
from transformers.utils import logging as transformers_logging  # isort: skip

_log = logging.getLogger(__name__)

_CPU_BATCH_TOKENS = 1_024
_GPU_BATCH_TOKENS = 65_536
_EAGER_WINDOW = 512  # plain attention holds T x T scores a head; beyond this the fused kernel has to do it
_LEAST_BF16_COSINE = 0.999
_PROBE_LENGTHS = (8, 16, 32, 64, 128)


class PassageModel:
    """Weights, device and type. Safe for concurrent `embed`; `forward` itself keeps no state."""

    def __init__(self, model: torch.nn.Module, source: ModelSource, *, pad_id: int, device: torch.device) -> None:
        self._model = model.eval().to(device)
        self._pooling = source.pooling
        self._dimension = source.dimension
        self._pad_id = pad_id
        self._device = device
        self._gpu_turn = threading.Lock()

    @classmethod
    def load(cls, source: ModelSource, *, device: str, dtype: str) -> PassageModel:
        """Read the weights. dtype "auto" takes bf16 where it is native and loses less than 0.001 of cosine."""
        where = _device(device)
        weights = _read_weights(source, where)
        pad_id = getattr(weights.config, "pad_token_id", None) or 0
        model = cls(weights, source, pad_id=pad_id, device=where)
        if dtype == "bfloat16" or (dtype == "auto" and _has_bf16(where)):
            half = cls(copy.deepcopy(weights).bfloat16(), source, pad_id=pad_id, device=where)
            if dtype == "bfloat16" or _agree(model, half, weights.config.vocab_size, source.window):
                return half
            _log.warning("%s loses too much in bfloat16; float32 is used", source.folder)
        return model

    @property
    def device(self) -> str:
        return self._device.type

    @property
    def dtype(self) -> str:
        return str(next(self._model.parameters()).dtype).removeprefix("torch.")

    def embed(self, passages: Sequence[Sequence[int]]) -> Float32[np.ndarray, "P D"]:
        """Unit vectors of token id lists, in order."""
        lengths = np.fromiter(map(len, passages), np.int64, len(passages))
        budget = _CPU_BATCH_TOKENS if self._device.type == "cpu" else _GPU_BATCH_TOKENS
        out = np.empty((len(passages), self._dimension), np.float32)
        for rows in token_batches(lengths, budget):
            out[rows] = self._embed_or_halve([passages[row] for row in rows])
        return out

    def _embed_or_halve(self, passages: Sequence[Sequence[int]]) -> Float32[np.ndarray, "B D"]:
        """An accelerator out of memory is not an error yet: half the batch, and at the end the CPU."""
        try:
            return self._forward(passages)
        except torch.OutOfMemoryError:
            if len(passages) == 1:
                self._move_to_cpu()
                return self._forward(passages)
        half = len(passages) // 2
        return np.concatenate([self._embed_or_halve(passages[:half]), self._embed_or_halve(passages[half:])])

    def _forward(self, passages: Sequence[Sequence[int]]) -> Float32[np.ndarray, "B D"]:
        """On a GPU one at a time: they would only queue there, and none may run while the weights move."""
        if self._device.type == "cpu":
            return self._run(passages)
        with self._gpu_turn:
            return self._run(passages)

    def _run(self, passages: Sequence[Sequence[int]]) -> Float32[np.ndarray, "B D"]:
        ids, lengths = _padded(passages, self._pad_id)
        ids, lengths = ids.to(self._device), lengths.to(self._device)
        mask = torch.arange(ids.shape[1], device=self._device) < lengths[:, None]  # [B, T]
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # [B, T, D]
            vectors = torch.nn.functional.normalize(_pool(states.float(), mask, lengths, self._pooling), dim=1)
        return vectors.cpu().numpy()

    def _move_to_cpu(self) -> None:
        with self._gpu_turn:
            if self._device.type != "cpu":
                _log.warning("%s is out of memory at one passage; encoding goes on on the CPU", self._device)
                self._model.to("cpu")
                self._device = torch.device("cpu")


def token_batches(lengths: Int64[np.ndarray, " P"], budget: int) -> Iterator[Int64[np.ndarray, " B"]]:
    """Rows sorted by length, cut where padded tokens would pass `budget`; a longer passage is a batch by itself."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop + 1 - start) * lengths[order[stop]] > budget:
            yield order[start:stop]
            start = stop


def _padded(passages: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = np.fromiter(map(len, passages), np.int64, len(passages))
    ids = np.full((len(passages), lengths.max()), pad_id, np.int64)
    for row, passage in enumerate(passages):
        ids[row, : len(passage)] = passage
    return torch.from_numpy(ids), torch.from_numpy(lengths)


def _pool(
    states: Float[torch.Tensor, "B T D"], mask: torch.Tensor, lengths: torch.Tensor, pooling: Pooling
) -> Float[torch.Tensor, "B D"]:
    match pooling:
        case "mean":
            return (states * mask[..., None]).sum(1) / lengths[:, None]
        case "cls":
            return states[:, 0]
        case "max":
            return states.masked_fill(~mask[..., None], -torch.inf).amax(1)
        case "lasttoken":
            return states[torch.arange(len(states), device=states.device), lengths - 1]


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InvalidInput.of("device", device, 'must be "auto", "cpu" or "cuda"') from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput.of("device", device, "torch sees no CUDA device")
    return found


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def _read_weights(source: ModelSource, device: torch.device) -> PreTrainedModel:
    attention = "eager" if device.type == "cpu" and source.window <= _EAGER_WINDOW else None
    try:
        with _no_progress_bar():
            weights: PreTrainedModel = AutoModel.from_pretrained(
                source.folder,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
            return weights
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidInput.of("name_or_path", str(source.folder), f"its weights do not load ({error})") from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own


def _agree(exact: PassageModel, half: PassageModel, vocabulary: int, window: int) -> bool:
    """Whether both give the same directions to passages of random tokens, which are harder than texts."""
    rng = np.random.default_rng(0)
    probes = [rng.integers(vocabulary, size=min(length, window)).tolist() for length in _PROBE_LENGTHS]
    cosines = (exact.embed(probes) * half.embed(probes)).sum(1)
    return bool((cosines >= _LEAST_BF16_COSINE).all())  # False for NaN
