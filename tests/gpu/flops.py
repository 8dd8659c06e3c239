"""How much of a GPU's arithmetic a training uses (MFU). Pure arithmetic."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.gpu.shapes import Shape

PEAK_TFLOPS = {
    "GB200": 2500,
    "B200": 2250,
    "H200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 4090": 165,
}
"""Dense bfloat16 of one GPU, from NVIDIA's data sheets. The first name that is part of the GPU's
name counts."""


def training_flops(shape: Shape, lengths: Sequence[int]) -> float:
    """Model FLOPs of one training pass, forward and backward, over sequences of these lengths.

    For each token 6 N + 12 L H Q T (Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with
    Pathways", Appendix B): N weights that multiply (with tied embeddings all weights, since the
    head multiplies by the embedding), L layers, H heads of Q dimensions, T tokens of the sequence.
    Like the paper this counts attention as if no token were masked. What gradient checkpointing
    computes a second time does not count. Packed conversations do not see each other, so `lengths`
    are those of the conversations.
    """
    attention = 12 * shape.layers * shape.heads * shape.head
    return float(sum(6 * shape.parameters * t + attention * t * t for t in lengths))


def flops_per_token(shape: Shape, lengths: Sequence[int]) -> float:
    """Model FLOPs of one training pass for the average token of these sequences."""
    return training_flops(shape, lengths) / sum(lengths)


def peak_tflops(gpu: str) -> float | None:
    """Peak of the named GPU in TFLOP/s: MOAA_GPU_PEAK_TFLOPS if set, else from the table. None if
    neither knows it."""
    if given := os.environ.get("MOAA_GPU_PEAK_TFLOPS"):
        return float(given)
    return next((float(peak) for name, peak in PEAK_TFLOPS.items() if name in gpu), None)


def mfu(flops_per_s: float, gpu: str, gpus: int = 1) -> float | None:
    """Share of the GPUs' peak that `flops_per_s` model FLOPs each second are. None if the peak is
    not known."""
    peak = peak_tflops(gpu)
    return None if peak is None else flops_per_s / (gpus * peak * 1e12)
