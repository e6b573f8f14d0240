"""Snapshots made by somebody who means harm, with manifests that fit: every one is refused and none of it runs."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from recsys.encode.text import TextEncoder
from recsys.errors import InvalidInput, RecsysError, SnapshotError
from recsys.model import Model
from recsys.snapshot import MANIFEST_NAME, SnapshotMeta, SnapshotWriter, open_snapshot
from tests.reliability.small import shelf_of


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.sign),)


Harm = Callable[[Path, Path], None]


def pickled(name: str) -> Harm:
    """The whole file is a pickle."""

    def harm(folder: Path, sign: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(Bomb(sign)))

    return harm


def pickled_array(name: str) -> Harm:
    """A .npy of objects, which numpy would unpickle if it were let."""

    def harm(folder: Path, sign: Path) -> None:
        np.save(folder / name, np.array([Bomb(sign)], object), allow_pickle=True)

    return harm


def pickled_member(pattern: str) -> Harm:
    """One array of an archive is of objects."""

    def harm(folder: Path, sign: Path) -> None:
        path = next(folder.rglob(pattern))
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        arrays[next(iter(arrays))] = np.array([Bomb(sign)], object)
        with path.open("wb") as file:
            np.savez(file, allow_pickle=True, **arrays)

    return harm


def settings(**changes: object) -> Harm:
    def harm(folder: Path, sign: Path) -> None:
        path = folder / "model.json"
        held = json.loads(path.read_text())
        for name, value in changes.items():
            (held if name in held else held["settings"])[name] = value
        path.write_text(json.dumps(held))

    return harm


def climbing_archive(folder: Path, sign: Path) -> None:
    """A zip whose member is named to land elsewhere."""
    with zipfile.ZipFile(folder / "histories.npz", "a") as archive:
        archive.writestr(f"../../../{sign.name}/x.npy", b"x")


HARMS: dict[str, Harm] = {
    **{f"pickle as {name}": pickled(name) for name in ("vectors.npy", "histories.npz", "ranker.txt", "model.json")},
    "pickle as users.parquet": pickled("users.parquet"),
    "pickle as catalogue.parquet": pickled("catalogue.parquet"),
    "objects in vectors.npy": pickled_array("vectors.npy"),
    "objects in histories.npz": pickled_member("histories.npz"),
    "a matcher out of the folder": settings(matchers=["../../../etc"]),
    "a matcher that is a module": settings(matchers=["os.system"]),
    "a setting that nobody knows": settings(trust_remote_code=True),
    "features that climb": settings(features=["../../etc/passwd"]),
    "a member that climbs": climbing_archive,
}


def publish(model: Model, root: Path, harm: Harm, sign: Path) -> str:
    """As `train.publish` does, with a harm before the manifest is made: all checksums fit."""
    with SnapshotWriter(root) as writer:
        model.save(writer.path)
        harm(writer.path, sign)
        meta = SnapshotMeta(fingerprints={"encoder": model.settings.encoder_fingerprint}, features=model.flow.features)
        return writer.commit(meta)


@pytest.mark.parametrize("name", HARMS)
def test_poison_is_refused_and_does_not_run(model: Model, tmp_path: Path, name: str) -> None:
    sign = tmp_path / "sign"
    snapshot_id = publish(model, tmp_path / "snapshots", HARMS[name], sign)
    with pytest.raises(SnapshotError):
        shelf_of(tmp_path / "snapshots").open(snapshot_id)
    assert not sign.exists()


def test_every_array_of_every_matcher_is_read_without_pickle(model: Model, tmp_path: Path) -> None:
    """Each .npy and .npz that a model saves, poisoned in turn."""
    plain = tmp_path / "plain"
    plain.mkdir()
    model.save(plain)
    names = [path.relative_to(plain) for path in plain.rglob("*.np[yz]")]
    assert len(names) > 4
    for number, name in enumerate(names):
        sign, root = tmp_path / f"sign-{number}", tmp_path / f"snapshots-{number}"
        harm = pickled_array(str(name)) if name.suffix == ".npy" else pickled_member(name.name)
        snapshot_id = publish(model, root, harm, sign)
        with pytest.raises(SnapshotError):
            shelf_of(root).open(snapshot_id)
        assert not sign.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a//b", ".", "C:\\x"])
def test_a_manifest_names_no_path_outside(model: Model, tmp_path: Path, name: str) -> None:
    snapshot_id = publish(model, tmp_path, lambda folder, sign: None, tmp_path / "sign")
    file = tmp_path / "snapshots" / snapshot_id / MANIFEST_NAME
    held = json.loads(file.read_text())
    files = held["files"]
    files[name] = files.pop("vectors.npy")
    file.write_text(json.dumps(held))
    with pytest.raises(SnapshotError):
        open_snapshot(tmp_path, snapshot_id)


def test_an_encoder_brings_no_code(tmp_path: Path) -> None:
    """A folder that says `auto_map`, with a module that would leave a sign, and weights that are pickles."""
    folder, sign = tmp_path / "encoder", tmp_path / "sign"
    folder.mkdir()
    module = f"import os\nos.mkdir({str(sign)!r})\nclass Evil: ...\n"
    (folder / "modeling_evil.py").write_text(module)
    (folder / "tokenization_evil.py").write_text(module)
    config = {
        "model_type": "evil",
        "hidden_size": 8,
        "max_position_embeddings": 64,
        "auto_map": {"AutoConfig": "modeling_evil.Evil", "AutoModel": "modeling_evil.Evil"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(sign)))
    with pytest.raises(RecsysError):
        TextEncoder.load(str(folder)).encode(["a text"])
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(sign)))
    with pytest.raises(RecsysError):
        TextEncoder.load(str(folder)).encode(["a text"])
    assert not sign.exists()


@pytest.mark.parametrize("bad", ["../../etc", "/etc/passwd", "..", "s\0", "a/b"])
def test_callers_name_no_paths(model: Model, tmp_path: Path, bad: str) -> None:
    publish(model, tmp_path, lambda folder, sign: None, tmp_path / "sign")
    with pytest.raises(InvalidInput):
        shelf_of(tmp_path).open(bad)


def test_the_same_without_harm_is_taken(model: Model, tmp_path: Path) -> None:
    """So that what is refused above is refused for its harm."""
    snapshot_id = publish(model, tmp_path, lambda folder, sign: None, tmp_path / "sign")
    assert asdict(shelf_of(tmp_path).open(snapshot_id).model.settings) == asdict(model.settings)
