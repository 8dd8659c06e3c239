"""The ranks of a training: which one this process is, and how all of them agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")

WAIT_S: Final = 7200
"""How long ranks wait for the one that downloads a model and tokenises the data."""

CORES: Final = "MOAA_TRAIN_CORES"
"""The variable with the cores that the ranks of a node share, separated by commas."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
"""Variables for every rank: its output comes line by line, without progress bars."""


class FailedOnAnotherRank(Exception):
    """Another rank failed, and reports the reason itself."""


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks.

    The first rank of a node is its leader: it prepares the files that all ranks of the node read.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int

    @classmethod
    def of_environment(cls) -> Ranks:
        """Read the variables that torchrun sets; without torchrun this process is the only rank."""
        env = os.environ
        return cls(
            rank=int(env.get("RANK", 0)),
            world=int(env.get("WORLD_SIZE", 1)),
            local_rank=int(env.get("LOCAL_RANK", 0)),
            local_world=int(env.get("LOCAL_WORLD_SIZE", 1)),
        )

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def leader(self) -> bool:
        """Whether this is the first rank of its node."""
        return self.local_rank == 0

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of the ranks, on every rank."""
        if self.world == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def largest(self, values: Sequence[int]) -> list[int]:
        """Return, for each position, the largest value of all ranks."""
        return [max(position) for position in zip(*self.gather(list(values)), strict=True)]

    def wait(self) -> None:
        """Wait until every rank has reached this call."""
        self.gather(None)

    def on_leaders(self, do: Callable[[], T]) -> T:
        """Call `do` on the leader of each node; return its result on all ranks of that node.

        A failure stops the training on all nodes.
        """
        return self._on(self.leader, self.rank - self.local_rank, do)

    def on_first(self, do: Callable[[], T]) -> T:
        """Call `do` on rank 0; return its result on all ranks."""
        return self._on(self.first, 0, do)

    def _on(self, mine: bool, source: int, do: Callable[[], T]) -> T:
        result: Any = None
        failure: Exception | None = None
        if mine:
            try:
                result = do()
            except Exception as error:
                failure = error
        answers = self.gather((result, failure is not None))
        if failure is not None:
            raise failure
        if any(failed for _, failed in answers):
            raise FailedOnAnotherRank
        found: T = answers[source][0]
        return found
