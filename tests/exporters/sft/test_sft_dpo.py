"""DPO: pairs are read and rendered as SFT renders them, corrections become likelier, bad input is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dialogue import Checkpoint, Dialogue, FileError, Registry, SettingsError, Turn
from dialogue.checkpoints import check_safe
from dialogue.rendering import render_dialogue, to_messages
from exporters.sft import TrainSettings, train
from exporters.sft.dpo import Preference, preference_ids, read_preferences, split, train_dpo

FAST = TrainSettings(epochs=2, evaluations=2, learning_rate=3e-3, dpo_epochs=5, dpo_learning_rate=2e-3)


def pairs(dialogues: list[Dialogue]) -> list[Preference]:
    """The correction is what the person wrote, the draft a dull reply."""
    return [
        Preference(d.id, d.context, d.conversation[:n], d.attribute, turn.text, "そうですね。はい、そうですね。")
        for d in dialogues
        for n, turn in enumerate(d.conversation)
        if turn.speaker == "Aku"
    ]


def row(pair: Preference) -> dict[str, object]:
    return {
        "prompt": to_messages(pair.context, pair.turns, pair.attribute),
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "id": pair.dialogue,
    }


@pytest.fixture(scope="module")
def parent(nano: Path, version: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("parent")
    return train(nano, version, Registry(folder / "checkpoints"), FAST, work=folder / "runs")


def test_the_exporters_rows_are_read_back(tmp_path: Path, some: list[Dialogue]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row(pair), ensure_ascii=False) + "\n" for pair in pairs(some[:2])))
    assert read_preferences(path) == pairs(some[:2])


@pytest.mark.parametrize("broken", [{"id": "x"}, {"id": "x", "prompt": [{"role": "robot", "content": ""}]}])
def test_a_row_that_is_no_pair_is_named(tmp_path: Path, broken: dict[str, object]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(broken) + "\n")
    with pytest.raises(FileError, match=r"pairs\.jsonl, line 1: no preference pair"):
        read_preferences(path)


def test_prompt_and_correction_are_the_ids_that_sft_trains_on(nano: Path, some: list[Dialogue]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(nano)
    for pair in pairs(some[:3]):
        ids = preference_ids(pair, tokenizer, "tags")
        dialogue = next(d for d in some if d.id == pair.dialogue)
        turns = (*pair.turns, Turn("Aku", pair.chosen))
        whole = render_dialogue(dataclasses.replace(dialogue, conversation=turns), tokenizer, "tags").ids
        assert whole[: len(ids.prompt) + len(ids.chosen)] == [*ids.prompt, *ids.chosen]
        assert ids.chosen[-1] == ids.rejected[-1] == tokenizer.eos_token_id


def test_pairs_are_held_out_by_dialogue(some: list[Dialogue]) -> None:
    train_pairs, held_out = split(pairs(some), 0)
    assert len(train_pairs) + len(held_out) == len(pairs(some))
    assert not {p.dialogue for p in train_pairs} & {p.dialogue for p in held_out}
    with pytest.raises(SettingsError, match="at least two"):
        split(pairs(some[:1]), 0)


def test_corrections_become_likelier_than_drafts(
    parent: Checkpoint, version: Path, tmp_path: Path, some: list[Dialogue]
) -> None:
    registry = Registry(tmp_path / "checkpoints")
    result = train_dpo(parent, pairs(some[:6]), version, registry, FAST, work=tmp_path / "runs")
    check_safe(result.path)
    card = result.card
    assert (card["parent"], card["order"], card["format"]) == (parent.id, "dpo", "tags")
    assert card["base"] == parent.card["base"]
    losses = [line["loss"] for line in card["metrics"]["train_loss"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # ln 2: model and reference are the same
    assert losses[-1] < 0.5
    share = card["metrics"]["preferred"]
    assert share["after"] >= share["before"]
    assert share["after"] > 0.9
    assert "DPO on" in (result.path / "README.md").read_text()


def test_an_adapter_is_merged_first(nano: Path, version: Path, tmp_path: Path, some: list[Dialogue]) -> None:
    registry = Registry(tmp_path / "checkpoints")
    lora = dataclasses.replace(FAST, method="lora", format="tokens", dpo_epochs=1)
    adapter = train(nano, version, registry, lora, work=tmp_path / "runs")
    result = train_dpo(adapter, pairs(some[:4]), version, registry, lora, work=tmp_path / "runs")
    assert not result.is_adapter
    assert result.card["metrics"]["held_out_loss"]["before"] == pytest.approx(
        adapter.card["metrics"]["held_out_loss"]["after"], abs=1e-4
    )
