"""A request seen by the model: token ids of the prompt for each turn that is to be written.

Prompts come from `dialogue.rendering` alone, so they are byte-equal to what was trained.  A request
whose User turns are all known is rendered once; only the drafted replies are tokenised later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dialogue.records import Turn
from dialogue.rendering import Rendering, neutralised, render, render_user_prompt
from ml_backend.requests import Draft, DraftRequest, next_blank, spoken

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Scene:
    """The state of one request while its turns are being written."""

    def __init__(self, request: DraftRequest, tokenizer: PreTrainedTokenizerBase, prompt_format: str) -> None:
        """Start at the request's first blank turn."""
        self.request = request
        self.turns = list(request.turns)
        self.tokenizer, self.format = tokenizer, prompt_format
        self.drafted: list[int] = []
        self.tokens = 0
        self.log_probability = 0.0
        self.problem: str | None = None
        self._rendering: Rendering | None = None
        self._replies: dict[int, tuple[int, ...]] = {}

    @property
    def turn(self) -> int | None:
        """Number of the turn to write next, or None when the request is done."""
        if self.problem is not None:
            return None
        number = next_blank(self.turns)
        if number is None or (self.request.limit is not None and len(self.drafted) >= self.request.limit):
            return None
        if self.turns[number].speaker == "User" and not self.request.user_turns:
            return None
        return number

    def writes_user(self) -> bool:
        """Whether the turn to write next is User's."""
        number = self.turn
        return number is not None and self.turns[number].speaker == "User"

    def prompt(self) -> list[int]:
        """Token ids after which the model writes the next turn, shape (n,)."""
        number = self.turn
        assert number is not None  # noqa: S101 - callers ask `turn` first
        known = spoken(self.turns, number)
        attribute = self.request.attribute
        if self.turns[number].speaker == "User":
            self._rendering = None  # its text changes the prompt segments that follow
            return render_user_prompt(self.request.context, known, attribute, self.tokenizer, self.format)
        if self._rendering is None:
            skip = 1 if not self.turns[0].text.strip() and number > 0 else 0
            self._rendering = render(self.request.context, self.turns[skip:], attribute, self.tokenizer, self.format)
            self._replies = {}
        ids: list[int] = []
        aku = 0
        for segment in self._rendering.segments:
            if not segment.trained:
                ids.extend(segment.ids)
            elif aku == sum(turn.speaker == "Aku" for turn in known):
                break
            else:
                ids.extend(self._replies.get(aku, segment.ids))
                aku += 1
        return ids

    def accept(self, text: str, tokens: int, log_probability: float) -> None:
        """Take `text` as the next turn; `log_probability` is the sum over its `tokens`."""
        number = self.turn
        assert number is not None  # noqa: S101
        if self._rendering is not None:
            aku = sum(turn.speaker == "Aku" for turn in spoken(self.turns, number))
            reply = neutralised(text, self.tokenizer) + str(self.tokenizer.eos_token)
            self._replies[aku] = tuple(self.tokenizer(reply, add_special_tokens=False)["input_ids"])
        self.turns[number] = Turn(self.turns[number].speaker, text)
        self.drafted.append(number)
        self.tokens += tokens
        self.log_probability += log_probability

    def draft(self) -> Draft:
        """Return what stands now."""
        # Rounded, so that the last bits of a sum, which depend on the batch, do not show.
        score = round(self.log_probability / self.tokens, 4) if self.tokens else None
        return Draft(self.request.id, tuple(self.turns), tuple(self.drafted), score, self.tokens, self.problem)
