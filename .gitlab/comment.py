"""Write a Markdown file as a note on the merge request that this job belongs to.

    python .gitlab/comment.py FILE

Of a merge request's own pipeline it is that one; after a merge the one that brought the commit.
GITLAB_TOKEN is an access token with the scope `api`; without it, and without a file, nothing is
written: the job's artifact holds the same.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any


def call(path: str, body: dict[str, str] | None = None) -> Any:
    """Return GitLab's answer about this project. With a body, something is made."""
    given = os.environ
    request = urllib.request.Request(
        f"{given['CI_API_V4_URL']}/projects/{given['CI_PROJECT_ID']}/{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"PRIVATE-TOKEN": given["GITLAB_TOKEN"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main(file: Path) -> None:
    """Write the note."""
    if not os.environ.get("GITLAB_TOKEN") or not file.exists():
        print(f"no note: GITLAB_TOKEN is not set, or {file} is not there")
        return
    number = os.environ.get("CI_MERGE_REQUEST_IID")
    if not number:
        found = call(f"repository/commits/{os.environ['CI_COMMIT_SHA']}/merge_requests")
        number = str(found[0]["iid"]) if found else ""
    if not number:
        print("no note: no merge request brought this commit")
        return
    call(f"merge_requests/{number}/notes", {"body": file.read_text(encoding="utf-8")})
    print(f"written: a note on merge request {number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
