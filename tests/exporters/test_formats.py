"""Each format says what the canonical records say, and the programs it is meant for read it."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.export_dialogues import dialogues
from dialogue import Attribute, Dialogue, SettingsError, Source, Turn, load_taxonomy, read_dialogues
from dialogue.rendering import template
from exporters import ExportSettings
from exporters.export import build_version
from exporters.formats import FORMATS, write_format
from exporters.formats.parquet import schema
from exporters.formats.spreadsheet import safe
from exporters.provenance import Draft
from exporters.splits import SPLITS
from exporters.spool import spool
from exporters.versions import DatasetVersion


@pytest.fixture
def version(tmp_path: Path) -> DatasetVersion:
    """A version of 40 awkward dialogues whose Aku turns were drafted, every third one changed a lot."""
    settings = ExportSettings()
    with spool(tmp_path) as records:
        for number, dialogue in enumerate(dialogues(40, awkward=True)):
            drafts = [
                Draft(i, turn.text if (number + i) % 3 else f"まったく違う下書き{i}", "0123456789ab")
                for i, turn in enumerate(dialogue.conversation)
            ]
            source = dataclasses.replace(dialogue.source, annotator=f"annotator-{number % 3}")
            assert records.add(dataclasses.replace(dialogue, source=source), drafts)
        return build_version(records, tmp_path / "datasets", settings, load_taxonomy())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_every_format_is_deterministic_and_complete(version: DatasetVersion, tmp_path: Path) -> None:
    for name in FORMATS:
        one = write_format(version, name, tmp_path / "one" / name)
        two = write_format(version, name, tmp_path / "two" / name)
        assert one == two
        assert set(one) == set(SPLITS)
        files = sorted(p.name for p in (tmp_path / "one" / name).iterdir())
        assert len(files) == 3
        for file in files:
            assert (tmp_path / "one" / name / file).read_bytes() == (tmp_path / "two" / name / file).read_bytes()
    with pytest.raises(SettingsError, match="memo"):
        write_format(version, "xml", tmp_path)


def test_memo_has_the_memos_three_keys(version: DatasetVersion, tmp_path: Path) -> None:
    write_format(version, "memo", tmp_path)
    for split in SPLITS:
        for row, dialogue in zip(rows(tmp_path / f"{split}.jsonl"), read_dialogues(version.file(split)), strict=True):
            assert list(row) == ["context", "conversation", "attribute"]
            whole = dialogue.to_dict()
            assert row == {key: whole[key] for key in row}


def test_messages_hold_scene_attribute_and_turns(version: DatasetVersion, tmp_path: Path) -> None:
    write_format(version, "messages", tmp_path)
    for row, dialogue in zip(rows(tmp_path / "train.jsonl"), read_dialogues(version.file("train")), strict=True):
        system, attribute, *turns = row["messages"]
        assert system == {"role": "system", "content": dialogue.context}
        levels = dialogue.attribute
        assert attribute == {"role": "attribute", "content": f"closeness:{levels.closeness},mood:{levels.mood}"}
        spoken = [{"user": "User", "assistant": "Aku"}[turn["role"]] for turn in turns]
        assert tuple(map(Turn, spoken, [turn["content"] for turn in turns])) == dialogue.conversation


def test_messages_train_aku_and_nobody_else(version: DatasetVersion, tmp_path: Path) -> None:
    """TRL masks by the template's generation block: the trained text must be Aku's turns with their end."""
    from datasets import load_dataset
    from transformers.utils.chat_template_utils import render_jinja_template

    write_format(version, "messages", tmp_path / "m")
    data = load_dataset("json", data_dir=str(tmp_path / "m"), cache_dir=str(tmp_path / "cache"))
    assert set(data) == set(SPLITS)
    for messages in data["train"]["messages"][:5]:
        texts, spans = render_jinja_template(
            conversations=[messages],
            chat_template=template("steerlm"),
            return_assistant_tokens_mask=True,
            eos_token="</s>",
        )
        trained = [texts[0][start:end] for start, end in spans[0]]
        assert trained == [m["content"] + "</s>" for m in messages if m["role"] == "assistant"]


def test_steerlm_text(tmp_path: Path) -> None:
    dialogue = Dialogue(
        "a", "駅で", (Turn("User", "やあ"), Turn("Aku", "ん")), Attribute(4, 0), (), Source(kind="manual")
    )
    with spool(tmp_path) as records:
        records.add(dialogue)
        version = build_version(records, tmp_path / "datasets", ExportSettings(), load_taxonomy())
    write_format(version, "steerlm", tmp_path / "s")
    assert rows(tmp_path / "s" / "train.jsonl") == [
        {"id": "a", "text": "Context\n駅で\n\nUser\nやあ\n\nAku\ncloseness:4,mood:0\nん</s>\n\n"}
    ]


def test_preferences_pair_the_correction_with_its_draft(version: DatasetVersion, tmp_path: Path) -> None:
    counts = write_format(version, "preferences", tmp_path)
    assert sum(counts.values()) > 30
    by_id = {d.id: d for split in SPLITS for d in read_dialogues(version.file(split))}
    expected = 0
    for number, dialogue in enumerate(sorted(by_id.values(), key=lambda d: d.id)):
        expected += sum(t.speaker == "Aku" and (number + i) % 3 == 0 for i, t in enumerate(dialogue.conversation))
    assert sum(counts.values()) == expected
    for split in SPLITS:
        inside = {d.id for d in read_dialogues(version.file(split))}
        for row in rows(tmp_path / f"{split}.jsonl"):
            dialogue = by_id[row["id"]]
            assert row["id"] in inside
            assert row["chosen"] == [{"role": "assistant", "content": dialogue.conversation[row["turn"]].text}]
            assert row["rejected"] == [{"role": "assistant", "content": f"まったく違う下書き{row['turn']}"}]
            assert row["prompt"][-1]["role"] in ("user", "attribute")
            assert len(row["prompt"]) == 2 + row["turn"]
            assert row["edit_distance"] >= 0.2
            assert (row["checkpoint"], row["annotator"]) == ("0123456789ab", dialogue.source.annotator)


def test_the_preference_distance_is_a_bound(version: DatasetVersion, tmp_path: Path) -> None:
    all_pairs = write_format(version, "preferences", tmp_path / "a", preference_distance=0.0)
    assert sum(write_format(version, "preferences", tmp_path / "b", preference_distance=0.2).values()) < sum(
        all_pairs.values()
    )
    assert sum(write_format(version, "preferences", tmp_path / "c", preference_distance=1.0).values()) <= sum(
        all_pairs.values()
    )


def test_dpo_trainer_reads_the_pairs(version: DatasetVersion, tmp_path: Path) -> None:
    """One real step of TRL's DPOTrainer with a tiny model made here."""
    import torch
    from datasets import load_dataset
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    write_format(version, "preferences", tmp_path / "p")
    pairs = load_dataset("json", data_dir=str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))["train"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["あ"], trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = template("steerlm")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    arguments = DPOConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, use_cpu=True, bf16=False,
        max_length=2048, report_to=[], logging_steps=1, activation_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        str(tmp_path / "model"), args=arguments, train_dataset=pairs.select(range(4)), processing_class=tokenizer
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx([0.693], abs=0.02)  # log 2: policy and reference are still the same


def test_parquet_holds_the_records(version: DatasetVersion, tmp_path: Path) -> None:
    from pyarrow import parquet

    write_format(version, "parquet", tmp_path)
    for split in SPLITS:
        table = parquet.read_table(tmp_path / f"{split}.parquet")
        assert table.schema.equals(schema())
        assert [Dialogue.from_dict(row) for row in table.to_pylist()] == read_dialogues(version.file(split))


def test_csv_is_a_script_for_a_spreadsheet(version: DatasetVersion, tmp_path: Path) -> None:
    write_format(version, "csv", tmp_path)
    raw = (tmp_path / "train.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    with (tmp_path / "train.csv").open(encoding="utf-8-sig", newline="") as handle:
        found = list(csv.DictReader(handle))
    given = [(d, n, t) for d in read_dialogues(version.file("train")) for n, t in enumerate(d.conversation, 1)]
    assert len(found) == len(given)
    for row, (dialogue, number, turn) in zip(found, given, strict=True):
        assert (row["id"], int(row["turn"]), row["speaker"]) == (dialogue.id, number, turn.speaker)
        assert row["text"].removeprefix("'") == turn.text
        assert not row["text"].lstrip().startswith(("=", "+", "-", "@"))
    assert any(row["text"].startswith("'=SUM") for row in found)


@pytest.mark.parametrize(
    "text", ["=1+1", "+81", "-2", "@x", "\t=1", "\r=1", "＝1", "＋1", "－1", "＠x", " =1", "\u3000=1", "\n=1"]
)
def test_formulas_are_disarmed(text: str) -> None:
    assert safe(text) == "'" + text


@pytest.mark.parametrize("text", ["1=1", "あ", "'", '"=1"', "", "（笑）", "ー", "…"])
def test_other_cells_stay(text: str) -> None:
    assert safe(text) == text
