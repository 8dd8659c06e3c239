"""ArmoRM's published checkpoint in two parts: a body that engines serve, and its heads.

split(Path("ArmoRM-Llama3-8B-v0.1"), Path("armorm-body"))
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from moaa.errors import RecipeError
from moaa.recipe.schema import Model
from moaa.store import Missing, Store
from moaa.weights import hub, local
from moaa.weights.revisions import commit

HEADS: Final = "armorm_heads.npz"
"""The file with the heads, in the folder of the body."""
_OF_HEADS: Final = ("regression_layer.", "gating.", "reward_transform_matrix")
_NOT_OF_A_BODY: Final = ("auto_map", "id2label", "label2id", "num_labels")
_TEXTS: Final = (".json", ".jinja", ".model", ".txt")


def heads_of(model: Model, store: Store) -> bytes:
    """Return the file of the heads next to the body. Raises RecipeError if there is none."""
    source = model.source.rstrip("/")
    try:
        if source.startswith("s3://"):
            return store.get(f"{source}/{HEADS}")
        if local.is_hub_id(source):
            folder = hub.download_files(source, commit(source, model.revision, "model"), (HEADS,))
            return (folder / HEADS).read_bytes()
        return (Path(source).expanduser() / HEADS).read_bytes()
    except (Missing, FileNotFoundError):
        raise RecipeError(
            f"{source} has no {HEADS}, which the labeller 'armorm' needs. Make the folder from "
            "the published model: moaa split-armorm FOLDER OUT."
        ) from None


def split(published: Path, out: Path) -> None:
    """Write the body of a published ArmoRM, as a Llama that engines support, and its heads to
    `out`.

    Needs torch and safetensors. Raises RecipeError if `published` is not a folder of ArmoRM.
    """
    shards = sorted(published.glob("*.safetensors"))
    if not shards or not (published / "config.json").is_file():
        raise RecipeError(
            f"{published} has no config.json with *.safetensors. Give the folder of the "
            "published model (a download of RLHFlow/ArmoRM-Llama3-8B-v0.1)."
        )
    import numpy as np
    from safetensors.torch import save_file

    config: dict[str, Any] = json.loads((published / "config.json").read_text(encoding="utf-8"))
    heads = {"temperature": np.array(float(config.get("gating_temperature", 10)))}
    out.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    for shard in shards:
        body = {}
        for name, tensor in _tensors(shard):
            if name.startswith(_OF_HEADS):
                heads[name] = tensor.float().numpy()
            elif name.startswith("model."):
                body[name] = tensor
        if body:
            save_file(body, out / shard.name, metadata={"format": "pt"})
            index |= dict.fromkeys(body, shard.name)
    if not {"regression_layer.weight", "gating.logit_scale"} <= set(heads):
        raise RecipeError(f"{published} has no heads of ArmoRM: regression_layer and gating.")
    with (out / HEADS).open("wb") as file:
        np.savez(file, **heads)  # type: ignore[arg-type]
    for path in published.iterdir():
        copied = path.suffix in _TEXTS and not path.name.endswith(".index.json")
        if path.is_file() and copied and path.name != "config.json":
            shutil.copy(path, out / path.name)
    _write(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    for name in _NOT_OF_A_BODY:
        config.pop(name, None)
    _write(out / "config.json", config | {"architectures": ["LlamaForCausalLM"]})


def _tensors(shard: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no dict
            yield name, file.get_tensor(name)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
