"""What a stage that trains passes to its launcher, and what it keeps of the result."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from moaa.ledger import Ledger
from moaa.recipe.schema import Dpo, Launcher, Runtime, Sft, StoreAddress
from moaa.stages import training
from moaa.train import launch

RESULT = {"files": [], "facts": {"rows": 5, "dropped": {"too_long": 2, "identical": 1}}}


@pytest.mark.parametrize(("numbers", "kind"), [(Sft(epochs=2), "sft"), (Dpo(beta=0.3), "dpo")])
def test_the_job_is_the_recipes_and_every_row_is_counted(numbers, kind, monkeypatch):
    launched, adopted = [], []
    monkeypatch.setattr(launch, "run", lambda each, *_: launched.append(each) or RESULT)
    recipe = SimpleNamespace(
        runtime=Runtime(launcher=Launcher(device="cpu", checkpoint_minutes=7)),
        store=StoreAddress(root="s3://b/r", access_key_env="MY_ID"),
        pools={},
    )
    context = SimpleNamespace(
        recipe=recipe,
        store=None,
        ledger=Ledger(),
        progress=None,
        out=SimpleNamespace(uri="s3://b/r/x/0123456789abcdef", adopt=adopted.append),
        facts={},
    )
    data = SimpleNamespace(uri="s3://b/r/data")
    training.train(context, numbers, base="b", revision="c1", data=data)
    (job,) = [each.job for each in launched]
    assert (job.kind, job.numbers, job.base, job.revision) == (kind, numbers, "b", "c1")
    assert (job.data, job.output, job.store) == (data.uri, context.out.uri, recipe.store)
    assert (job.device, job.checkpoint_minutes) == ("cpu", 7)
    assert adopted == [[]]
    assert context.facts == RESULT["facts"]
    assert context.ledger.rows == {"in": 8, "kept": 5}
    assert context.ledger.rejected == {"too_long": 2, "identical": 1}
