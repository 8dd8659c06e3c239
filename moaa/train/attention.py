"""The attention with which a model is trained.

Torch has flash attention for sequences of any lengths. transformers' default (sdpa) cannot use it
for packed or padded conversations: it passes a mask of tokens x tokens. A kernel that gets a mask
computes every pair of tokens, also between different conversations. So on GPUs models are trained
with `varlen`, which passes the lengths of the conversations instead of a mask.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from moaa.errors import TrainError

if TYPE_CHECKING:
    from torch import Tensor

VARLEN: Final = "moaa_varlen"
_LARGEST_HEAD: Final = 256
"""Flash attention's limit for the dimensions of one head."""


def implementation(config: Any, device: str) -> str | None:
    """Return transformers' name of the attention for a model of this (text) config. None:
    transformers' default.

    If the model caps attention scores (Gemma 2), only eager attention caps them as engines do: any
    other would train another function than the one that is served. Eager is slower; it also keeps
    packed conversations apart.
    """
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "eager"
    return VARLEN if device == "cuda" and _fits_varlen(config) else None


def _fits_varlen(config: Any) -> bool:
    """Return whether the model's attention is only queries, keys, values, a scale and a window.

    Models that transformers supports for both sdpa and flash attention have this: no attention
    sinks, no chunks, no bias.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in known:
        return False
    model = known[type(config)]
    if not (model._supports_sdpa and model._supports_flash_attn):
        return False
    heads: int | None = getattr(config, "num_attention_heads", None)
    head = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)
    return (
        head is not None
        and head <= _LARGEST_HEAD
        and getattr(config, "v_head_dim", head) == head
        and not getattr(config, "attention_dropout", 0.0)
    )


def register(*, packed: bool) -> None:
    """Register `VARLEN` with transformers. It gets no mask: none is registered for its name.

    `packed`: conversations share rows, so a row without their lengths is an error.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, partial(varlen, packed=packed))


def varlen(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    packed: bool,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return causal attention of [batch, heads, tokens, dimensions] as [batch, tokens, heads, …].

    Packed conversations come in a batch of one, with `cu_seq_lens_q` and `max_length_q` from TRL.
    In a batch of rows padding is at the end, where no token of a text sees it.
    """
    import torch
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, tokens, head = query.shape
    bounds, longest = more.get("cu_seq_lens_q"), more.get("max_length_q")
    if bounds is None or longest is None:
        if packed:
            raise TrainError(
                "The lengths of the packed conversations did not reach the attention: they would "
                "see each other. This model's code does not pass them on; set sft.packing to false."
            )
        bounds = torch.arange(
            0, (batch + 1) * tokens, tokens, dtype=torch.int32, device=query.device
        )
        longest = tokens
    window: int | None = more.get("sliding_window")
    attend: Any = varlen_attn  # its arguments differ between versions of torch
    # Torch 2.11 accepts fewer heads of keys than of queries without an extra argument.
    grouped = "enable_gqa" in inspect.signature(attend).parameters
    found: Tensor = attend(
        *(x.transpose(1, 2).reshape(batch * tokens, x.shape[1], head) for x in (query, key, value)),
        bounds,
        bounds,
        int(longest),
        int(longest),
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        **({"enable_gqa": True} if grouped else {}),
    )
    return found.reshape(batch, tokens, heads, head), None
