"""Base directories: what is refused with a sentence, what is added, where new embeddings start."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dialogue import CheckpointError, Dialogue
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING
from exporters.sft.base import base_hash, check_base, load_base
from exporters.sft.settings import TrainSettings
from tests.exporters.sft.conftest import save_nano

DEFAULTS = TrainSettings()


@pytest.fixture
def copy(nano: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(nano, tmp_path / "copy"))


def refused(folder: Path, words: str, **settings: object) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        load_base(folder, TrainSettings(**settings))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_base_says_what_it_is(nano: Path) -> None:
    base = load_base(nano, DEFAULTS)
    assert (base.format, base.new_tokens, base.context, base.demo) == ("tags", (), 1024, False)
    assert base.model.dtype == torch.float32


def test_no_directory(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no such directory")


def test_a_directory_without_config(tmp_path: Path) -> None:
    refused(tmp_path, "holds no config.json")


def test_a_config_that_is_no_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        check_base(copy)


def test_pickled_weights_only(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, "holds no .*safetensors weights")


def test_trainer_states_beside_safe_weights_are_ignored(copy: Path) -> None:
    # Checkpoint folders of the Hugging Face trainer hold pickles that nobody needs to open.
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth"):
        (copy / name).write_bytes(b"not to be opened")
    assert load_base(copy, DEFAULTS).format == "tags"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code(copy: Path, name: str) -> None:
    config = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    refused(copy, "remote code")


def test_a_model_of_another_kind_is_no_causal_lm(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "t5"}')
    refused(copy, "a t5 model can not write text")


def test_an_unknown_architecture(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "mistrial"}))
    refused(copy, "can not be loaded")


def test_cut_off_weights(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(copy, "can not be loaded")


def test_weights_of_another_shape(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    refused(copy, "can not be loaded")


def test_weights_that_lack_layers(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    refused(copy, "lack")


def test_a_tokenizer_of_another_model(copy: Path, some: list[Dialogue]) -> None:
    save_nano(copy, some, vocab_size=300)
    refused(copy, "do not belong together")


def test_no_tokenizer_at_all(copy: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    refused(copy, "can not be loaded")


def test_no_end_token(copy: Path) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    refused(copy, "no eos token")


def test_tags_that_the_tokenizer_does_not_know(tmp_path: Path, some: list[Dialogue]) -> None:
    save_nano(tmp_path, some, tags=False)
    assert load_base(tmp_path, DEFAULTS).format == "steerlm"
    refused(tmp_path, "does not know <CONTEXT>", format="tags")


@pytest.mark.parametrize("tied", [True, False])
def test_new_level_tokens_start_as_the_mean_of_their_meaning(tmp_path: Path, some: list[Dialogue], tied: bool) -> None:
    save_nano(tmp_path, some, tie_word_embeddings=tied)
    before = AutoModelForCausalLM.from_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    base = load_base(tmp_path, TrainSettings(format="tokens"))
    assert len(base.new_tokens) == 13
    meanings = {f"<|closeness_{i}|>": words for i, words in enumerate(CLOSENESS_MEANING)}
    meanings |= {f"<|mood_{i}|>": words for i, words in enumerate(MOOD_MEANING)}
    for side in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, side)().weight, getattr(base.model, side)().weight
        assert torch.equal(new[: len(plain)], old[: len(plain)])
        for token, words in meanings.items():
            row = new[base.tokenizer.convert_tokens_to_ids(token)]
            assert torch.allclose(row, old[plain(words)["input_ids"]].mean(dim=0))


def test_the_hash_follows_weights_and_tokenizer_only(nano: Path, copy: Path) -> None:
    first = base_hash(copy)
    assert first == base_hash(nano)
    (copy / "training_args.bin").write_bytes(b"x")
    assert base_hash(copy) == first
    (copy / "generation_config.json").write_text("{}")
    assert base_hash(copy) != first
