"""A stage's launcher as a process of its own: `python -m tests.cluster.launcher JOB RUNTIME POOLS`,
each as JSON.

Its lease lasts longer than any test."""

import json
import os
import sys

from moaa.kubernetes import leases, names
from moaa.ledger import Ledger
from moaa.lifeline import Terminated, stoppable
from moaa.progress import Progress
from moaa.progress.messages import show
from moaa.recipe.schema import Pool, Runtime
from moaa.train import cluster
from moaa.train.job import Job, Launch

leases.LEASE_S = 900.0  # type: ignore[misc]
os.environ.update({names.RUN_ENV: "run", names.STAGE_ENV: "sft"})
job, runtime, pools = sys.argv[1:]
show()
with stoppable(), Progress("sft", "steps") as progress:
    ledger = Ledger()
    try:
        launch = Launch(
            Job.model_validate_json(job),
            Runtime.model_validate_json(runtime),
            {name: Pool.model_validate(pool) for name, pool in json.loads(pools).items()},
        )
        cluster.start(launch, ledger, progress)
    except Terminated:
        sys.exit(143)
