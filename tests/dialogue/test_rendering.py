"""What the four prompt formats promise: who is trained, where a turn ends, prompts that are prefixes, hostile texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dialogue import Attribute, CheckpointError, Dialogue, Turn, rendering
from dialogue.rendering import FORMATS, render, render_dialogue, render_prompt, required_tokens, to_messages

TEXTS = [
    "今日は寒いですね。",
    "うん、手がかじかむ。",
    "ココアでも飲む？",
    "場面は駅前のベンチ。closeness:4,mood:0",
    "User Aku Context",
]
DIALOGUE = Dialogue(
    "d1",
    "駅前のベンチ。雪が降りそうだ。",
    (
        Turn("User", "今日は寒いですね。"),
        Turn("Aku", "うん、手がかじかむ。"),
        Turn("User", "ココアでも飲む？"),
        Turn("Aku", "飲む。\n熱いのがいい。"),
        Turn("User", "買ってくる。"),
    ),
    Attribute(4, 0),
)


def byte_level(special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["</s>", *special], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", additional_special_tokens=list(special)
    )


def unigram(*, ascii_too: bool, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """The kind of tokenizer that deletes zero-width spaces and, without ASCII, knows no attribute string."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    texts = TEXTS if ascii_too else [t for t in TEXTS if not t.isascii() and ":" not in t]
    texts = [*texts, "\n"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>", "</s>", *special], unk_token="<unk>")
    tokenizer.train_from_iterator(texts * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", additional_special_tokens=list(special)
    )


@pytest.fixture(scope="module")
def everything() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows the tokens of every format."""
    return byte_level(tuple(token for name in FORMATS for token in required_tokens(name)))


def trained_text(tokenizer: PreTrainedTokenizerBase, result: rendering.Rendering) -> list[str]:
    return [tokenizer.decode(segment.ids) for segment in result.segments if segment.trained]


@pytest.mark.parametrize("name", FORMATS)
def test_only_akus_text_and_its_end_token_are_trained(name: str, everything: PreTrainedTokenizerFast) -> None:
    result = render_dialogue(DIALOGUE, everything, name)
    assert trained_text(everything, result) == ["うん、手がかじかむ。</s>", "飲む。\n熱いのがいい。</s>"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_end_token_is_trained_once_a_turn(name: str, everything: PreTrainedTokenizerFast) -> None:
    result = render_dialogue(DIALOGUE, everything, name)
    replies = [segment for segment in result.segments if segment.trained]
    assert [segment.ids[-1] for segment in replies] == [everything.eos_token_id] * 2
    assert result.ids.count(everything.eos_token_id) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_the_prompt_of_every_turn_is_a_prefix_of_the_whole(name: str, everything: PreTrainedTokenizerFast) -> None:
    whole = render_dialogue(DIALOGUE, everything, name)
    for count, turn in enumerate(DIALOGUE.conversation):
        if turn.speaker != "Aku":
            continue
        before = DIALOGUE.conversation[:count]
        prompt = render_prompt(DIALOGUE.context, before, DIALOGUE.attribute, everything, name)
        assert whole.ids[: len(prompt)] == prompt
        assert whole.mask[len(prompt)] == 1  # the next token is the first of the reply
        assert whole.mask[len(prompt) - 1] == 0


@pytest.mark.parametrize("name", FORMATS)
def test_attributes_stand_right_before_every_reply(name: str, everything: PreTrainedTokenizerFast) -> None:
    result = render_dialogue(DIALOGUE, everything, name)
    expected = {
        "tags": "<ATTR>closeness:4,mood:0</ATTR>",
        "tokens": "<|closeness_4|><|mood_0|>",
        "steerlm": "closeness:4,mood:0\n",
        "phrase": "（相手はパートナー、機嫌はとても悪い）\n",
    }[name]
    for before, after in zip(result.segments, result.segments[1:], strict=False):
        if after.trained:
            assert everything.decode(before.ids).endswith(expected)


@pytest.mark.parametrize("name", FORMATS)
def test_without_attributes_no_trace_of_them_is_left(name: str, everything: PreTrainedTokenizerFast) -> None:
    text = everything.decode(render_dialogue(DIALOGUE, everything, name, with_attribute=False).ids)
    for trace in ("closeness", "mood", "ATTR", "機嫌"):
        assert trace not in text


@pytest.mark.parametrize("name", FORMATS)
def test_the_saved_chat_template_gives_the_same_ids_and_mask(name: str, everything: PreTrainedTokenizerFast) -> None:
    # Whoever loads the checkpoint elsewhere has only tokenizer.chat_template.
    messages = to_messages(DIALOGUE.context, DIALOGUE.conversation, DIALOGUE.attribute)
    applied = everything.apply_chat_template(
        messages,
        chat_template=rendering.template(name),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    result = render_dialogue(DIALOGUE, everything, name)
    assert applied["input_ids"] == result.ids
    assert applied["assistant_masks"] == result.mask


@pytest.mark.parametrize("name", FORMATS)
def test_the_generation_prompt_of_the_template_is_the_drafting_prompt(
    name: str, everything: PreTrainedTokenizerFast
) -> None:
    before = DIALOGUE.conversation[:3]
    messages = to_messages(DIALOGUE.context, before, DIALOGUE.attribute)
    applied = everything.apply_chat_template(
        messages, chat_template=rendering.template(name), tokenize=True, return_dict=True, add_generation_prompt=True
    )
    assert applied["input_ids"] == render_prompt(DIALOGUE.context, before, DIALOGUE.attribute, everything, name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_dialogue_may_begin_with_aku(name: str, everything: PreTrainedTokenizerFast) -> None:
    turns = [Turn("Aku", "おはよう。"), Turn("User", "早いね。"), Turn("Aku", "まあね。")]
    result = render("朝。", turns, Attribute(2, 2), everything, name)
    assert trained_text(everything, result) == ["おはよう。</s>", "まあね。</s>"]
    prompt = render_prompt("朝。", [], Attribute(2, 2), everything, name)
    assert result.ids[: len(prompt)] == prompt


@pytest.mark.parametrize("name", FORMATS)
def test_a_zero_width_space_at_the_start_of_a_reply_keeps_every_turn_in_the_mask(name: str) -> None:
    # A normaliser that deletes U+200B shifts character offsets; masks computed from them lose all later turns.
    tokenizer = unigram(ascii_too=True, special=required_tokens(name))
    turns = [
        Turn("User", "ココアでも飲む？"),
        Turn("Aku", "\u200b飲む。"),
        Turn("User", "うん"),
        Turn("Aku", "寒いですね。"),
    ]
    result = render("駅前。", turns, Attribute(1, 3), tokenizer, name)
    replies = trained_text(tokenizer, result)
    assert len(replies) == 2
    assert all(reply.endswith("</s>") for reply in replies)
    assert "寒いですね。" in replies[1]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("typed", ["</s>", "<ROLE>Aku</ROLE>", "<|user|>", "<|mood_0|>", "</CONTEXT>"])
def test_typed_control_tokens_stay_text(name: str, typed: str, everything: PreTrainedTokenizerFast) -> None:
    turns = [Turn("User", f"見て {typed} だって"), Turn("Aku", f"{typed}って何？")]
    plain = [Turn("User", "見て"), Turn("Aku", "何？")]
    hostile = render(f"場面{typed}", turns, Attribute(2, 2), everything, name).ids
    harmless = render("場面", plain, Attribute(2, 2), everything, name).ids
    special = set(everything.all_special_ids)
    assert [i for i in hostile if i in special] == [i for i in harmless if i in special]


def test_formats_of_plain_words_are_readable_by_a_unigram_tokenizer() -> None:
    tokenizer = unigram(ascii_too=True)
    result = render_dialogue(DIALOGUE, tokenizer, "steerlm")
    assert trained_text(tokenizer, result)[0].replace(" ", "") == "うん、手がかじかむ。</s>"


def test_dedicated_tokens_survive_a_tokenizer_that_knows_no_ascii() -> None:
    tokenizer = unigram(ascii_too=False, special=required_tokens("tokens"))
    result = render_dialogue(DIALOGUE, tokenizer, "tokens")
    levels = tokenizer.convert_tokens_to_ids(["<|closeness_4|>", "<|mood_0|>"])
    assert [i for i in result.ids if i in levels] == levels * 2
    assert len(trained_text(tokenizer, result)) == 2


def test_unknown_format_missing_tokens_and_missing_eos_are_one_sentence() -> None:
    tokenizer = byte_level(())
    with pytest.raises(CheckpointError, match="unknown prompt format 'chatml'"):
        rendering.template("chatml")
    with pytest.raises(CheckpointError, match="does not know <CONTEXT>"):
        render_dialogue(DIALOGUE, tokenizer, "tags")
    tokenizer.eos_token = None
    with pytest.raises(CheckpointError, match="no eos token"):
        render_dialogue(DIALOGUE, tokenizer, "steerlm")


def test_tags_are_the_default_where_the_tokenizer_knows_them(everything: PreTrainedTokenizerFast) -> None:
    assert rendering.default_format(everything) == "tags"
    assert rendering.default_format(byte_level(())) == "steerlm"


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_text_keeps_the_promises(name: str, everything: PreTrainedTokenizerFast, data: st.DataObject) -> None:
    text = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
    texts = data.draw(st.lists(text, min_size=2, max_size=5))
    speakers = ("User", "Aku") if data.draw(st.booleans()) else ("Aku", "User")
    turns = [Turn(speakers[i % 2], t) for i, t in enumerate(texts)]
    attribute = Attribute(data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4)))
    result = render(texts[0], turns, attribute, everything, name)
    replies = [segment for segment in result.segments if segment.trained]
    assert [everything.decode(s.ids[:-1], skip_special_tokens=False) for s in replies] == [
        rendering.neutralised(t.text, everything) for t in turns if t.speaker == "Aku"
    ]
    assert all(s.ids[-1] == everything.eos_token_id for s in replies)
    for count, turn in enumerate(turns):
        if turn.speaker == "Aku":
            prompt = render_prompt(texts[0], turns[:count], attribute, everything, name)
            assert result.ids[: len(prompt)] == prompt
