"""Real SFT on two ranks of this machine."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from moaa.errors import TrainError
from moaa.progress import Progress
from moaa.store.bytes import sha256_of
from moaa.train import data
from moaa.train.checkpoint_files import holds_data_only, load_data_only
from moaa.train.job import Job
from moaa.train.tokens import Template
from tests.support.checkpoints import Command
from tests.support.trained import NUMBERS, changed, job, model_of, train
from tests.support.training import said

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
ROWS = [
    {
        "id": str(n),
        "messages": said(
            f"What comes after {n}?",
            f"After {n} comes {n + 1}.",
            "And then?",
            f"Then comes {n + 2}.",
        ),
    }
    for n in range(24)
]

LONG = {"id": "long", "messages": said("Why? " * 300, "Because.")}


@pytest.fixture(scope="module")
def losses():
    """Losses by step of the training that was not interrupted, for the one that was."""
    return {}


def test_held_out_rows_measure_sft_and_the_best_weights_are_kept(s3, small_model, tmp_path):
    """The learning rate is so high that the later weights are worse on rows that were not seen."""
    held = {"validation": 0.3, "keep": "best"}
    rows = [{**row, "messages": row["messages"][:2]} for row in ROWS]
    asked = job(s3, "sft", rows, small_model, "held-sft", {**held, "epochs": 3, "packing": False})
    result, _ = train(s3, asked)
    facts, found = result["facts"], result["facts"]["validation"]
    assert facts["rows"] + found["rows"] == len(rows)
    assert found["rows"] == sum(data.held_out(row, 0.3) for row in rows)
    steps = [point["step"] for point in found["curve"]]
    assert steps == [0, *range(facts["steps"] // 3, facts["steps"] + 1, facts["steps"] // 3)]
    losses = [point["loss"] for point in found["curve"]]
    assert min(losses[1:]) < losses[0]
    assert found["kept_step"] == steps[losses.index(min(losses))]
    # What is published are those weights: they have that loss.
    model, tokenizer = model_of(s3, asked, result, tmp_path / "model")
    template = Template.of(tokenizer, "m")
    own = [
        float(model(**_batch(*template.sequences(said(*texts(row)))[0][0])).loss.detach())
        for row in rows
        if data.held_out(row, 0.3)
    ]
    assert sum(own) / len(own) == pytest.approx(min(losses), rel=0.05)


def texts(row) -> list[str]:
    return [message["content"] for message in row["messages"]]


def _batch(ids, labels):
    import torch

    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}


def test_sft_changes_the_model_and_leaves_everything_an_engine_needs(
    s3, small_model, tmp_path, losses
):
    asked = job(s3, "sft", [*ROWS, LONG], small_model, numbers={"max_steps": 12})
    progress = Progress.silent("sft", "steps")
    result, _ = train(s3, asked, progress)
    facts = result["facts"]

    curve = facts["curve"]
    assert [point["step"] for point in curve] == list(range(1, 13))
    assert all(math.isfinite(point["loss"]) for point in curve)
    assert curve[-1]["loss"] < curve[0]["loss"] * 0.8
    losses.update({point["step"]: point["loss"] for point in curve})

    assert (facts["rows"], facts["dropped"], facts["world_size"]) == (24, {"too_long": 1}, 2)
    assert facts["sequences"] < 24, "conversations are packed"
    assert (progress.view().done, progress.view().total) == (12, 12)
    assert progress.view().gauges["loss"] == pytest.approx(curve[-1]["loss"])

    model, tokenizer = model_of(s3, asked, result, tmp_path)
    assert changed(model, small_model) > 0.1
    assert tokenizer.chat_template == Path(small_model, "chat_template.jinja").read_text()
    names = {file["name"] for file in result["files"]}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not any(name.endswith((".bin", ".pt", ".pth", ".md")) for name in names)
    before, after = (
        json.loads(Path(folder, "config.json").read_text()) for folder in (small_model, tmp_path)
    )
    assert {**after, "transformers_version": ""} == {**before, "transformers_version": ""}

    assert not list(s3.store.list(f"{asked.output}/checkpoints"))
    again = Progress.silent()
    assert train(s3, asked, again)[0] == result
    assert again.view().done == 0, "what is trained is not trained again"


@pytest.mark.parametrize("zero_stage", [3, 2])
def test_a_killed_training_goes_on_from_its_checkpoint_with_the_same_losses(
    s3, small_model, losses, zero_stage, tmp_path
):
    numbers = {"max_steps": 12, "zero_stage": zero_stage}
    asked = job(s3, "sft", [*ROWS, LONG], small_model, numbers=numbers, checkpoint_steps=2)
    failure = []

    def first_attempt():
        try:
            train(s3, asked)
        except TrainError as error:
            failure.append(str(error))

    attempt = threading.Thread(target=first_attempt)
    attempt.start()
    while not any(
        uri.endswith("/checkpoint-2/manifest.json")
        for uri, _ in s3.store.list(f"{asked.output}/checkpoints")
    ):
        assert attempt.is_alive(), failure
        time.sleep(0.05)
    assert kill_ranks() == 2
    attempt.join(60)
    assert "SIGKILL" in failure[0]

    trace = tmp_path / "it-ran"
    plant_checkpoint_that_runs_a_command(s3.store, asked, trace)
    result, ledger = train(s3, asked)
    facts = result["facts"]
    assert facts["resumed_from_step"] in range(2, 12, 2)
    assert ledger.events["trainings resumed from a checkpoint"] == 1
    assert facts["checkpoint_unusable"] == 1
    assert not trace.exists(), "who can write the bucket runs nothing here"
    if zero_stage == NUMBERS["zero_stage"]:
        assert {point["step"]: point["loss"] for point in facts["curve"]} == losses
    assert not list(s3.store.list(f"{asked.output}/checkpoints"))


def plant_checkpoint_that_runs_a_command(store, asked: Job, trace: Path) -> None:
    """Write a newer checkpoint of the same shape, as somebody with the bucket's keys could."""
    import torch

    prefix = f"{asked.output}/checkpoints"
    uris = [uri for uri, _ in store.list(prefix) if uri.endswith("/manifest.json")]
    manifest = json.loads(store.get(uris[0]))
    file = trace.with_suffix(".pt")
    torch.save({"module": Command(trace)}, file)
    name = "global_step99/zero_pp_rank_0_mp_rank_00_model_states.pt"
    listed = {"name": name, "size": file.stat().st_size, "sha256": sha256_of(file)}
    store.upload(file, f"{prefix}/planted/checkpoint-99/{name}")
    planted = {**manifest, "step": 99, "files": [listed]}
    store.put(f"{prefix}/planted/checkpoint-99/manifest.json", json.dumps(planted).encode())


