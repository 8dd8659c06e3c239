"""One training as each of its ranks runs it: data, model, steps, result."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from moaa.artifacts import Artifact
from moaa.errors import TrainError
from moaa.recipe.schema import Dpo
from moaa.store import Store
from moaa.train import data, deepspeed, disk
from moaa.train.best import Best
from moaa.train.checkpoint_files import load_data_only
from moaa.train.checkpoints import Checkpoints
from moaa.train.job import Job
from moaa.train.protocol import PROGRESS, send
from moaa.train.publish import Finished, complete, publish, tidy
from moaa.train.ranks import WAIT_S, Ranks
from moaa.train.tokens import Template
from moaa.train.validation import Validation
from moaa.weights import local


def train(job: Job, ranks: Ranks) -> None:
    """Train, and write the model and `result.json` below `job.output`.

    `result.json` lists the model's files, and facts for the report.
    """
    size = deepspeed.batch(job.kind, job.numbers, ranks.world)
    note(ranks, "loading torch, TRL and DeepSpeed")
    device, precision = prepare_libraries(job.device)
    from moaa.train import steps, trainers

    arguments = trainers.arguments(job, size, device, precision)
    store = Store.of(job.store, reached=not ranks.leader)
    scratch = Path(ranks.on_leaders(lambda: tempfile.mkdtemp(prefix="moaa-train-")))
    with _scratch(scratch, ranks), disk.named(scratch, local.cache()):
        if ranks.on_first(lambda: finished_before(job, store)):
            return
        note(ranks, "reading model and data")
        model, prepared, held = ranks.on_leaders(lambda: fetch(job, store, scratch))
        deepspeed.check_rows(job.kind, prepared.sequences, what(job), size)
        shape = {
            "world_size": ranks.world,
            "zero_stage": job.numbers.zero_stage,
            "precision": precision,
        }
        checkpoints = Checkpoints(
            store, job.output, ranks, scratch, shape, job.checkpoint_minutes, job.checkpoint_steps
        )
        note(ranks, "loading the model")
        arguments.output_dir = str(scratch)
        kept = Best(store, job.output)
        validation = Validation(job, held, ranks, scratch, kept=kept) if held else None
        trainer = trainers.trainer(
            job, arguments, model, data.read(prepared.path), checkpoints, validation
        )
        found = checkpoints.restore()
        if found and validation:
            validation.restore()
        # The measurement before the first step is in the checkpoint.
        trainer.args.eval_on_start = bool(held) and found is None
        note(ranks, "first step")
        trainer.train(resume_from_checkpoint=str(found.path) if found else None)
        checkpoints.finish()
        note(ranks, "saving the model")
        finished = ranks.on_first(lambda: Finished.new(job))
        best = validation.best_model() if validation else None
        if best is None:
            trainer.save_model(str(finished.model))
        elif ranks.first:
            shutil.copytree(best, finished.model)
        facts = {
            **steps.curve(trainer),
            **prepared.facts(),
            "seconds": round(checkpoints.seconds, 3),
            **shape,
            "device": device,
            "checkpoints_failed": checkpoints.failed,
            "resumed_from_step": found.step if found else None,
            "checkpoint_unusable": checkpoints.unusable,
            **(validation.facts(trainer.state.log_history) if validation else {}),
        }
        ranks.on_first(lambda: finish(job, store, finished, model, prepared.end_of_turn, facts))


@contextmanager
def _scratch(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Delete the folder at the end, also after an error."""
    try:
        yield
    finally:
        if ranks.leader:
            shutil.rmtree(folder, ignore_errors=True)


def prepare_libraries(device: str) -> tuple[str, str]:
    """Prepare torch and DeepSpeed; return the device (`cuda` or `cpu`) and the precision
    (`bfloat16` or `float32`)."""
    if device == "cpu":
        # Otherwise transformers and DeepSpeed put the model on an existing GPU, but not the data.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    load_data_only()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise TrainError(
            "runtime.launcher.device is cuda, but torch sees no GPU here. Set it to cpu, or run on "
            "a machine with GPUs."
        )
    precision = "bfloat16"
    if device == "cpu":
        # A CPU without AVX-512 multiplies bfloat16 one number at a time: 30 times slower.
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            precision = "float32"
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed as ds

        # This op is only for tensor-parallel inference; ZeRO's collectives never call it. Without
        # it no machine needs a C++ compiler and Python.h, nor 20-40 s to build it at the first run.
        ds.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # ZeRO-3 shards a model while it loads; on CPUs transformers starts torch's process group
        # only after that.
        ds.init_distributed("gloo", timeout=timedelta(seconds=WAIT_S))
    return device, precision


def fetch(job: Job, store: Store, scratch: Path) -> tuple[str, data.Prepared, data.Prepared | None]:
    """Return the base model's path (or hub id), and the data as token ids on this node's disk: the
    training data, and the held-out data, if any."""
    from transformers import AutoConfig, AutoTokenizer

    model = local.resolve(job.base, store, job.revision)
    of_base: dict[str, Any] = {"revision": job.revision} if job.revision else {}
    tokenizer = AutoTokenizer.from_pretrained(model, **of_base)
    context = getattr(AutoConfig.from_pretrained(model, **of_base), "max_position_embeddings", None)
    limit = min(job.numbers.max_length, context or job.numbers.max_length)
    template = Template.of(tokenizer, job.base, job.chat_template, job.template_variables)
    share = job.numbers.validation

    def part(name: str, held: bool) -> data.Prepared:
        rows = Artifact.open(store, job.data).rows()
        mine = (row for row in rows if data.held_out(row, share) == held) if share else rows
        return data.prepare(job, mine, template, limit, scratch, name)

    prepared = part("data", False)
    prepared.end_of_turn = template.rendering.end
    prepared.system_role = template.rendering.knows_system
    held = part("validation", True) if share else None
    data.check_left_out(job, (prepared, held) if held else (prepared,), limit)
    return model, prepared, held


def finished_before(job: Job, store: Store) -> bool:
    """Return whether an earlier attempt has trained the model: its result is there, or it was
    trained on this machine and could not be uploaded, which is done now."""
    found = Finished.find(job)
    if store.exists(job.result):
        send(PROGRESS, note="the model was trained by an earlier attempt")
        if found:
            found.delete()
        return True
    if found is None:
        return False
    send(PROGRESS, note="the model was trained by an earlier attempt: uploading it")
    publish(job, store, found)
    return True


def finish(
    job: Job, store: Store, finished: Finished, base: str, end: str, facts: dict[str, Any]
) -> None:
    """Complete the model on this node's disk, and upload it; then no checkpoint is needed."""
    complete(finished.model, job, base, end)
    finished.keep(facts)
    publish(job, store, finished)
    for done in (f"{job.output}/checkpoints", f"{job.output}/best"):
        tidy(done, partial(store.delete_prefix, done))


def what(job: Job) -> str:
    """Return in words what a batch of this training contains."""
    if isinstance(job.numbers, Dpo):
        return "pairs"
    if job.numbers.packing:
        return f"packed sequences of up to {job.numbers.max_length} tokens"
    return "conversations"


def note(ranks: Ranks, text: str) -> None:
    """Show a note as the progress, from rank 0 only."""
    if ranks.first:
        send(PROGRESS, note=text)
