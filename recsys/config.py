"""The sum of the owners' configurations: defaults < TOML file < environment < flags. Unknown keys are errors.

    [server]                       RECSYS_SERVER__PORT=50052
    port = 50052                   RECSYS_SERVER__WORK__WORKERS=4
    work = { workers = 4 }

What a key means stands beside what it configures: `ServerConfig`, `StageConfig`, `SequenceConfig`, `RankerConfig`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from recsys.errors import InvalidInput, Violation, shorten
from recsys.rank import RankerConfig
from recsys.serve.config import ServerConfig
from recsys.train.settle import SequenceConfig
from recsys.train.stages import StageConfig

PREFIX = "RECSYS_"
FILE_VARIABLE = "RECSYS_CONFIG"
"""Names the TOML file where no flag does."""
DEFAULT_FILE = Path("longrec.toml")

# Greedy up to the last @: a password may hold one.
_PASSWORD = re.compile(r"^([a-z0-9+]+://[^:/@]*:).+@", re.IGNORECASE)


def vector_cache_folder() -> Path:
    """Where text vectors are kept between runs, for all data sets of this user."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "longrec" / "vectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathConfig:
    """Where things lie. `store` is a path of a SQLite file or a URL."""

    snapshots: Path = Path(".longrec/snapshots")
    store: str = ".longrec/events.sqlite"
    vectors: Path = field(default_factory=vector_cache_folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """The text encoder: `model` a folder or hub name, None for the embedded one; see `TextEncoder.load`."""

    model: str | None = None
    device: str = "auto"
    max_tokens: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, by section."""

    paths: PathConfig = field(default_factory=PathConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    stages: StageConfig = field(default_factory=StageConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    ranker: RankerConfig = field(default_factory=RankerConfig)
    server: ServerConfig = field(default_factory=ServerConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings and, by dotted key, (value, where it came from)."""

    settings: Settings
    origins: Mapping[str, tuple[Any, str]]


def load_settings(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """Settings of the file at `path` (None: `longrec.toml` here, if there is one), the environment and `flags`.

    `flags` go by dotted key; those that are None were not given. Raises InvalidInput naming each wrong or unknown key.
    """
    file = path or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    layers: list[tuple[str, Mapping[str, Any]]] = [("default", _flat(asdict(Settings())))]
    if file is not None:
        layers.append((str(file), _flat(_read_toml(file))))
    layers.append(("environment", _environment()))
    layers.append(("flag", {key: value for key, value in (flags or {}).items() if value is not None}))
    origins: dict[str, tuple[Any, str]] = {}
    for origin, values in layers:
        for key, value in values.items():
            if origin != "default" and key not in origins:
                raise InvalidInput.of(key, value, f"unknown key in {_where(origin)}")
            origins[key] = (value, origin)
    return Loaded(settings=_settings(origins), origins=origins)


def without_password(value: Any) -> Any:
    """A URL with `***` for its password; anything else as it is."""
    return _PASSWORD.sub(r"\1***@", value) if isinstance(value, str) else value


def _settings(origins: Mapping[str, tuple[Any, str]]) -> Settings:
    try:
        return TypeAdapter(Settings).validate_python(_nested({key: value for key, (value, _) in origins.items()}))
    except ValidationError as error:
        found = [(".".join(map(str, each["loc"])), each["msg"], each["input"]) for each in error.errors()]
        raise InvalidInput(
            [
                Violation(
                    key, shorten(value), f"{reason} (from {_where(origins[key][1])})" if key in origins else reason
                )
                for key, reason, value in found
            ]
        ) from error


def _where(origin: str) -> str:
    return f"the {origin}" if origin in ("environment", "flag") else origin


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput.of("config", str(path), f"cannot be read: {error}") from error


def _environment() -> dict[str, Any]:
    """Variables of the form RECSYS_SECTION__KEY. Others that begin alike belong to whoever set them: Kubernetes puts
    RECSYS_PORT and its kin into every container beside a service called recsys."""
    named = {name.removeprefix(PREFIX): value for name, value in os.environ.items() if name.startswith(PREFIX)}
    return {name.lower().replace("__", "."): value for name, value in named.items() if "__" in name}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        place = out
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return out
