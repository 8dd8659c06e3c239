"""The recipe's fields about publishing: under which name, where else it is shown, what is
accepted."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moaa.recipe.document import Part
from moaa.recipe.urls import may_carry_key, problem_of

HUB: Final = "https://huggingface.co"
"""The Hugging Face hub, unless HF_ENDPOINT of the environment names another one."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._ ]{0,94}[A-Za-z0-9])?$")]
"""Without `/`: a server that loads `model-registry://HOST/MODEL/VERSION` would cut it there."""
Repository = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*$")
]


class ModelRegistry(Part):
    """A Kubeflow Model Registry that shows the versions, their scores, and which is in production.
    It repeats what S3 says: if it cannot be reached, that is a warning, and the next publication or
    promotion makes up for it."""

    url: str
    """Address of its REST server, without a path: `http://model-registry-service.kubeflow.svc:8080`."""
    key_env: str | None = None
    """Name of the environment variable with its bearer token, if it wants one. It must be one of
    `runtime.secret_envs`."""
    storage_key: str | None = Field(None, min_length=1)
    """Name of the Secret by which KServe reads the store."""

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
    """Repositories of the Hugging Face hub that get the versions too, each as a commit with a tag.
    A hub that cannot be reached is a warning; one that refuses fails the stage, and the version
    stays."""

    repository: Repository
    """`OWNER/NAME` of the model. It is made if it is not there."""
    data_repository: Repository | None = None
    """`OWNER/NAME` of a data set for the training data. Needs `publish.data`."""
    key_env: str = "HF_TOKEN"
    """Name of the environment variable with a token that may write. It must be one of
    `runtime.secret_envs`."""
    private: bool = True
    """Whether a repository that is made is private. One that is there stays as it is."""


class Publish(Part):
    """A model that the gate promotes becomes a version of this name: an immutable folder
    `<store.root>/models/<name>/<version>` with a model card. Needs `gate`."""

    name: Name | None = None
    """Default: the recipe's name. Licences may ask for a prefix: `Llama`."""
    accept_licence_conflict: str | None = None
    """Publish although a licence forbids it, for this reason. The card repeats it."""
    data: bool = False
    """Write the SFT and the preference data too, as a data set that `datasets` and TRL read:
    `<store.root>/datasets/<name>/<version>`."""
    registry: ModelRegistry | None = None
    hub: Hub | None = None

    @model_validator(mode="after")
    def _data_to_send(self) -> Self:
        if self.hub and self.hub.data_repository and not self.data:
            raise ValueError("hub.data_repository needs `data: true`: else there are no data")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields unless they are set: fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        return {
            name: value
            for name, value in found.items()
            if value or name in ("name", "accept_licence_conflict")
        }
