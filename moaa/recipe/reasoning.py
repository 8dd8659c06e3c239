"""The recipe's fields about benchmarks of reasoning, whose answers a program marks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moaa.recipe.document import Part
from moaa.recipe.prompts import Source


class Questions(Part):
    """A benchmark with published questions."""

    data: tuple[Source, ...] = ()
    """Its questions and their companions: files, s3:// addresses or hub data sets with the
    published content. Default: the published ones."""
    limit: int | None = Field(None, ge=1)
    """Use only this many questions, evenly chosen, and always the same ones. The result cannot then
    be compared with published ones."""


class Reasoning(Questions):
    """A benchmark whose answers a program marks as right or wrong. Needs `moaa[evaluate]`."""

    max_tokens: int = Field(2048, ge=2048)
    """An answer is cut here. A chain of thought that is cut counts as wrong, so with fewer tokens
    the benchmark would measure length."""


class Gsm8k(Reasoning):
    """GSM8K: 1,319 problems of school mathematics, asked without examples, by chain of thought."""

    task: Literal["gsm8k_cot_zeroshot", "gsm8k_cot", "gsm8k_cot_llama"] = "gsm8k_cot_zeroshot"
    """A task of lm-eval on the same data: its prompt, examples and filters."""


class Ifeval(Reasoning):
    """IFEval: 541 prompts with instructions that a program can check."""


class Ifbench(Reasoning):
    """IFBench: prompts with instructions of kinds that models were not trained on."""


class MmluPro(Reasoning):
    """MMLU-Pro: questions of 14 subjects with ten choices."""

    limit: int | None = Field(2000, ge=1)
    """Use only this many questions, always the same ones, each subject by its share.
    null: all 12,032."""
    examples: int = Field(5, ge=0, le=5)
    """How many solved examples of its subject come before each question, from rows of the data with
    `cot_content` (the hub's validation split)."""


class HumanEval(Reasoning):
    """HumanEval: 164 functions of Python, run against their tests. Only on Kubernetes, in a pod
    without network, token or writable folder (platform chart: `sandbox.enabled`)."""
