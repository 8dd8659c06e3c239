"""The recipe's fields about prompts: where they come from, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from moaa.recipe.document import Part


class Source(Part):
    """Where prompts come from. `source`: `hub:NAME`, a single file of it (`hub:OWNER/NAME/FILE`),
    an s3:// file or folder, all files of a kind below an address (`s3://…/*.jsonl.zst`), a JSONL,
    JSON, Parquet or CSV file, or `package:PATH`. The next run also reads files that were added
    below an address."""

    source: str
    name: str = ""
    config: str | None = None
    """The configuration of a hub data set that has several."""
    split: str = "train"
    revision: str | None = None
    """Commit, tag or branch of a hub data set. Default: main. A commit never changes."""
    field: str | None = None
    """Column with the prompt (text), the turns (list of texts) or the messages (list of role and
    content). Default: the first column with a usual name."""
    offset: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1)
    shuffle_seed: int | None = None
    """Shuffle the rows with this seed, before offset and limit."""
    turns: int | None = Field(None, ge=1)
    """Keep only this many user turns of a conversation, the first ones."""
    mask: bool | None = None
    """Replace e-mail addresses, telephone and card numbers, and keys; the replacements are counted.
    Default: only in `.jsonl.zst` files, in which a gateway writes its users' questions."""

    skip_trained: bool = False
    """Leave out prompts that the version in production was trained on, and near duplicates of them
    (`near_duplicate`). From a source that grows, a retraining then uses only new prompts. Needs
    `publish`. `offset` and `limit` count rows before that. Not for evaluation prompts."""

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields unless they are set, so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        for name in ("config", "revision", "mask"):
            if found.get(name) is None:
                found.pop(name, None)
        if not self.skip_trained:
            found.pop("skip_trained", None)
        return found

    @property
    def masks(self) -> bool:
        """Whether personal data in its rows are replaced."""
        return self.source.endswith(".zst") if self.mask is None else self.mask


class Prompts(Part):
    """Three sets of prompts. Prompts near to an evaluation prompt are removed from the other two
    sets, which may have prompts in common."""

    sft: tuple[Source, ...] = Field(min_length=1)
    preference: tuple[Source, ...] = ()
    """May be left out with `trainings: sft`."""
    evaluation: tuple[Source, ...] = Field(min_length=1)
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """Two prompts are near duplicates from this Jaccard similarity of word 5-grams on; 1 removes
    only exact duplicates."""
    decontaminate_ngram: int = Field(13, ge=3)
    """A prompt that shares this many words in a row with an evaluation prompt is removed."""
    max_characters: int = Field(60_000, ge=1)
    """Longer prompts (all turns together) are rejected."""

    def skipping_nothing(self, *, publishes: bool) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the address of each `skip_trained` that has no effect, and why."""
        for name in ("sft", "preference", "evaluation"):
            for index, source in enumerate(getattr(self, name)):
                where = ("prompts", name, index, "skip_trained")
                if source.skip_trained and name == "evaluation":
                    yield where, "evaluation prompts are never trained on: leave it out."
                elif source.skip_trained and not publishes:
                    yield where, "it compares with the published model: add `publish: {}`."
