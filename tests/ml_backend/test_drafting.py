"""The engine: same text as one-by-one generation, whatever else is in the batch."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from backends import saved, shape
from cards import OPENER, request

from dialogue import Registry, Turn
from dialogue.checkpoints import Checkpoint
from dialogue.label_studio import blank_turns
from dialogue.rendering import render_prompt
from ml_backend import packing
from ml_backend.drafting import Draft, Drafter, DraftRequest
from ml_backend.fused import FusedMemory
from ml_backend.memory import NoMemory
from ml_backend.settings import BackendSettings
from ml_backend.slots import SlotMemory
from ml_backend.text_rules import problem, salvaged

GREEDY = BackendSettings(temperature=0, retries=0, max_new_tokens=24, threads=1)
SAMPLED = dataclasses.replace(GREEDY, temperature=0.9, retries=2)
USERS = ("犬の話をしよう", "最近犬はどう？", "ねえ、犬だよ", "ねえ、海だよ", "本の話をしよう")


@pytest.fixture(scope="module")
def drafter(checkpoint: Checkpoint) -> Drafter:
    return Drafter(checkpoint, GREEDY)


@pytest.fixture(scope="module")
def sampler(checkpoint: Checkpoint) -> Drafter:
    return Drafter(checkpoint, SAMPLED)


def requests_of(count: int, **options: Any) -> list[DraftRequest]:
    return [request(i, *(USERS[(i + j) % 5] for j in range(1 + i % 4)), mood=i % 5, **options) for i in range(count)]


def plain_generation(drafter: Drafter, wanted: DraftRequest) -> list[Turn]:
    """What `generate` writes, one turn at a time, the whole prompt again for each."""
    import torch

    weights, turns = drafter.weights, list(wanted.turns)
    suppressed = weights.forbidden[0].isinf().nonzero()[:, 0].tolist()
    for number, turn in enumerate(turns):
        if turn.text:
            continue
        prompt = render_prompt(wanted.context, turns[:number], wanted.attribute, weights.tokenizer, weights.format)
        ids = weights.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=drafter.settings.max_new_tokens,
            min_new_tokens=1,
            suppress_tokens=suppressed,
            eos_token_id=weights.tokenizer.eos_token_id,
            pad_token_id=weights.tokenizer.eos_token_id,
        )[0, len(prompt) :].tolist()
        ended = ids[-1] == weights.tokenizer.eos_token_id
        text = weights.tokenizer.decode(ids[:-1] if ended else ids)
        fault = problem(text, ended=ended, control=weights.control)
        turns[number] = Turn("Aku", text.strip() if fault is None else salvaged(text, weights.control))
    return turns


class Counting:
    """Passes everything on to the memory and counts tokens."""

    def __init__(self, memory: Any) -> None:
        self.memory, self.tokens = memory, 0

    def forward(self, rows: Any, feeds: Sequence[Sequence[int]]) -> Any:
        self.tokens += sum(map(len, feeds))
        return self.memory.forward(rows, feeds)

    def swap(self, a: int, b: int, length: int) -> None:
        self.memory.swap(a, b, length)

    def copy(self, source: int, target: int, length: int) -> None:
        self.memory.copy(source, target, length)

    def clear(self) -> None:
        self.memory.clear()


def mistral(tokenizer: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**shape(tokenizer, sliding_window=None)))


def sliding_mistral(tokenizer: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**shape(tokenizer, sliding_window=24)))


def gemma(tokenizer: Any) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape(tokenizer, head_dim=16, sliding_window=24, layer_types=kinds)))


def qwen(tokenizer: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**shape(tokenizer, head_dim=16)))


def llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**shape(tokenizer)))


def mamba(tokenizer: Any) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    return MambaForCausalLM(MambaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **sizes))


@pytest.mark.parametrize(
    ("make", "memory"),
    [
        (mistral, FusedMemory),
        (llama, FusedMemory),
        (qwen, SlotMemory),
        (sliding_mistral, SlotMemory),
        (gemma, SlotMemory),
        (mamba, NoMemory),
    ],
)
def test_every_architecture_writes_what_generate_writes(
    make: Callable[[Any], Any], memory: type, tokenizer: Any, registry: Registry, tmp_path: Path
) -> None:
    import torch

    torch.manual_seed(1)
    model = make(tokenizer)
    with torch.no_grad():  # random weights, but far from ties
        model.get_output_embeddings().weight.normal_(0, 0.5)
    found = registry.add(saved(model, tokenizer, tmp_path / "m"), {"format": "tags"})
    drafter = Drafter(found, dataclasses.replace(GREEDY, max_new_tokens=8, batch_rows=3))
    assert isinstance(drafter.decoder.memory, memory)
    wanted = requests_of(6)
    for one, draft in zip(wanted, drafter.draft(wanted), strict=True):
        assert list(draft.turns) == plain_generation(drafter, one)


def test_trained_model_writes_what_generate_writes(drafter: Drafter) -> None:
    wanted = requests_of(20)
    drafts = drafter.draft(wanted)
    for one, draft in zip(wanted, drafts, strict=True):
        assert list(draft.turns) == plain_generation(drafter, one)
        assert draft.drafted == tuple(range(1, len(one.turns), 2))


def test_model_has_learnt_to_reply(drafter: Drafter) -> None:
    moods = [drafter.draft([request(1, OPENER, mood=mood)])[0].turns[1].text for mood in (0, 4)]
    assert "知らない" in moods[0]
    assert "行こうね" in moods[1]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "retries": 2}, {"temperature": 0.9, "candidates": 3}])
def test_drafts_do_not_depend_on_the_batch(checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    wanted = [*requests_of(12), *requests_of(3, user_turns=True)]
    wanted.append(DraftRequest("whole", "海のそば。", blank_turns(6), wanted[0].attribute, user_turns=True))
    wide = Drafter(checkpoint, dataclasses.replace(GREEDY, **settings))
    narrow = Drafter(checkpoint, dataclasses.replace(GREEDY, batch_rows=2, **settings))
    together = wide.draft(wanted)
    assert narrow.draft(list(reversed(wanted))) == list(reversed(together))
    assert [wide.draft([one])[0] for one in wanted] == together


def test_each_token_is_fed_once(checkpoint: Checkpoint) -> None:
    drafter = Drafter(checkpoint, GREEDY)
    counting = Counting(drafter.decoder.memory)
    drafter.decoder.memory = drafter.decoder.batch.memory = counting  # type: ignore[assignment]
    wanted = requests_of(9)
    drafts = drafter.draft(wanted)
    weights = drafter.weights
    whole = 0
    for one, draft in zip(wanted, drafts, strict=True):
        last = draft.drafted[-1]
        prompt = render_prompt(one.context, draft.turns[:last], one.attribute, weights.tokenizer, weights.format)
        # The last reply's own tokens are fed but for its last one, which nothing follows.
        whole += len(prompt) + len(weights.tokenizer(draft.turns[last].text, add_special_tokens=False)["input_ids"])
    assert counting.tokens == whole


def test_written_turns_are_kept_word_for_word(sampler: Drafter) -> None:
    odd = "  全角　空白と\t<ROLE>と😀  "
    turns = (Turn("User", odd), Turn("Aku", "人が書いた。"), Turn("User", "ねえ、犬だよ"), Turn("Aku", ""))
    draft = sampler.draft([dataclasses.replace(request(1, "x"), turns=turns)])[0]
    assert draft.turns[:3] == turns[:3]
    assert draft.drafted == (3,)
    assert draft.turns[3].text


def test_another_attempt_and_another_task_draw_differently(sampler: Drafter) -> None:
    base = request(1, *USERS)
    drafts = {sampler.draft([dataclasses.replace(base, attempt=n)])[0].turns for n in range(4)}
    assert len(drafts) > 1
    assert len({sampler.draft([dataclasses.replace(base, id=str(n))])[0].turns for n in range(4)}) > 1


def test_greedy_attempts_differ_as_well(drafter: Drafter) -> None:
    base = request(1, *USERS)
    assert len({drafter.draft([dataclasses.replace(base, attempt=n)])[0].turns for n in range(5)}) > 1


def test_limit_drafts_one_turn(drafter: Drafter) -> None:
    draft = drafter.draft([request(1, *USERS[:3], limit=1)])[0]
    assert draft.drafted == (1,)
    assert draft.turns[3].text == ""


def test_score_is_the_mean_log_probability(drafter: Drafter) -> None:
    import torch

    one = request(1, *USERS[:2])
    draft = drafter.draft([one])[0]
    weights = drafter.weights
    scores: list[float] = []
    for number in draft.drafted:
        prompt = render_prompt(one.context, draft.turns[:number], one.attribute, weights.tokenizer, weights.format)
        reply = [*weights.tokenizer(draft.turns[number].text)["input_ids"], weights.tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = weights.model(torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
        for position, token in enumerate(reply):
            row = logits[position] + weights.forbidden[0]
            if position == 0:
                row[weights.tokenizer.eos_token_id] = float("-inf")
            scores.append(float(torch.log_softmax(row, -1)[token]))
    assert draft.score == pytest.approx(sum(scores) / len(scores), abs=2e-4)
    assert draft.tokens == len(scores)


def test_best_candidate_is_kept(checkpoint: Checkpoint) -> None:
    hot = dataclasses.replace(SAMPLED, temperature=1.2)
    one, several = Drafter(checkpoint, hot), Drafter(checkpoint, dataclasses.replace(hot, candidates=6))
    wanted = requests_of(10)

    def mean(drafts: list[Draft]) -> float:
        return sum(draft.score or 0.0 for draft in drafts) / len(drafts)

    assert mean(several.draft(wanted)) > mean(one.draft(wanted))


def test_replies_are_never_empty_leaking_or_broken(checkpoint: Checkpoint) -> None:
    wild = Drafter(checkpoint, dataclasses.replace(SAMPLED, temperature=3.0, top_k=200, top_p=1.0))
    blank = [
        DraftRequest(str(i), "犬。", blank_turns(4), requests_of(1)[0].attribute, user_turns=True) for i in range(40)
    ]
    for draft in wild.draft([*requests_of(40), *blank]):
        for number in draft.drafted:
            text = draft.turns[number].text
            assert text == text.strip() != ""
            assert problem(text, ended=True, control=wild.weights.control) is None
            assert draft.turns[number].speaker == "Aku" or "\n" not in text


def test_full_context_ends_drafting(checkpoint: Checkpoint) -> None:
    drafter = Drafter(checkpoint, dataclasses.replace(GREEDY, max_new_tokens=500))
    long = request(1, "犬" * 600)
    draft = drafter.draft([long, request(2, OPENER)])
    assert draft[0].drafted == ()
    assert draft[0].problem == "the model's context is full"
    assert draft[1].drafted == (1,)


def test_running_out_of_memory_halves_the_batch(checkpoint: Checkpoint) -> None:
    """A child process with little address space: the wide batch does not fit, the drafts come all the same."""
    code = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from cards import request
from dialogue import Registry
from ml_backend.drafting import Drafter
from ml_backend.settings import BackendSettings
settings = BackendSettings(temperature=0, retries=0, max_new_tokens=8, threads=1, batch_rows=128, token_budget=10**7)
checkpoint = Registry(Path({str(checkpoint.path.parent)!r})).get({checkpoint.id!r})
drafter = Drafter(checkpoint, settings)
wanted = [request(i, "犬の話をしよう" * 50, "最近犬はどう？", mood=i % 5) for i in range(128)]
few = drafter.draft(wanted[:4])
drafter.decoder.memory.clear()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, -1))
drafts = drafter.draft(wanted)
assert drafts[:4] == few
assert all(draft.drafted == (1, 3) for draft in drafts), [d.problem for d in drafts if d.problem]
print(drafter.decoder.limit)
"""
    # How much the allocator holds in reserve differs between machines: less and less, until it is too little.
    limits = []
    for spare in (48, 24, 12):
        command = [sys.executable, "-c", code, str(spare)]
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert result.returncode == 0, result.stderr[-2000:]
        limits.append(int(result.stdout.split()[-1]))
        if limits[-1] < 128:
            break
    assert 1 <= limits[-1] < 128, limits


