"""TRL's trainers, with our differences: data comes as token ids, weights are saved once, and every
step is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from moaa.recipe.schema import Dpo
from moaa.train import attention, data
from moaa.train.checkpoints import Checkpoints
from moaa.train.deepspeed import Batch, config
from moaa.train.job import Job
from moaa.train.protocol import PROGRESS, send
from moaa.train.ranks import WAIT_S
from moaa.train.steps import Steps
from moaa.train.validation import Validation

TOKENS_MULTIPLE: Final = 64
"""On a GPU a forward pass, or a row, has a multiple of this many tokens. For each new number of
tokens cuBLAS chooses its kernels again, on the CPU: 0.3 ms for each product of matrices, while the
GPU waits (an H200, 1 B weights: a fifth of the step)."""


class _Ours:
    """Code of both trainers; it comes before TRL's class in their bases."""

    model: Any

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # A checkpoint's weights are in DeepSpeed's state: a second copy of an 8B model would be 16
        # GB more to upload.
        if not _internal_call:
            super().save_model(output_dir)  # type: ignore[misc]

    def _save(
        self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None
    ) -> None:
        """Save the weights in bfloat16, which engines serve,
        in whatever precision they were trained."""
        import torch

        assert state_dict is not None
        # A weight with two names is copied once: tied embeddings stay tied.
        cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
        for weight in state_dict.values():
            half = weight.to(torch.bfloat16) if weight.is_floating_point() else weight
            cast.setdefault((weight.data_ptr(), weight.shape), half)
        saved = {name: cast[w.data_ptr(), w.shape] for name, w in state_dict.items()}
        self.model.generation_config = _accepted(self.model.generation_config)
        super()._save(output_dir, saved)  # type: ignore[misc]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Skip TRL's model card: it may ask the hub about the base model."""


def _accepted(settings: Any) -> Any:
    """Return the generation settings if transformers saves them, else their special tokens alone.

    It refuses to save, for example, a temperature without `do_sample`, which some public models
    have. `publish.complete` takes the settings from the base model in any case.
    """
    from transformers import GenerationConfig

    try:
        settings.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        return GenerationConfig(**{name: getattr(settings, name) for name in names})
    return settings


class SftTrainer(_Ours, SFTTrainer):
    """SFT on {input_ids, labels}, and `seq_lengths` if the data is packed."""


class DpoTrainer(_Ours, DPOTrainer):
    """DPO on {prompt_ids, chosen_ids, rejected_ids};
    reports the progress of the reference's log-probabilities."""

    _seen = _total = 0

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Return the data set with the reference's log-probabilities, gathered on every rank.

        TRL passes them in a file on rank 0's disk, which ranks on other nodes cannot see.
        """
        from datasets import Dataset, Features, Value, concatenate_datasets
        from torch.utils.data import DataLoader
        from trl.models.utils import prepare_deepspeed

        self._seen, self._total = 0, len(dataset)
        batches = self.accelerator.prepare(
            DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)
        )
        model: Any = self.model
        # One engine for all data sets: a second one would put its hooks on the same model.
        if self._precompute_engine is None:
            self._precompute_engine = prepare_deepspeed(model, self.accelerator)
        found: dict[str, list[float]] = {"ref_chosen_logps": [], "ref_rejected_logps": []}
        for batch in batches:
            chosen, rejected = self.accelerator.gather_for_metrics(
                self.compute_ref_log_probs(self._precompute_engine, batch)
            )
            found["ref_chosen_logps"] += chosen.tolist()
            found["ref_rejected_logps"] += rejected.tolist()
        columns = Dataset.from_dict(
            found, features=Features(dict.fromkeys(found, Value("float32")))
        )
        return concatenate_datasets([dataset, columns], axis=1)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """Return TRL's log-probabilities, and report the progress."""
        if self.accelerator.is_main_process:
            at_once = self.args.per_device_train_batch_size * self.args.world_size
            pairs = min(self._seen * at_once, self._total)
            send(PROGRESS, note=f"reference log-probabilities: {pairs} of {self._total} pairs")
        self._seen += 1
        compute: Any = super().compute_ref_log_probs
        return compute(model, inputs)


