"""What a stage that trains tells its launcher."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from moaa.ledger import Ledger
from moaa.recipe.schema import Launcher, Runtime, Sft, StoreAddress
from moaa.stages import training
from moaa.train import launch

RESULT = {"files": [], "facts": {"rows": 1, "dropped": {}}}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("process", "MY_ID"), ("trainer", "AWS_ACCESS_KEY_ID"), ("job", "AWS_ACCESS_KEY_ID")],
)
def test_a_clusters_pods_find_the_stores_keys_under_the_secrets_own_names(kind, name, monkeypatch):
    """`runtime.cluster.s3_secret` has them so, and TrainJobs take all of it as it is."""
    told = []
    monkeypatch.setattr(launch, "run", lambda job, *_: told.append(job) or RESULT)
    where = StoreAddress(
        root="s3://b/r",
        endpoint_url="http://s3",
        region="x",
        access_key_env="MY_ID",
        secret_key_env="MY_KEY",
    )
    out = SimpleNamespace(uri="s3://b/r/sft/0123456789abcdef", adopt=lambda files: None)
    runtime = Runtime(launcher=Launcher(kind=kind))
    context = SimpleNamespace(
        recipe=SimpleNamespace(runtime=runtime, store=where, pools={}),
        store=None,
        ledger=Ledger(),
        progress=None,
        out=out,
        facts={},
    )
    training.train(
        context, "sft", Sft(), base="b", revision=None, data=SimpleNamespace(uri="s3://b/r/data")
    )
    (job,) = told
    assert job.store.access_key_env == name
    assert (job.store.endpoint_url, job.store.region) == ("http://s3", "x")
