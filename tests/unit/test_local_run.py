"""What a local run shows: what the stages say, none of Kubeflow's own lines."""

from __future__ import annotations

import io

import pytest

from pipelines.local import _Log

KUBEFLOW = """23:48:25.919 - INFO - Executing task 'preflight'
        [KFP Executor 2026-11-24 23:48:26,000 INFO]: Got executor_input:
        {
            "recipe": "name: demo\\nstore: 1"
        }
preflight: 11 checks passed
    generate  3/24 conversations  1.2/s
    prompts: Dataset( name='prompts',
                      uri='x',
    prompts: reused s3://moaa/demo/prompts/1
    sft failed: loss is NaN at step 3
"""


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_only_what_stages_say_is_shown(chunk: int) -> None:
    log, terminal = io.StringIO(), io.StringIO()
    split = _Log(log, terminal)
    for at in range(0, len(KUBEFLOW), chunk):
        split.write(KUBEFLOW[at : at + chunk])
    assert log.getvalue() == KUBEFLOW
    assert terminal.getvalue().splitlines() == [
        "preflight: 11 checks passed",
        "generate  3/24 conversations  1.2/s",
        "prompts: reused s3://moaa/demo/prompts/1",
        "sft failed: loss is NaN at step 3",
    ]
