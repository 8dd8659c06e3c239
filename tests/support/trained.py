"""Trainings of a small model on two ranks, and the models that come of them."""

from __future__ import annotations

from moaa.artifacts import Artifact, Draft, File, Output
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe import schema
from moaa.recipe.schema import Launcher, Runtime
from moaa.train import launch
from moaa.train.job import Job, Launch

NUMBERS = {
    "learning_rate": 1e-3,
    "epochs": 4,
    "global_batch": 2,
    "max_length": 256,
    "zero_stage": 3,
    "gradient_checkpointing": True,
}


def job(s3, kind, rows, base, name="out", numbers=None, **more) -> Job:
    uri = f"{s3.root}/data-{kind}-{len(rows)}"
    with Output(s3.store, uri, "test") as out:
        for row in rows:
            out.write(row)
        out.commit(Draft(stage="test", name="test", fingerprint="f"))
    kinds: dict[str, type[schema.Training]] = {"sft": schema.Sft, "dpo": schema.Dpo}
    return Job(
        kind=kind,
        numbers=kinds[kind](**(NUMBERS | (numbers or {}))),
        base=base,
        data=uri,
        output=f"{s3.root}/{name}",
        store=schema.StoreAddress(root=s3.root),
        device="cpu",
        **{"max_rejected_share": 0.2, **more},
    )


def train(s3, job, progress=None) -> tuple[dict, Ledger]:
    ledger = Ledger()
    launched = Launch(job, Runtime(launcher=Launcher(ranks=2)), {})
    return launch.run(launched, s3.store, ledger, progress or Progress.silent()), ledger


def model_of(s3, job, result, folder):
    """The trained model, by way of the artifact that the stage would make of it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with Output(s3.store, job.output, "model") as out:
        out.adopt([File(**file) for file in result["files"]])
        out.commit(Draft(stage=job.kind, name="test", fingerprint="f", facts=result["facts"]))
    Artifact.open(s3.store, job.output).download(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto"
    ), AutoTokenizer.from_pretrained(folder)


def changed(model, base) -> float:
    """Share of the weights that differ from the base model's."""
    import torch
    from transformers import AutoModelForCausalLM

    before = dict(AutoModelForCausalLM.from_pretrained(base, dtype="auto").named_parameters())
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    different = sum(int((after[name] != before[name]).sum()) for name in before)
    assert all(
        weight.dtype == torch.bfloat16 and torch.isfinite(weight).all() for weight in after.values()
    )
    return different / sum(weight.numel() for weight in before.values())
