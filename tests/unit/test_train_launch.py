"""How a training is launched: once, with the keys, cores and folders that it needs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from moaa.errors import DiskFull, TrainError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Launcher, Runtime, StoreAddress
from moaa.train import disk, launch, process
from moaa.train.job import Job, Launch
from tests.support.jobs import ON_GPU as JOB

ON_CORES = JOB.model_copy(update={"device": "cpu"})
FACTS = {
    "rows": 3,
    "dropped": {},
    "merged_system": 2,
    "resumed_from_step": 7,
    "checkpoints_failed": 0,
    "checkpoint_unusable": False,
    "precision": "bfloat16",
}

RESULT = {"files": [], "facts": FACTS}


@pytest.fixture
def started(monkeypatch, store):
    """The jobs that launchers in place of the real ones were given; they leave RESULT."""
    jobs = []

    def launcher(launch, ledger, progress):
        jobs.append(launch.job)
        store.put(launch.job.result, json.dumps(RESULT).encode())

    for kind in launch.LAUNCHERS:
        monkeypatch.setitem(launch.LAUNCHERS, kind, launcher)
    return jobs


def launch_of(job: Job = JOB, **launcher) -> Launch:
    return Launch(job, Runtime(launcher=Launcher(**({"ranks": 2} | launcher))), {})


def run(store, ledger=None, **launcher):
    return launch.run(launch_of(**launcher), store, ledger or Ledger(), Progress.silent())


def test_the_result_is_returned_and_a_second_run_trains_nothing(started, store):
    ledger = Ledger()
    assert run(store, ledger) == RESULT
    assert ledger.events == {
        "system messages merged into the first user turn": 2,
        "trainings resumed from a checkpoint": 1,
    }
    assert run(store) == RESULT
    assert started == [JOB]
    assert Job.model_validate_json(store.get(f"{JOB.output}/job.json")) == JOB


@pytest.mark.parametrize(
    ("kind", "key"),
    [("process", "MY_ID"), ("trainer", "AWS_ACCESS_KEY_ID"), ("job", "AWS_ACCESS_KEY_ID")],
)
def test_pods_find_the_stores_keys_under_the_secrets_own_names(started, store, kind, key):
    """`runtime.cluster.s3_secret` has them so, and TrainJobs take all of it as it is."""
    own = StoreAddress(
        root="s3://memory/root",
        endpoint_url="http://s3",
        region="x",
        access_key_env="MY_ID",
        secret_key_env="MY_KEY",
    )
    launched = launch_of(JOB.model_copy(update={"store": own}), kind=kind)
    launch.run(launched, store, Ledger(), Progress.silent())
    (job,) = started
    assert job.store.access_key_env == key
    assert (job.store.endpoint_url, job.store.region) == ("http://s3", "x")
    assert Job.model_validate_json(store.get(f"{JOB.output}/job.json")) == job


def test_checkpoints_of_a_finished_training_are_swept_away(started, store):
    store.put(JOB.result, json.dumps(RESULT).encode())
    store.put(f"{JOB.output}/checkpoints/checkpoint-4/manifest.json", b"{}")
    run(store)
    assert not list(store.list(f"{JOB.output}/checkpoints"))
    assert not started


def test_a_training_that_leaves_no_result_is_an_error(monkeypatch, store):
    monkeypatch.setitem(launch.LAUNCHERS, "process", lambda *_: None)
    with pytest.raises(TrainError, match=r"left no s3://memory/root/sft/3f/result\.json"):
        run(store)


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Makes `process.start` run this Python text instead of torchrun, with temporary files below
    `tmp_path`."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")

    def put(text):
        monkeypatch.setattr(
            process, "torchrun", lambda ranks, kind, job: [sys.executable, "-c", text]
        )

    return put


def start(progress=None, **launcher):
    process.start(launch_of(**launcher), Ledger(), progress or Progress.silent())


def test_a_training_that_ends_well_leaves_nothing_on_the_disk(script, tmp_path):
    progress = Progress.silent()
    script(
        "import json, os, tempfile; open(tempfile.mkstemp()[1], 'w').write('x')\n"
        "print('moaa-progress', json.dumps({'step': 3, 'steps': 9}))"
    )
    start(progress)
    assert (progress.view().done, progress.view().total) == (3, 9)
    assert not list(tmp_path.iterdir())


def test_a_failed_training_keeps_its_log_and_nothing_else(script, tmp_path):
    script("import sys; print('a line of the log'); sys.exit(3)")
    with pytest.raises(TrainError, match="status 3") as error:
        start()
    (folder,) = tmp_path.iterdir()
    assert (folder / "log.txt").read_text() == "a line of the log\n"
    assert str(folder / "log.txt") in str(error.value)
    assert not (folder / "tmp").exists()


def test_what_killed_launchers_left_is_swept_away_and_nothing_else(script, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        (tmp_path / f"moaa-train-{pid}-x" / "tmp" / "checkpoint-2").mkdir(parents=True)
        (tmp_path / f"moaa-train-{pid}-x" / "log.txt").write_text("log")
    script("pass")
    start()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}
    assert left == {
        f"moaa-train-{gone.pid}-x/log.txt",
        f"moaa-train-{os.getppid()}-x/log.txt",
        f"moaa-train-{os.getppid()}-x/tmp",
    }


def test_ranks_get_cores_of_their_own(script, monkeypatch, tmp_path):
    out = tmp_path.parent / f"{tmp_path.name}.env"
    script(
        f"import os; open({str(out)!r}, 'w').write(os.environ['MOAA_TRAIN_CORES'] + ' ' + "
        "os.environ['OMP_NUM_THREADS'])"
    )
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {4, 5, 6, 7, 8})
    process.start(launch_of(ON_CORES), Ledger(), Progress.silent())
    assert out.read_text() == "4,5,6,7 2"


def test_more_ranks_than_cores_is_an_error(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(
        TrainError,
        match=r"runtime\.launcher\.ranks is 8, but this machine has 2 cores.*Set it to 2",
    ):
        process.start(launch_of(ON_CORES, ranks=8), Ledger(), Progress.silent())


@pytest.mark.parametrize(
    ("device", "gpus", "ranks", "says"),
    [
        ("cpu", "", 4, ""),
        ("cpu", "", 5, "ranks is 5, but this machine has 4 cores.* Set it to 4 or less"),
        ("auto", "", 5, "ranks is 5, but this machine has 4 cores"),
        ("auto", "0,1", 2, ""),
        ("auto", "0,1", 4, "ranks is 4, but this machine has 2 GPUs. Set it to 2 or less"),
        ("cuda", "0,1,2,3,4", 5, ""),
        ("cuda", "", 1, "ranks is 1, but this machine has 0 GPUs.*device to cpu"),
        ("cpu", "0,1", 4, ""),
    ],
)
def test_each_rank_needs_a_gpu_or_a_core(monkeypatch, device, gpus, ranks, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    if not says:
        process.check_ranks(ranks, device)
        return
    with pytest.raises(TrainError, match=says):
        process.check_ranks(ranks, device)


def test_several_nodes_are_no_business_of_one_machine():
    with pytest.raises(TrainError, match="Set nodes to 1"):
        start(nodes=2)


def test_a_training_on_this_machine_gets_no_key_but_its_own():
    store = StoreAddress(root="s3://b", access_key_env="MY_ID", secret_key_env="MY_STORE_KEY")
    own = Launch(JOB.model_copy(update={"store": store}), Runtime(secret_envs=("WANDB_TOKEN",)), {})
    mine = ["MY_ID", "MY_STORE_KEY", "WANDB_TOKEN", "HF_TOKEN", "AWS_SESSION_TOKEN", "PATH", "HOME"]
    others = ["OPENAI_API_KEY", "KFP_TOKEN", "GITHUB_TOKEN", "TOGETHER_KEY", "db_password"]
    found = process.own_environment(dict.fromkeys([*mine, *others], "x"), own)
    assert sorted(found) == sorted(mine)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed "
                     "writing file data/0: file write failed"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)  # fmt: skip
def test_a_full_disk_is_an_error_that_says_where(error, tmp_path):
    with pytest.raises(DiskFull, match="The disk is full") as told, disk.named(tmp_path):
        raise error
    assert str(tmp_path) in str(told.value)
    assert "GiB free" in str(told.value)


def test_other_errors_are_what_they_were(tmp_path):
    with pytest.raises(DiskFull) as told, disk.named(tmp_path), disk.named(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(told.value).count("The disk is full") == 1
    with pytest.raises(PermissionError), disk.named(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
