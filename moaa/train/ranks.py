"""The ranks of a training: who am I, and the few things that all have to agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

WAIT_S = 7200
"""Longest that ranks wait for one: a leader that downloads a model and tokenises the data."""

CORES = "MOAA_TRAIN_CORES"
"""Environment variable: the cores that a node's ranks share out among them, separated by commas."""


class Elsewhere(Exception):
    """Another rank failed, and says why itself."""


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks. A node's first rank is its leader: it prepares the files that
    all on the node read."""

    rank: int
    world: int
    local_rank: int
    local_world: int

    @classmethod
    def of_environment(cls) -> Ranks:
        """As torchrun sets it; a process without torchrun is the only rank."""
        env = os.environ
        return cls(
            *(
                int(env.get(n, d))
                for n, d in (
                    ("RANK", 0),
                    ("WORLD_SIZE", 1),
                    ("LOCAL_RANK", 0),
                    ("LOCAL_WORLD_SIZE", 1),
                )
            )
        )

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def leader(self) -> bool:
        return self.local_rank == 0

    def gather(self, value: T) -> list[T]:
        """Everyone's value, on every rank, in the order of ranks."""
        if self.world == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def largest(self, values: Sequence[int]) -> list[int]:
        """For each position the largest value that any rank gave."""
        return [max(position) for position in zip(*self.gather(list(values)), strict=True)]

    def wait(self) -> None:
        self.gather(None)

    def on_leaders(self, work: Callable[[], T]) -> T:
        """What `work` returned on this node's leader, for all ranks of the node; a failure ends the
        training on all nodes."""
        return self._on(self.leader, self.rank - self.local_rank, work)

    def on_first(self, work: Callable[[], T]) -> T:
        """What `work` returned on rank 0, for all ranks."""
        return self._on(self.first, 0, work)

    def _on(self, mine: bool, source: int, work: Callable[[], T]) -> T:
        result: Any = None
        failure: Exception | None = None
        if mine:
            try:
                result = work()
            except Exception as error:
                failure = error
        answers = self.gather((result, failure is not None))
        if failure is not None:
            raise failure
        if any(failed for _, failed in answers):
            raise Elsewhere
        return answers[source][0]
