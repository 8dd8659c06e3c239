"""One training as each of its ranks runs it: data, model, steps, result."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from moaa.artifacts import Artifact
from moaa.errors import TrainError
from moaa.recipe.schema import Dpo
from moaa.store import Store
from moaa.train import data, deepspeed
from moaa.train.checkpoints import Checkpoints, Listed, upload
from moaa.train.job import Job
from moaa.train.protocol import PROGRESS, send
from moaa.train.ranks import WAIT_S, Ranks
from moaa.train.tokens import Template
from moaa.weights import local


def train(job: Job, ranks: Ranks) -> None:
    """Train, and write the model and `result.json` below `job.output`.

    `result.json` lists the model's files, and facts for the report.
    """
    size = deepspeed.batch(job.kind, job.numbers, ranks.world)
    note(ranks, "loading torch, TRL and DeepSpeed")
    device, precision = prepare_libraries(job.device)
    from moaa.train import trainers

    arguments = trainers.arguments(job, size, device, precision)
    store = Store.of(job.store, reached=not ranks.leader)
    scratch = Path(ranks.on_leaders(lambda: tempfile.mkdtemp(prefix="moaa-train-")))
    try:
        note(ranks, "reading model and data")
        model, prepared = ranks.on_leaders(lambda: fetch(job, store, scratch))
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
        trainer = trainers.trainer(job, arguments, model, data.read(prepared.path), checkpoints)
        found = checkpoints.restore()
        note(ranks, "first step")
        trainer.train(resume_from_checkpoint=found["path"] if found else None)
        checkpoints.finish()
        note(ranks, "saving the model")
        trainer.save_model(str(scratch / "model"))
        facts = {
            **trainers.curve(trainer),
            "rows": prepared.rows,
            "dropped": dict(prepared.dropped),
            "sequences": prepared.sequences,
            "data_tokens": prepared.tokens,
            "merged_system": prepared.merged_system,
            "seconds": round(checkpoints.seconds, 3),
            **shape,
            "device": device,
            "checkpoints_failed": checkpoints.failed,
            "resumed_from_step": found["step"] if found else None,
            "checkpoint_unusable": checkpoints.unusable,
        }
        ranks.on_first(lambda: publish(job, store, model, scratch / "model", facts))
        ranks.on_first(checkpoints.delete)
    finally:
        if ranks.leader:
            shutil.rmtree(scratch, ignore_errors=True)


def prepare_libraries(device: str) -> tuple[str, str]:
    """Prepare torch and DeepSpeed; return the device (`cuda` or `cpu`) and the precision
    (`bfloat16` or `float32`)."""
    import torch

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

        # This op serves tensor-parallel inference only; ZeRO's collectives never call it. Without
        # it no machine needs a C++ compiler and Python.h, nor 20-40 s to build it at the first run.
        ds.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # ZeRO-3 shards a model while it loads; on CPUs transformers starts torch's process group
        # only after that.
        ds.init_distributed("gloo", timeout=timedelta(seconds=WAIT_S))
    return device, precision


def fetch(job: Job, store: Store, scratch: Path) -> tuple[str, data.Prepared]:
    """Return the base model's path (or hub id), and the data as token ids on this node's disk."""
    from transformers import AutoConfig, AutoTokenizer

    model = local.resolve(job.base, store, job.revision)
    of_base: dict[str, Any] = {"revision": job.revision} if job.revision else {}
    tokenizer = AutoTokenizer.from_pretrained(model, **of_base)
    context = getattr(AutoConfig.from_pretrained(model, **of_base), "max_position_embeddings", None)
    limit = min(job.numbers.max_length, context or job.numbers.max_length)
    rows = Artifact.open(store, job.data).rows()
    return model, data.prepare(job, rows, Template.of(tokenizer, job.base), limit, scratch)


def publish(job: Job, store: Store, base: str, folder: Path, facts: dict[str, Any]) -> None:
    """Upload the model, then `result.json`.

    If another attempt was faster, its result stays and this one is deleted.
    """
    complete(folder, base, job.revision)
    attempt = f"model-{secrets.token_hex(4)}"

    def put(path: Path) -> Listed:
        name = str(path.relative_to(folder))
        return {**upload(store, path, name, f"{job.output}/{attempt}"), "key": f"{attempt}/{name}"}

    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "training_args.bin")
    with ThreadPoolExecutor(4, "moaa-upload") as pool:
        files = list(pool.map(put, paths))
    result = {"schema_version": 1, "files": files, "facts": facts}
    if not store.put_new(job.result, json.dumps(result).encode()):
        store.delete_prefix(f"{job.output}/{attempt}")


def complete(folder: Path, base: str, revision: str | None) -> None:
    """Add the base model's tokenizer, chat template and generation settings to the weights."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    of_base: dict[str, Any] = {"revision": revision} if revision else {}
    AutoTokenizer.from_pretrained(base, **of_base).save_pretrained(folder)
    # A base model without generation settings: those written with the weights stay.
    with contextlib.suppress(OSError):
        GenerationConfig.from_pretrained(base, **of_base).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # The trainer has turned the cache off.
    use_cache = getattr(AutoConfig.from_pretrained(base, **of_base), "use_cache", True)
    (folder / "config.json").write_text(
        json.dumps({**config, "dtype": "bfloat16", "use_cache": use_cache}, indent=2)
    )


def what(job: Job) -> str:
    """Return what a batch of this training contains, in words."""
    if isinstance(job.numbers, Dpo):
        return "pairs"
    if job.numbers.packing:
        return f"packed sequences of up to {job.numbers.max_length} tokens"
    return "conversations"


def note(ranks: Ranks, text: str) -> None:
    if ranks.first:
        send(PROGRESS, note=text)