def kill_ranks() -> int:
    """SIGKILL all ranks of this test's trainings, and nothing else. Returns how many there were."""
    ranks = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        ours = f"PYTEST_CURRENT_TEST={os.environ['PYTEST_CURRENT_TEST']}".encode() in environment
        if ours and b"moaa.train" in words and b"torch.distributed.run" not in words:
            ranks.append(int(folder.name))
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    return len(ranks)


def test_a_loss_that_is_no_number_ends_the_training_with_one_clear_error(s3, small_model):
    numbers = {"max_steps": 8, "learning_rate": 1e20, "warmup": 0, "max_grad_norm": 1e9}
    with pytest.raises(TrainError) as error:
        train(s3, job(s3, "sft", ROWS, small_model, numbers=numbers))
    assert "Lower sft.learning_rate (it is 1e+20)" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_data_without_a_usable_row_is_an_error_that_counts_the_reasons(s3, small_model):
    with pytest.raises(TrainError, match="all 3 were left out") as error:
        train(s3, job(s3, "sft", [LONG] * 3, small_model))
    assert "3 too_long" in str(error.value)


def test_a_checkpoint_of_an_older_python_can_be_loaded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11.2 pickles DeepSpeed's ZeRO stage as `getattr(ZeroStageEnum, name)`."""
    import torch
    from deepspeed.runtime.zero.config import ZeroStageEnum

    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")  # restored afterwards
    monkeypatch.setattr(
        ZeroStageEnum, "__reduce_ex__", lambda self, protocol: (getattr, (type(self), self.name))
    )
    load_data_only()
    torch.save({"zero_stage": ZeroStageEnum.gradients}, tmp_path / "optim_states.pt")
    assert holds_data_only(tmp_path)
