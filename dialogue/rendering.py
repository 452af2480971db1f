"""One dialogue → token ids and loss mask.  Training and drafting both call `render`.

A prompt format is a Jinja chat template under `templates/` that marks what the model shall learn
with `{% generation %}`: Aku's text and its end-of-turn token (the tokenizer's eos).  The template's
output is cut at these marks and each piece is tokenised by itself, so that ids and mask can not
drift apart, a prompt for a later turn always begins with the ids of the earlier ones (the KV cache
stays valid), and no tokenizer can merge across the border between prompt and reply.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue.errors import CheckpointError
from dialogue.records import Attribute, Dialogue, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"
FORMATS = ("tags", "tokens", "steerlm", "phrase")
_ROLE = {"User": "user", "Aku": "assistant"}
_TAGS = ("<CONTEXT>", "</CONTEXT>", "<ROLE>", "</ROLE>", "<ATTR>", "</ATTR>")
_LEVEL_TOKENS = tuple(f"<|{key}_{level}|>" for key in ("closeness", "mood") for level in range(5))
_ROLE_TOKENS = ("<|context|>", "<|user|>", "<|aku|>")
_CUT = "\ue000"
"""Stands for a text still to be written; from the private-use area, so that nobody types it."""
_FULL_WIDTH = str.maketrans({"<": "＜", ">": "＞", "[": "［", "]": "］"})


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A run of token ids that is either all trained (a reply with its end token) or all prompt."""

    ids: tuple[int, ...]
    trained: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Rendering:
    """A dialogue as alternating prompt and reply segments; begins with a prompt segment."""

    segments: tuple[Segment, ...]

    @property
    def ids(self) -> list[int]:
        """Token ids of the whole dialogue, shape (n,)."""
        return [token for segment in self.segments for token in segment.ids]

    @property
    def mask(self) -> list[int]:
        """Loss mask, shape (n,): 1 where a token is trained."""
        return [int(segment.trained) for segment in self.segments for _ in segment.ids]


def template(name: str) -> str:
    """Return the source of a prompt format's chat template; raises `CheckpointError` for an unknown name."""
    if name not in FORMATS:
        raise CheckpointError(f"unknown prompt format {name!r}; choose one of {', '.join(FORMATS)}.")
    return _template_source(name)


@functools.cache
def _template_source(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


def required_tokens(name: str) -> tuple[str, ...]:
    """Single tokens that the tokenizer must know for a prompt format (beside eos)."""
    return {"tags": _TAGS, "tokens": _ROLE_TOKENS + _LEVEL_TOKENS}.get(name, ())


def missing_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    """Tokens of the format that the tokenizer would split or not know."""
    known = tokenizer.get_added_vocab() | dict.fromkeys(tokenizer.all_special_tokens, 0)
    return [token for token in required_tokens(name) if token not in known]


def default_format(tokenizer: PreTrainedTokenizerBase) -> str:
    """`tags` when the tokenizer knows the tags, else `steerlm`, which needs no new token."""
    return "steerlm" if missing_tokens(tokenizer, "tags") else "tags"


def to_messages(
    context: str, turns: Sequence[Turn], attribute: Attribute | None, clean: Any = str
) -> list[dict[str, str]]:
    """Return chat messages: system (context), attribute (`closeness:4,mood:0`, left out if None), user/assistant."""
    messages = [{"role": "system", "content": clean(context)}]
    if attribute is not None:
        content = f"closeness:{attribute.closeness},mood:{attribute.mood}"
        messages.append({"role": "attribute", "content": content})
    return messages + [{"role": _ROLE[turn.speaker], "content": clean(turn.text)} for turn in turns]


def neutralised(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Replace what would become a control token (`<ROLE>` typed by a person) by full-width look-alikes."""
    for token in _control_tokens(tokenizer):
        if token in text:
            text = text.replace(token, token.translate(_FULL_WIDTH))
    return text


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return sorted({*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}, key=len, reverse=True)


def render(
    context: str,
    turns: Sequence[Turn],
    attribute: Attribute | None,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> Rendering:
    """Render a dialogue, or its beginning, in prompt format `name`.

    `attribute=None` leaves the attributes out (attribute dropout).  Raises `CheckpointError` if the
    tokenizer has no end-of-sequence token or lacks tokens of the format.
    """
    return _encoded(_pieces(context, turns, attribute, tokenizer, name), tokenizer)


def _pieces(
    context: str,
    turns: Sequence[Turn],
    attribute: Attribute | None,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> list[tuple[str, bool]]:
    """Cut the rendered text at the template's marks into alternating prompt and reply pieces."""
    if tokenizer.eos_token is None:
        raise CheckpointError("the tokenizer has no eos token; a model without one never learns to end a turn.")
    if missing := missing_tokens(tokenizer, name):
        raise CheckpointError(f"the tokenizer does not know {missing[0]}; choose another format or add the tokens.")
    control = _control_tokens(tokenizer)

    def clean(text: str) -> str:
        return neutralised(text, tokenizer) if any(token in text for token in control) else text

    text, spans = _render_template(to_messages(context, turns, attribute, clean), name, tokenizer.eos_token)
    pieces: list[tuple[str, bool]] = []
    position = 0
    for start, end in spans:
        pieces += [(text[position:start], False), (text[start:end], True)]
        position = end
    return [*pieces, (text[position:], False)]


def _encoded(pieces: Sequence[tuple[str, bool]], tokenizer: PreTrainedTokenizerBase) -> Rendering:
    encoded = tokenizer([piece for piece, _ in pieces], add_special_tokens=False)["input_ids"]
    segments = [Segment(tuple(ids), trained) for ids, (_, trained) in zip(encoded, pieces, strict=True)]
    if tokenizer.bos_token_id is not None:
        segments[0] = Segment((tokenizer.bos_token_id, *segments[0].ids), False)
    if not segments[-1].ids and len(segments) > 1:
        segments.pop()
    return Rendering(tuple(segments))


def render_dialogue(
    dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, name: str, *, with_attribute: bool = True
) -> Rendering:
    """Render a whole record; see `render`."""
    attribute = dialogue.attribute if with_attribute else None
    return render(dialogue.context, dialogue.conversation, attribute, tokenizer, name)


def render_prompt(
    context: str,
    turns: Sequence[Turn],
    attribute: Attribute | None,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> list[int]:
    """Token ids after which the model writes Aku's next turn; a prefix of `render` of the finished dialogue."""
    rendering = render(context, [*turns, Turn("Aku", "")], attribute, tokenizer, name)
    last = max(i for i, segment in enumerate(rendering.segments) if segment.trained)
    return [token for segment in rendering.segments[:last] for token in segment.ids]


def render_user_prompt(
    context: str,
    turns: Sequence[Turn],
    attribute: Attribute | None,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
) -> list[int]:
    """Token ids after which the model writes User's next turn, as it learned to in pre-training.

    Fine-tuning puts its loss on Aku's turns alone, so a User turn has no end token of its own: it
    ends where the template would go on, at a line break or at the next role header.
    """
    pieces = _pieces(context, [*turns, Turn("User", _CUT)], attribute, tokenizer, name)
    header = pieces[-1][0]
    return _encoded([*pieces[:-1], (header[: header.rindex(_CUT)], False)], tokenizer).ids


def _render_template(messages: list[dict[str, str]], name: str, eos: str) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        conversations=[messages],
        chat_template=template(name),
        return_assistant_tokens_mask=True,
        eos_token=eos,
    )
    return texts[0], [(start, end) for start, end in spans[0]]
