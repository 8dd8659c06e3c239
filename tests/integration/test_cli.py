"""The commands that reach out: runs and reports from a real store, fetched files, and a question to
the real engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moaa.artifacts import Draft, Output
from tests.conftest import S3
from tests.support.artifacts import add_file
from tests.support.paths import DEMO
from tests.support.real_engine import RealEngine


def moaa(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moaa.cli", *arguments], capture_output=True, text=True, timeout=120
    )


def record(stage: str, status: str, started: str) -> bytes:
    error = (
        {"type": "TrainError", "message": "the loss became NaN <b>"} if status == "failed" else None
    )
    return json.dumps(
        {
            "stage": stage,
            "status": status,
            "started": f"2026-01-0{started}.000+00:00",
            "ended": f"2026-01-0{started}.500+00:00",
            "seconds": 30.0,
            "manifest": None,
            "error": error,
            "ledger": {},
        }
    ).encode()


def test_runs_are_listed_newest_first_and_reported(s3: S3, tmp_path: Path) -> None:
    stages = [
        ("old", "prompts", "done", "1T00:00:00"),
        ("new", "prompts", "reused", "2T00:00:00"),
        ("new", "sft", "failed", "2T00:01:00"),
    ]
    for run_id, stage, status, started in stages:
        s3.store.put(f"{s3.root}/runs/{run_id}/{stage}.json", record(stage, status, started))
    listed = moaa("runs", "--root", s3.root)
    assert listed.returncode == 0, listed.stderr
    rows = listed.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["new", "old"]
    assert "failed" in rows[0]
    assert "prompts reused, sft failed" in rows[0]

    page = tmp_path / "page.html"
    made = moaa("report", "new", "--root", s3.root, "-o", str(page))
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == str(page)
    assert "the loss became NaN &lt;b&gt;" in page.read_text()

    missing = moaa("report", "nosuch", "--root", s3.root, "-o", str(page))
    assert missing.returncode == 1
    assert "has no records" in missing.stderr


def test_fetched_files_are_verified(s3: S3, tmp_path: Path) -> None:
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text("{}")
    weights.write_bytes(b"weights" * 1000)
    with Output(s3.store, f"{s3.root}/sft/abc", "model") as out:
        add_file(out, config, "config.json")
        add_file(out, weights, "model.safetensors")
        out.commit(Draft(stage="sft", name="demo", fingerprint="abc"))
    target = tmp_path / "fetched"
    done = moaa("fetch", f"{s3.root}/sft/abc", str(target))
    assert done.returncode == 0, done.stderr
    assert "2 files" in done.stdout
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights" * 1000,
    }

    there = [
        uri for uri, size in s3.store.list(f"{s3.root}/sft/abc") if size == len(b"weights" * 1000)
    ]
    s3.store.put(there[0], b"WEIGHTS" * 1000)
    torn = moaa("fetch", f"{s3.root}/sft/abc", str(tmp_path / "again"))
    assert torn.returncode == 1
    assert "model.safetensors" in torn.stderr
    assert "Traceback" not in torn.stderr
    assert not (tmp_path / "again" / "model.safetensors").exists()


def test_plain_folders_are_fetched_from_the_store_and_from_disk(s3: S3, tmp_path: Path) -> None:
    for name, content in (("config.json", b"{}"), ("sub/vocab.txt", b"a b")):
        s3.store.put(f"{s3.root}/plain/{name}", content)
    done = moaa("fetch", f"{s3.root}/plain", str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "sub" / "vocab.txt").read_bytes() == b"a b"
    again = moaa("fetch", str(tmp_path / "a"), str(tmp_path / "b"))
    assert again.returncode == 0, again.stderr
    assert sorted(path.name for path in (tmp_path / "b").rglob("*") if path.is_file()) == [
        "config.json",
        "vocab.txt",
    ]
    nothing = moaa("fetch", f"{s3.root}/nosuch", str(tmp_path / "c"))
    assert nothing.returncode == 1
    assert "neither manifest.json nor config.json" in nothing.stderr


def test_preflight_says_what_is_missing(s3: S3) -> None:
    done = moaa(
        "preflight",
        str(DEMO),
        "--set",
        f"store.root={s3.root}",
        "--set",
        "runtime.secret_envs=[NOT_SET_HERE]",
    )
    assert done.returncode == 1
    assert any(line.startswith("ok    store:") for line in done.stdout.splitlines())
    assert "FAIL  secret: NOT_SET_HERE (runtime.secret_envs) is not set" in done.stdout
    assert "1 of " in done.stderr


@pytest.mark.real
def test_a_question_is_answered_by_the_real_engine(engine: RealEngine) -> None:
    there = f"models.smollm2.endpoint.model={engine.model}"
    done = moaa(
        "ask", str(DEMO), "What is the capital of France?", "--endpoint", engine.url, "--set", there
    )
    assert done.returncode == 0, done.stderr
    assert all(
        f"{name}  smollm2, " in done.stdout
        for name in ("concise", "thorough", "creative", "synthesis by smollm2")
    )
    assert "Paris" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("4 calls, ")