@pytest.fixture(scope="module")
def adapters(registry: Registry, model_folder: Path, tokenizer: Any, tmp_path_factory: Any) -> list[Checkpoint]:
    """Two LoRA adapters on the trained model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(model_folder), LoraConfig(r=4, target_modules="all-linear")
        )
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.3)
        folder = tmp_path_factory.mktemp("adapter")
        saved(model, tokenizer, folder)
        found.append(registry.add(folder, {"format": "tags", "base": str(model_folder)}))
    return found


def test_adapter_swap_keeps_the_base(adapters: list[Checkpoint]) -> None:
    wanted = requests_of(6)
    alone = [Drafter(adapter, GREEDY).draft(wanted) for adapter in adapters]
    assert alone[0] != alone[1]
    first = Drafter(adapters[0], GREEDY)
    second = Drafter(adapters[1], GREEDY, share=first)
    assert second.weights.model is first.weights.model
    # In turn, so that switching back and forth is seen to work.
    assert [first.draft(wanted), second.draft(wanted), first.draft(wanted)] == [alone[0], alone[1], alone[0]]
    for adapter, drafts in zip(adapters, alone, strict=True):
        drafter = Drafter(adapter, GREEDY)
        assert list(drafts[0].turns) == plain_generation(drafter, wanted[0])


def test_packed_layers_write_the_same_text_and_adapters_are_not_packed(
    drafter: Drafter, checkpoint: Checkpoint, adapters: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(packing, "LEAST", 1)  # these models are so small that nothing would be packed
    wanted = requests_of(8)
    packed = Drafter(checkpoint, GREEDY)
    assert not any(type(module) is torch.nn.Linear for module in packed.weights.model.modules())
    assert [draft.turns for draft in packed.draft(wanted)] == [draft.turns for draft in drafter.draft(wanted)]
    adapter = Drafter(adapters[0], GREEDY)
    assert not any(isinstance(module, packing.PackedLinear) for module in adapter.weights.model.modules())


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"candidates": 0}, {"swap_wait": 5}, {"blind_share": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BackendSettings(**wrong)
