"""Whole runs: registered, resumed after a kill, the same on two processes, adapters, new tokens."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dialogue import (
    Attribute,
    Checkpoint,
    Dialogue,
    FileError,
    RecordError,
    Registry,
    SettingsError,
    rendering,
    write_dialogues,
)
from dialogue.checkpoints import check_safe
from exporters.sft import TrainSettings, train
from exporters.sft.evaluate import dialogue_losses
from exporters.sft.prepare import check_disk
from exporters.sft.rows import make_rows

FAST = TrainSettings(epochs=2, evaluations=3, learning_rate=3e-3)
SCRIPT = """
import json, sys
from pathlib import Path
from dialogue import Registry
from exporters.sft import TrainSettings, train
base, version, root, settings = sys.argv[1:5]
def show(done, total, note):
    print("step", done, flush=True)
checkpoint = train(Path(base), Path(version), Registry(Path(root) / "checkpoints"),
                   TrainSettings(**json.loads(settings)), work=Path(root) / "runs", progress=show)
print("checkpoint", checkpoint.id, flush=True)
"""


def run(nano: Path, version: Path, folder: Path, settings: TrainSettings = FAST) -> Checkpoint:
    return train(nano, version, Registry(folder / "checkpoints"), settings, work=folder / "runs")


def command(nano: Path, version: Path, folder: Path, settings: TrainSettings) -> list[str]:
    values = json.dumps(dataclasses.asdict(settings))
    return [sys.executable, "-c", SCRIPT, str(nano), str(version), str(folder), values]


@pytest.fixture(scope="module")
def checkpoint(nano: Path, version: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run(nano, version, tmp_path_factory.mktemp("run"))


def test_a_run_ends_in_a_checkpoint_that_says_what_it_is(checkpoint: Checkpoint, nano: Path) -> None:
    card = checkpoint.card
    assert (card["base"], card["dataset"], card["format"], card["demo"]) == (str(nano), "0123456789ab", "tags", False)
    assert card["id"] == checkpoint.id == checkpoint.path.name
    assert card["dialogues"] == {"train": 12, "held_out": 4}
    assert card["metrics"]["steps"] == card["metrics"]["planned_steps"] == 6
    assert [stage["name"] for stage in card["stages"]][-1] == "everything"
    assert card["generation"] == {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 128}
    losses = card["metrics"]["held_out_loss"]
    assert losses["after"] < losses["before"]


def test_the_folder_is_safe_complete_and_carries_its_template(checkpoint: Checkpoint, some: list[Dialogue]) -> None:
    check_safe(checkpoint.path)
    names = {str(path.relative_to(checkpoint.path)) for path in checkpoint.path.rglob("*") if path.is_file()}
    assert {"model.safetensors", "tokenizer.json", "README.md", "training/plan.json", "training/loss.svg"} <= names
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    assert tokenizer.chat_template == rendering.template("tags")
    plan = json.loads((checkpoint.path / "training" / "plan.json").read_text())
    assert set(plan["dialogues"]) == {d.id for d in some[:12]}


def test_the_reported_loss_is_that_of_the_saved_weights(checkpoint: Checkpoint, some: list[Dialogue]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    rows = make_rows(some[12:], tokenizer, "tags", max_length=1024).rows
    losses = dialogue_losses(AutoModelForCausalLM.from_pretrained(checkpoint.path), rows)
    mean = sum(loss * row.trained for loss, row in zip(losses, rows, strict=True)) / sum(r.trained for r in rows)
    assert checkpoint.card["metrics"]["held_out_loss"]["after"] == pytest.approx(mean, abs=1e-5)


def test_the_same_run_twice_is_the_same_checkpoint(
    checkpoint: Checkpoint, nano: Path, version: Path, tmp_path: Path
) -> None:
    again = run(nano, version, tmp_path)
    assert again.id == checkpoint.id
    made = again.path.stat().st_mtime_ns
    assert run(nano, version, tmp_path).path.stat().st_mtime_ns == made  # found, not trained once more
    assert not list((tmp_path / "runs").glob("*/checkpoint-*"))  # trainer states are gone, the log stays
    assert list((tmp_path / "runs").rglob("*tfevents*"))


def test_killed_at_random_moments_and_resumed_gives_the_same_weights(nano: Path, version: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, epochs=6, evaluations=9, attribute_dropout=0.3)
    whole = run(nano, version, tmp_path / "whole", settings)
    chance = random.Random(5)
    kills, seen = 0, []
    while True:
        process = subprocess.Popen(
            command(nano, version, tmp_path / "killed", settings), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        steps, limit = [], chance.randint(1, 6) if kills < 3 else 10**9
        for line in process.stdout:
            if line.startswith("step"):
                steps.append(int(line.split()[1]))
                if len(steps) == limit:
                    time.sleep(chance.random() * 0.3)  # in the middle of a step, an evaluation or a save
                    process.send_signal(signal.SIGKILL)
            elif line.startswith("checkpoint"):
                result = line.split()[1]
        process.wait()
        seen.append(steps)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert seen[-1][0] > 1  # it did resume
    assert result == whole.id  # the id is a hash of the weights
    log = [Registry(tmp_path / name / "checkpoints").get(whole.id).card["metrics"] for name in ("whole", "killed")]
    assert log[0]["train_loss"] == log[1]["train_loss"]
    assert log[0]["held_out_curve"] == log[1]["held_out_curve"]


def test_a_save_that_was_cut_off_is_not_resumed_from(nano: Path, version: Path, tmp_path: Path) -> None:
    first = run(nano, version, tmp_path)
    key = next((tmp_path / "runs").iterdir()).name
    broken = tmp_path / "runs" / key / "checkpoint-4"
    broken.mkdir()
    (broken / "trainer_state.json").write_text("{")
    shutil.rmtree(first.path)
    assert run(nano, version, tmp_path).id == first.id


def test_two_processes_follow_the_curve_of_one(nano: Path, version: Path, tmp_path: Path) -> None:
    one = run(nano, version, tmp_path / "one").card["metrics"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = command(nano, version, tmp_path / "two", FAST)[3:]
    done = subprocess.run([*launch, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ids = set(re.findall(r"^checkpoint (\w+)$", done.stdout, re.MULTILINE))
    assert len(ids) == 1
    two = Registry(tmp_path / "two" / "checkpoints").get(ids.pop()).card["metrics"]
    assert [line["step"] for line in one["train_loss"]] == [line["step"] for line in two["train_loss"]]
    for a, b in zip(one["train_loss"], two["train_loss"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-3)
    assert one["held_out_loss"]["after"] == pytest.approx(two["held_out_loss"]["after"], rel=2e-3)


def test_lora_registers_an_adapter_that_reloads_to_the_reported_loss(
    nano: Path, version: Path, tmp_path: Path, some: list[Dialogue]
) -> None:
    from peft import PeftModel

    result = run(nano, version, tmp_path, dataclasses.replace(FAST, method="lora", learning_rate=5e-3))
    assert result.is_adapter
    assert not (result.path / "model.safetensors").exists()
    assert json.loads((result.path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(nano)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(nano), result.path)
    rows = make_rows(some[12:], AutoTokenizer.from_pretrained(result.path), "tags", max_length=1024).rows
    losses = dialogue_losses(model, rows)
    mean = sum(loss * row.trained for loss, row in zip(losses, rows, strict=True)) / sum(r.trained for r in rows)
    metrics = result.card["metrics"]["held_out_loss"]
    assert metrics["after"] == pytest.approx(mean, abs=1e-4)
    assert metrics["after"] < metrics["before"]


def test_lora_with_new_tokens_trains_the_new_tokens(nano: Path, version: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from exporters.sft.base import load_base

    settings = dataclasses.replace(FAST, method="lora", format="tokens", learning_rate=5e-3, attribute_dropout=0.0)
    result = run(nano, version, tmp_path, settings)
    assert len(result.card["new_tokens"]) == 13
    fresh = load_base(nano, settings)
    before = fresh.model.get_input_embeddings().weight
    saved = {k: v for k, v in load_file(result.path / "adapter_model.safetensors").items() if "embed_tokens" in k}
    after = next(iter(saved.values()))
    assert after.shape == before.shape
    moved = [not torch.allclose(after[i], before[i]) for i in fresh.tokenizer.convert_tokens_to_ids(fresh.new_tokens)]
    assert sum(moved) >= 8  # every level that the data shows


def test_levels_that_no_dialogue_shows_lie_between_their_neighbours(
    nano: Path, tmp_path: Path, some: list[Dialogue]
) -> None:
    from safetensors.torch import load_file

    chosen = [dataclasses.replace(d, attribute=Attribute((0, 4)[i % 2], 2)) for i, d in enumerate(some[:6])]
    write_dialogues(tmp_path / "v" / "train.jsonl", chosen)
    settings = dataclasses.replace(FAST, format="tokens", attribute_dropout=0.0)
    result = run(nano, tmp_path / "v", tmp_path, settings)
    weights = load_file(result.path / "model.safetensors")["model.embed_tokens.weight"]
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    close, mood = (
        weights[tokenizer.convert_tokens_to_ids([f"<|{key}_{level}|>" for level in range(5)])]
        for key in ("closeness", "mood")
    )
    for level, share in ((1, 0.25), (2, 0.5), (3, 0.75)):
        assert torch.allclose(close[level], torch.lerp(close[0], close[4], share), atol=1e-6)
    assert torch.equal(mood[0], mood[2])
    assert not torch.equal(close[0], close[4])
    assert "<|closeness_1|>" in result.card["metrics"]["interpolated_levels"]
    assert "<|closeness_0|>" not in result.card["metrics"]["interpolated_levels"]


def test_packing_ends_in_the_same_weights_as_padding(
    checkpoint: Checkpoint, nano: Path, version: Path, tmp_path: Path
) -> None:
    packed = run(nano, version, tmp_path, dataclasses.replace(FAST, packing=True))
    a, b = (c.card["metrics"]["held_out_loss"]["after"] for c in (checkpoint, packed))
    assert a == pytest.approx(b, rel=1e-3)


def test_a_data_set_without_held_out_dialogues_trains_and_says_so(
    nano: Path, tmp_path: Path, some: list[Dialogue]
) -> None:
    write_dialogues(tmp_path / "v" / "train.jsonl", some[:5])
    result = run(nano, tmp_path / "v", tmp_path, dataclasses.replace(FAST, patience=3))
    assert result.card["metrics"]["held_out_loss"] == {"before": None, "after": None}
    assert "No dialogue was held out" in (result.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("count", "changes", "error", "words"),
    [
        (2, {}, SettingsError, "2 dialogue.* can not fill 3 stages"),
        (8, {"max_length": 80}, RecordError, "the limit is 80"),
        (8, {"batch_size": 3, "micro_batch": 2}, None, ""),
    ],
)
def test_data_that_does_not_fit_is_refused_before_training(
    nano: Path, tmp_path: Path, some: list[Dialogue], count: int, changes: dict, error: type | None, words: str
) -> None:
    write_dialogues(tmp_path / "v" / "train.jsonl", some[:count])
    settings = dataclasses.replace(FAST, **changes)
    if error is None:
        assert run(nano, tmp_path / "v", tmp_path, settings).card["resolved"]["micro_batch"] == 1
        return
    with pytest.raises(error, match=words):
        run(nano, tmp_path / "v", tmp_path, settings)
    assert not (tmp_path / "checkpoints").exists()


def test_a_folder_without_data_is_refused(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no train\.jsonl"):
        run(nano, tmp_path, tmp_path)


def test_a_disk_that_fills_up_while_training_is_one_sentence_and_nothing_is_registered(
    nano: Path, version: Path, tmp_path: Path
) -> None:
    # A limit on the size of files stands in for a full disk: writing fails in the same places.
    small = SCRIPT.replace(
        "import json, sys", "import json, resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    ).replace("checkpoint = train", "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\ncheckpoint = train")
    arguments = command(nano, version, tmp_path, FAST)[3:]
    done = subprocess.run([sys.executable, "-c", small, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the disk is full; free some space and run the same command again" in done.stderr
    assert not list((tmp_path / "checkpoints").glob("*/aku.json"))
    assert run(nano, version, tmp_path).card["metrics"]["steps"] == 6  # and it does go on


def test_a_disk_that_is_too_small_is_refused_before_training(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(FileError, match=r"training needs about .* GB of disk, .* GB are free"):
        check_disk(tmp_path / "runs", tmp_path / "checkpoints", free, "full")
    check_disk(tmp_path / "runs", tmp_path / "checkpoints", 1000, "full")
