"""The recipe's fields about publishing: under which name, where else it is shown, which licences
are accepted."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moaa.recipe.document import Part
from moaa.recipe.forms import PublishedName, Repository
from moaa.recipe.urls import may_carry_key, problem_of

HUB: Final = "https://huggingface.co"
"""The address of the Hugging Face hub, unless the environment has another one in HF_ENDPOINT."""


class ModelRegistry(Part):
    """A Kubeflow Model Registry that shows the versions, their scores, and which is in production.
    It only copies what is on S3: if it cannot be reached, that is a warning, and the next
    publication or promotion updates it."""

    url: str
    """Address of its REST server, without a path:
    `http://model-registry-service.kubeflow.svc:8080`."""
    key_env: str | None = None
    """Name of the environment variable with its bearer token, if it needs one.
    It must be one of `runtime.secret_envs`."""
    storage_key: str | None = Field(None, min_length=1)
    """Name of the Secret with which KServe reads the store."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if problem := problem_of(self.url):
            raise ValueError(f"url: {problem}")
        if self.key_env and not may_carry_key(self.url):
            raise ValueError(
                f"url is {self.url}: a key would cross the network readable. Use https://"
            )
        return self


class Hub(Part):
    """Repositories of the Hugging Face hub that also get the versions, each as a commit with a tag.
    If the hub cannot be reached, that is a warning. If it refuses, the stage fails, and the version
    on S3 stays."""

    repository: Repository
    """`OWNER/NAME` of the model. It is created if it does not exist."""
    data_repository: Repository | None = None
    """`OWNER/NAME` of a data set for the training data. Needs `publish.data`."""
    key_env: str = "HF_TOKEN"
    """Name of the environment variable with a token that may write.
    It must be one of `runtime.secret_envs`."""
    private: bool = True
    """Whether a new repository is private. An existing one stays as it is."""


class Publish(Part):
    """A model that the gate promotes becomes a version of this name: an immutable folder
    `<store.root>/models/<name>/<version>` with a model card. Needs `gate`."""

    name: PublishedName | None = None
    """Default: the recipe's name. Some licences require a prefix: `Llama`."""
    accept_licence_conflict: str | None = None
    """Publish although a licence forbids it, for this reason. The card repeats it."""
    data: bool = False
    """Also write the SFT and the preference data,
    as a data set that `datasets` and TRL read: `<store.root>/datasets/<name>/<version>`."""
    registry: ModelRegistry | None = None
    hub: Hub | None = None

    @model_validator(mode="after")
    def _data_to_send(self) -> Self:
        if self.hub and self.hub.data_repository and not self.data:
            raise ValueError("hub.data_repository needs `data: true`: else there are no data")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields unless they are set, so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        return {
            name: value
            for name, value in found.items()
            if value or name in ("name", "accept_licence_conflict")
        }
