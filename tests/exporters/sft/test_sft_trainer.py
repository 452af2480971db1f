"""The fast loss is the true loss, packed dialogues do not see one another, and the plan can not be left."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.data import RandomSampler

from dialogue import CheckpointError
from exporters.sft.fit import make_trainer
from exporters.sft.loss import Collator, reply_loss
from exporters.sft.prepare import Prepared, prepare
from exporters.sft.rows import IGNORED
from exporters.sft.settings import TrainSettings
from exporters.sft.trainer import PlanTrainer, planned_items

FAST = TrainSettings(epochs=2, evaluations=2, precision="fp32", learning_rate=3e-3)


@pytest.fixture
def prepared(nano: Path, version: Path) -> Prepared:
    return prepare(nano, version, FAST)


def batch(prepared: Prepared, *, packing: bool = False) -> dict[str, torch.Tensor]:
    items = planned_items(prepared.plan, prepared.rows.rows)
    keys = ("ids", "labels", "position")
    chosen = [{key: items[key][i] for key in keys} for i in range(4)]
    return Collator(0, packing=packing)(chosen)


def real(prepared: Prepared, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The attention mask that the collator does without."""
    items = planned_items(prepared.plan, prepared.rows.rows)["ids"][:4]
    lengths = torch.tensor([[len(ids)] for ids in items])
    return (torch.arange(inputs["input_ids"].shape[1]) < lengths).long()


def test_the_loss_is_that_of_the_model_itself(prepared: Prepared) -> None:
    model, inputs = prepared.base.model.eval(), batch(prepared)
    total, count = reply_loss(model, model.get_output_embeddings(), inputs)
    mask = real(prepared, inputs)
    reference = model(input_ids=inputs["input_ids"], attention_mask=mask, labels=inputs["labels"]).loss
    assert count == (inputs["labels"] != IGNORED).sum()
    assert total.item() / count == pytest.approx(reference.item(), abs=1e-5)


def test_the_gradients_are_those_of_the_model_itself(prepared: Prepared) -> None:
    model, inputs = prepared.base.model.train(), batch(prepared)
    total, count = reply_loss(model, model.get_output_embeddings(), inputs)
    (total / count).backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    mask = real(prepared, inputs)
    model(input_ids=inputs["input_ids"], attention_mask=mask, labels=inputs["labels"]).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(fast[name], parameter.grad, atol=1e-6), name


def test_a_batch_without_labels_is_a_zero_that_still_has_gradients(prepared: Prepared) -> None:
    model = prepared.base.model
    silent = [{"ids": [5, 6, 7], "labels": [IGNORED] * 3, "position": 0}]
    inputs = Collator(0)(silent)
    total, count = reply_loss(model, model.get_output_embeddings(), inputs)
    assert (total.item(), count) == (0.0, 0)
    total.backward()


def test_packed_dialogues_give_the_loss_of_separate_ones(prepared: Prepared) -> None:
    model = prepared.base.model.eval()
    apart, count = reply_loss(model, model.get_output_embeddings(), batch(prepared))
    packed, packed_count = reply_loss(model, model.get_output_embeddings(), batch(prepared, packing=True))
    assert count == packed_count
    assert packed.item() == pytest.approx(apart.item(), rel=1e-5)


def test_packed_dialogues_do_not_see_one_another(prepared: Prepared) -> None:
    model, inputs = prepared.base.model.eval(), batch(prepared, packing=True)
    starts = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert len(starts) == 4
    embedded = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, position_ids=inputs["position_ids"], use_cache=False).logits
    logits[0, starts[1] : starts[2]].sum().backward()
    size = embedded.grad[0].abs().sum(dim=1)
    assert size[starts[1] : starts[2]].max() > 0
    assert size[: starts[1]].max() == 0
    assert size[starts[2] :].max() == 0


class Shuffling(PlanTrainer):
    """What a default trainer would do."""

    def _get_train_sampler(self, train_dataset=None):
        return RandomSampler(self.train_dataset, generator=torch.Generator().manual_seed(1))


def test_a_shuffling_sampler_is_caught_at_the_first_step(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporters.sft.fit.PlanTrainer", Shuffling)
    trainer = make_trainer(prepared, tmp_path, None)
    with pytest.raises(CheckpointError, match="step 0: the data loader delivered other dialogues than the plan"):
        trainer.train()


def test_another_data_set_than_planned_is_caught(prepared: Prepared, tmp_path: Path) -> None:
    trainer = make_trainer(prepared, tmp_path, None)
    trainer.train_dataset = trainer.train_dataset.select(range(4, len(trainer.train_dataset)))
    with pytest.raises(CheckpointError, match="other dialogues than the plan"):
        trainer.train()


def weights(prepared: Prepared, folder: Path) -> dict[str, torch.Tensor]:
    trainer = make_trainer(prepared, folder, None)
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_accumulated_small_batches_equal_one_large_batch(nano: Path, version: Path, tmp_path: Path) -> None:
    large = weights(prepare(nano, version, FAST), tmp_path / "large")
    small = weights(prepare(nano, version, dataclasses.replace(FAST, micro_batch=1)), tmp_path / "small")
    for name, value in large.items():
        # AdamW divides by the size of the gradient, so rounding is magnified where gradients are tiny.
        assert torch.allclose(value, small[name], atol=2e-3), name


def test_bf16_is_autocast_over_fp32_weights_and_gives_nearly_the_same_loss(
    nano: Path, version: Path, tmp_path: Path
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        prepared = prepare(nano, version, dataclasses.replace(FAST, precision=precision))
        trainer = make_trainer(prepared, tmp_path / precision, None)
        trainer.train()
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
        losses[precision] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["bf16"] != losses["fp32"]  # the head is inside the autocast region too


def test_the_log_names_the_stage_of_every_line(prepared: Prepared, tmp_path: Path) -> None:
    trainer = make_trainer(prepared, tmp_path, None)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["stage"] for line in lines] == [prepared.plan.stage_at(line["step"] - 1) + 1 for line in lines]
    assert len({line["stage"] for line in lines}) == 3
    assert any("tfevents" in path.name for path in (tmp_path / "tensorboard").rglob("*"))


def test_held_out_loss_does_not_depend_on_batches(prepared: Prepared, tmp_path: Path) -> None:
    trainer = make_trainer(prepared, tmp_path, None)
    one = trainer.evaluate()["eval_loss"]
    trainer.args.per_device_eval_batch_size = 1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(one, rel=1e-6)


def test_early_stopping_keeps_the_best_weights(nano: Path, version: Path, tmp_path: Path) -> None:
    # A learning rate that wrecks the model: the held-out loss rises from the first evaluation on.
    wild = dataclasses.replace(FAST, epochs=12, evaluations=12, patience=2, learning_rate=0.3, warmup=0.3)
    prepared = prepare(nano, version, wild)
    trainer = make_trainer(prepared, tmp_path, None)
    trainer.train()
    losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert trainer.state.global_step < prepared.plan.steps
    assert len(losses) - 1 - losses.index(min(losses)) == 2
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)
