"""The recipe's fields for trackers of experiments: `runtime.trackers`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from moaa.recipe.document import Part
from moaa.recipe.urls import may_carry_key, problem_of

WANDB = "https://api.wandb.ai"


class Tracker(Part):
    """A place that shows runs side by side. A training writes its steps there as they come, each
    stage its numbers at its end. If a tracker cannot be reached, that is only a warning."""

    kind: Literal["tensorboard", "mlflow", "wandb"]
    """tensorboard: event files on S3, below `store.root`/tensorboard. mlflow: an MLflow server.
    wandb: Weights & Biases; needs the package `wandb`."""
    url: str | None = None
    """Address of the MLflow server, or of your own Weights & Biases server."""
    project: str | None = Field(None, min_length=1)
    """Experiment of MLflow, project of Weights & Biases. Default: the recipe's name."""
    key_env: str | None = None
    """Name of the environment variable with the key: a bearer token of MLflow, or the API key of
    Weights & Biases. It must be one of `runtime.secret_envs`, so that every stage gets it."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.kind == "mlflow" and not self.url:
            raise ValueError("an MLflow tracker needs the `url` of its server")
        if self.kind == "wandb" and not self.key_env:
            raise ValueError("a wandb tracker needs `key_env`: the variable with its API key")
        if self.kind == "tensorboard" and (self.url or self.key_env):
            raise ValueError("event files go to the store: no `url`, no `key_env`")
        if self.url and (problem := problem_of(self.url)):
            raise ValueError(f"url: {problem}")
        if self.url and self.key_env and not may_carry_key(self.url):
            raise ValueError(
                f"url is {self.url}: a key would cross the network readable. Use https://"
            )
        return self

    @property
    def server(self) -> str | None:
        """Address of the server that gets the key."""
        return self.url or (WANDB if self.kind == "wandb" else None)
