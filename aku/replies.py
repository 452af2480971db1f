"""Replies of a checkpoint to held-out scenes: what the evaluation hears and the review round shows."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dialogue.checkpoints import Checkpoint
from dialogue.records import Attribute, Dialogue, Turn

if TYPE_CHECKING:
    from ml_backend.drafting import Drafter
    from ml_backend.remote import RemoteDrafter
    from ml_backend.requests import DraftRequest
    from ml_backend.settings import BackendSettings

Progress = Callable[[int, int, str], None]
PAIRS = tuple((closeness, mood) for closeness in range(5) for mood in range(5))


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A scene to answer: User's turns are given, Aku's (as a person wrote them, or blank) are to be drafted."""

    id: str
    context: str
    turns: tuple[Turn, ...]
    attribute: Attribute | None = None

    @property
    def aku(self) -> tuple[int, ...]:
        """Numbers of Aku's turns."""
        return tuple(number for number, turn in enumerate(self.turns) if turn.speaker == "Aku")


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """A drafted reply: the turns before it, its text, and how it failed to end properly, if it did."""

    before: tuple[str, ...]
    text: str
    ending: str | None


def scene_of(dialogue: Dialogue) -> Scene:
    """Make a scene of a hand-written dialogue."""
    return Scene(dialogue.id, dialogue.context, dialogue.conversation, dialogue.attribute)


def opening_scene(number: int, context: str, opener: str) -> Scene:
    """Make a scene of a context and User's first turn alone."""
    return Scene(f"scene-{number}", context, (Turn("User", opener), Turn("Aku", "")))


def make_drafter(checkpoint: Checkpoint, settings: BackendSettings) -> Drafter | RemoteDrafter:
    """Load a checkpoint the way the backend would."""
    if settings.engine == "openai":
        from ml_backend.remote import RemoteDrafter

        return RemoteDrafter(checkpoint, settings)
    from ml_backend.drafting import Drafter

    return Drafter(checkpoint, settings)


def steer(
    drafter: Drafter | RemoteDrafter,
    scenes: Sequence[Scene],
    replies: int,
    *,
    most_tokens: int,
    seed: int = 0,
    pairs: Sequence[tuple[int, int]] = PAIRS,
    progress: Progress | None = None,
) -> dict[tuple[str, int, int], list[Said]]:
    """Answer every scene under every attribute pair, up to `replies` Aku turns each.

    The scene's own User turns stay word for word; Aku's earlier turns are the model's own.  One turn
    is asked for at a time, so that each reply's length is known: one that has `most_tokens` tokens
    did not end by itself.  A conversation ends at an empty reply.
    """
    found: dict[tuple[str, int, int], list[Said]] = {(s.id, *pair): [] for s in scenes for pair in pairs}
    total = sum(min(replies, len(scene.aku)) for scene in scenes) * len(pairs)
    done = 0
    for round_ in range(replies):
        asked = {
            (scene.id, *pair): _request(scene, pair, round_, found[scene.id, *pair], seed)
            for scene in scenes
            for pair in pairs
            if round_ < len(scene.aku) and not any(said.ending == "empty" for said in found[scene.id, *pair])
        }

        def advance(*_: object) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total, "drafting replies")

        drafts = drafter.draft(list(asked.values()), advance)
        for (key, request), draft in zip(asked.items(), drafts, strict=True):
            text = draft.turns[-1].text.strip()
            ending = "empty" if not text else draft.problem or ("cut off" if draft.tokens >= most_tokens else None)
            found[key].append(Said(tuple(turn.text for turn in request.turns[:-1]), text, ending))
    return found


def _request(scene: Scene, pair: tuple[int, int], round_: int, said: Sequence[Said], seed: int) -> DraftRequest:
    from ml_backend.requests import DraftRequest

    own = dict(zip(scene.aku, (s.text for s in said), strict=False))
    number = scene.aku[round_]
    turns = [Turn(turn.speaker, own.get(n, turn.text)) for n, turn in enumerate(scene.turns[:number])]
    name = f"evaluate/{scene.id}/{pair[0]}{pair[1]}/{round_}"
    return DraftRequest(name, scene.context, (*turns, Turn("Aku", "")), Attribute(*pair), limit=1, attempt=seed)


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """One of Aku's turns in a held-out dialogue: what came before, and what the person wrote."""

    id: str
    context: str
    attribute: Attribute
    before: tuple[Turn, ...]
    human: str

    def request(self, seed: int) -> DraftRequest:
        """Ask a model to write this turn."""
        from ml_backend.requests import DraftRequest

        turns = (*self.before, Turn("Aku", ""))
        return DraftRequest(f"moment/{self.id}", self.context, turns, self.attribute, limit=1, attempt=seed)


def moments(dialogues: Sequence[Dialogue], count: int, seed: int) -> list[Moment]:
    """Draw Aku turns at random, from as many different dialogues as there are before any comes twice."""
    chance = random.Random(f"moments/{seed}")  # noqa: S311 - a sample, not a secret
    pools = []
    for dialogue in dialogues:
        own = [
            Moment(f"{dialogue.id}/{n}", dialogue.context, dialogue.attribute, dialogue.conversation[:n], turn.text)
            for n, turn in enumerate(dialogue.conversation)
            if turn.speaker == "Aku"
        ]
        chance.shuffle(own)
        pools.append(own)
    chance.shuffle(pools)
    rounds = max(map(len, pools), default=0)
    return [pool[i] for i in range(rounds) for pool in pools if i < len(pool)][:count]