def arguments(job: Job, size: Batch, device: str, precision: str) -> SFTConfig | DPOConfig:
    """Return the trainer's arguments. This starts DeepSpeed and the process group."""
    numbers = job.numbers
    common: dict[str, Any] = {
        "per_device_train_batch_size": size.micro,
        "gradient_accumulation_steps": size.accumulation,
        "learning_rate": numbers.learning_rate,
        "num_train_epochs": numbers.epochs,
        "max_steps": numbers.max_steps or -1,
        "lr_scheduler_type": numbers.scheduler,
        "warmup_steps": numbers.warmup,  # below 1: a fraction of all steps
        "weight_decay": numbers.weight_decay,
        "max_grad_norm": numbers.max_grad_norm,
        "gradient_checkpointing": numbers.gradient_checkpointing,
        "seed": numbers.seed,
        "bf16": precision == "bfloat16",
        "use_cpu": device == "cpu",
        "deepspeed": config(numbers, size, device, precision),
        "ddp_timeout": WAIT_S,
        "max_length": numbers.max_length,  # `data` has left out longer rows
        "pad_to_multiple_of": TOKENS_MULTIPLE if device == "cuda" else None,
        "logging_steps": 1,
        # The filter would replace a NaN by the average of the losses before it.
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # `Steps` decides
        "disable_tqdm": True,
        "report_to": [],
    }
    if numbers.validation:
        common |= {
            "eval_strategy": "epoch",
            "per_device_eval_batch_size": size.micro,
            "prediction_loss_only": True,  # otherwise it gathers the logits of all rows
        }
    if isinstance(numbers, Dpo):
        return DPOConfig(**common, beta=numbers.beta, precompute_ref_log_probs=True)
    prepared = {"skip_prepare_dataset": True}
    return SFTConfig(**common, packing=numbers.packing, dataset_kwargs=prepared)


def loading(model: str, revision: str | None, precision: str, device: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for `model`."""
    from transformers import AutoConfig

    of_base: dict[str, Any] = {"revision": revision} if revision else {}
    config = AutoConfig.from_pretrained(model, **of_base).get_text_config()
    chosen = attention.implementation(config, device)
    return {
        "dtype": precision,
        **of_base,
        **({"attn_implementation": chosen} if chosen else {}),
    }


def trainer(
    job: Job,
    arguments: SFTConfig | DPOConfig,
    model: str,
    dataset: Any,
    checkpoints: Checkpoints,
    validation: Validation | None = None,
) -> SftTrainer | DpoTrainer:
    """Return the trainer with its model loaded.

    For DPO this computes the reference's log-probabilities, with the same model.
    """
    from transformers import AutoTokenizer

    kind: Any = DpoTrainer if isinstance(job.numbers, Dpo) else SftTrainer
    of_base = {"revision": job.revision} if job.revision else {}
    attention.register(packed=isinstance(arguments, SFTConfig) and arguments.packing)
    arguments.model_init_kwargs = loading(
        model,
        job.revision,
        str(checkpoints.shape["precision"]),
        "cpu" if arguments.use_cpu else "cuda",
    )
    if (
        checkpoints.ranks.first
        and arguments.model_init_kwargs.get("attn_implementation") == "eager"
    ):
        send(PROGRESS, note="eager attention: only it caps the scores, as this model needs")
    # Its own tokenizer: TRL adds a padding token to it.
    tokenizer = AutoTokenizer.from_pretrained(model, **of_base)
    steps = Steps(job, checkpoints, validation)
    made: SftTrainer | DpoTrainer = kind(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=data.read(validation.held.path) if validation else None,
        processing_class=tokenizer,
        callbacks=[steps],
    )
    if validation:
        validation.save = made.save_model
    return made
