"""Rows for training: what is left out is counted, what would train wrongly is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dialogue import Attribute, Dialogue, RecordError, Turn
from dialogue.rendering import Rendering, Segment, render_dialogue
from exporters.sft.rows import IGNORED, check_mask, make_rows


@pytest.fixture(scope="module")
def tokenizer(nano: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(nano)


def only_user(dialogue: Dialogue) -> Dialogue:
    return dataclasses.replace(dialogue, id="user-only", conversation=dialogue.conversation[:1])


def test_labels_decode_to_akus_turns(some: list[Dialogue], tokenizer: PreTrainedTokenizerBase) -> None:
    rows = make_rows(some, tokenizer, "tags", max_length=1024).rows
    for dialogue, row in zip(some, rows, strict=True):
        replies = [turn.text for turn in dialogue.conversation if turn.speaker == "Aku"]
        text = tokenizer.decode([label for label in row.labels if label != IGNORED])
        assert text == "".join(reply + tokenizer.eos_token for reply in replies)
        assert row.characters == sum(map(len, replies))
        assert row.trained == sum(label != IGNORED for label in row.labels)
        assert row.labels[-1] == tokenizer.eos_token_id  # cut behind the last trained token


def test_rows_without_attributes_have_the_same_replies(
    some: list[Dialogue], tokenizer: PreTrainedTokenizerBase
) -> None:
    for row in make_rows(some, tokenizer, "tags", max_length=1024).rows:
        assert len(row.ids_without) < len(row.ids)
        assert [i for i in row.labels_without if i != IGNORED] == [i for i in row.labels if i != IGNORED]


def test_dialogues_in_which_aku_is_silent_are_counted(some: list[Dialogue], tokenizer: PreTrainedTokenizerBase) -> None:
    result = make_rows([some[0], only_user(some[1])], tokenizer, "tags", max_length=1024)
    assert [row.dialogue for row in result.rows] == [some[0].id]
    assert result.left_out == {"no turn by Aku": ("user-only",)}


def test_nothing_to_train_on_is_refused(some: list[Dialogue], tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RecordError, match="Aku never speaks"):
        make_rows([only_user(some[0])], tokenizer, "tags", max_length=1024)


def test_a_dialogue_longer_than_the_context_is_refused_by_name(
    some: list[Dialogue], tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(RecordError, match=f"record {some[0].id} has .* tokens, the limit is 100"):
        make_rows(some, tokenizer, "tags", max_length=100)


def test_dropping_turns_never_cuts_a_reply_and_is_counted(
    some: list[Dialogue], tokenizer: PreTrainedTokenizerBase
) -> None:
    result = make_rows(some, tokenizer, "tags", max_length=200, too_long="drop_turns")
    assert result.left_out["turns beyond the model's context"]
    whole = {row.dialogue: row for row in make_rows(some, tokenizer, "tags", max_length=1024).rows}
    for row in result.rows:
        assert len(row.ids) <= 200
        assert row.labels[-1] == tokenizer.eos_token_id
        assert whole[row.dialogue].ids[: len(row.ids)] == row.ids


def test_an_untrained_end_token_is_refused(some: list[Dialogue], tokenizer: PreTrainedTokenizerBase) -> None:
    whole = render_dialogue(some[0], tokenizer, "tags")
    # What a template with eos_token behind {% endgeneration %} would give.
    cut = Rendering(tuple(Segment(s.ids[:-1], True) if s.trained else s for s in whole.segments))
    check_mask(some[0], whole, tokenizer, len(some[0].conversation), "file")
    with pytest.raises(RecordError, match="the end of Aku's turn 1 would not be trained"):
        check_mask(some[0], cut, tokenizer, len(some[0].conversation), "file")


def test_a_turn_missing_from_the_mask_is_refused(some: list[Dialogue], tokenizer: PreTrainedTokenizerBase) -> None:
    whole = render_dialogue(some[0], tokenizer, "tags")
    lost = Rendering(tuple(Segment(s.ids, False) if i > 2 else s for i, s in enumerate(whole.segments)))
    with pytest.raises(RecordError, match="1 of 5 Aku turns would be trained"):
        check_mask(some[0], lost, tokenizer, len(some[0].conversation), "file")


def test_a_reply_that_the_tokenizer_deletes_is_refused() -> None:
    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.Replace("\u200b", "")
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>")
    raw.train_from_iterator(["closeness:0,mood:0 closeness:1 2 3 4", "ContextUserAku\n", "はい、いいえ。"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    silent = Dialogue("zero", "はい", (Turn("User", "はい"), Turn("Aku", "\u200b")), Attribute(2, 2))
    with pytest.raises(RecordError, match="record zero: Aku's turn 1 has no token left"):
        make_rows([silent], tokenizer, "steerlm", max_length=1024)
