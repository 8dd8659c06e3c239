"""The jobs that retrain from a CI: .github/workflows/retrain.yml and .gitlab/."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.cli import called
from tests.support.http_server import listening
from tests.support.paths import ROOT

GITHUB, GITLAB = ROOT / ".github/workflows/retrain.yml", ROOT / ".gitlab/retrain.gitlab-ci.yml"


def test_the_file_for_gitlab_is_what_gitlab_knows() -> None:
    schema = files("check_jsonschema") / "builtin_schemas/vendor/gitlab-ci.json"
    jsonschema.validate(yaml.safe_load(GITLAB.read_text()), json.loads(schema.read_text()))


@pytest.mark.parametrize("file", [GITHUB, GITLAB], ids=["GitHub", "GitLab"])
def test_what_they_type_is_what_the_command_takes(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = re.findall(r"moaa retrain \"\$\w+\" .*", file.read_text())
    assert len(lines) == 2
    _, shown, _ = called(monkeypatch, capsys, "retrain", "--help")
    for option in re.findall(r"--[a-z-]+", " ".join(lines)):
        assert re.search(rf"{option}\b", shown), option


def test_only_the_job_that_comments_may_write() -> None:
    workflow = yaml.safe_load(GITHUB.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert "permissions" not in jobs["retrain"]
    assert jobs["comment"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert not [step for step in jobs["comment"]["steps"] if "checkout" in step.get("uses", "")]
    (planned,) = [step for step in jobs["retrain"]["steps"] if "--plan" in step.get("run", "")]
    assert "KFP_TOKEN" not in planned["env"], "a pull request may change what runs here"


@dataclass
class GitLab:
    """What was asked of the fake."""

    url: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    requests: list[dict[str, int]] = field(default_factory=lambda: [{"iid": 7}])
    """The merge requests that brought the commit."""


@pytest.fixture
def gitlab(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitLab]:
    fake = GitLab()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            assert self.headers["PRIVATE-TOKEN"] == "glpat"
            fake.asked.append((self.command, self.path, json.loads(data or "null")))
            answer = json.dumps({} if self.command == "POST" else fake.requests).encode()
            self.send_response(201 if self.command == "POST" else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _do

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as fake.url:
        for name, value in {
            "CI_API_V4_URL": f"{fake.url}/api/v4",
            "CI_PROJECT_ID": "3",
            "CI_COMMIT_SHA": "abc",
            "GITLAB_TOKEN": "glpat",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("CI_MERGE_REQUEST_IID", raising=False)
        yield fake


def comment(folder: Path) -> str:
    file = folder / "retrain.md"
    file.write_text("## aligned: refused\n")
    command = [sys.executable, str(ROOT / ".gitlab/comment.py"), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_note_is_written_to_the_merge_request(
    gitlab: GitLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    projects, body = "/api/v4/projects/3", {"body": "## aligned: refused\n"}
    note = ("POST", f"{projects}/merge_requests/7/notes", body)
    assert comment(tmp_path) == "written: a note on merge request 7\n"
    assert gitlab.asked == [
        ("GET", f"{projects}/repository/commits/abc/merge_requests", None),
        note,
    ]
    monkeypatch.setenv("CI_MERGE_REQUEST_IID", "7")
    comment(tmp_path)
    assert gitlab.asked[2:] == [note]


def test_without_a_merge_request_or_a_token_nothing_is_written(
    gitlab: GitLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gitlab.requests = []
    assert "no merge request brought this commit" in comment(tmp_path)
    monkeypatch.delenv("GITLAB_TOKEN")
    assert "GITLAB_TOKEN is not set" in comment(tmp_path)
    assert len(gitlab.asked) == 1
