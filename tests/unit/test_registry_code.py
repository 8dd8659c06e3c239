"""Which code made a model: the commit, and the digests of the images."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata

import pytest

from moaa.recipe.load import load_file
from moaa.recipe.schema import Runtime
from moaa.registry import code
from moaa.stages.publish import publish
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO, ROOT
from tests.support.publishing import inputs

CORE, TRAIN = "sha256:" + "c" * 64, "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in an image nor on a cluster."""
    monkeypatch.delenv(code.COMMIT_ENV, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def installed(monkeypatch: pytest.MonkeyPatch, origin: dict | None) -> None:
    """Let the package say that it came from here (PEP 610)."""

    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(code, "distribution", lambda name: Installed())


def test_an_image_says_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.COMMIT_ENV, "4f3c")
    found = code.code(Runtime())
    assert found == {"moaa": metadata.version("moaa"), "commit": "4f3c"}


def test_the_lineage_of_a_version_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.COMMIT_ENV, "4f3c")
    store = MemoryStore()
    recipe = load_file(DEMO, ["gate={}", "publish={}"]).recipe
    manifest, _ = publish.run(recipe, store, inputs(store))
    lineage = json.loads(store.get(f"{manifest.facts['published']['uri']}/lineage.json"))
    assert lineage["code"] == {"moaa": metadata.version("moaa"), "commit": "4f3c"}


def test_a_folder_with_its_source_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"url": ROOT.as_uri(), "dir_info": {"editable": True}})
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert code.commit().removesuffix("-dirty") == head


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"url": "https://x.example/moaa", "vcs_info": {"vcs": "git", "commit_id": "9b"}}, "9b"),
        ({"url": "file:///built/moaa-0.1.0-py3-none-any.whl", "archive_info": {}}, ""),
        ({"url": "file:///nowhere", "dir_info": {"editable": True}}, ""),
        (None, ""),
    ],
)
def test_an_installed_package_says_it_or_nobody_does(
    monkeypatch: pytest.MonkeyPatch, origin: dict | None, expected: str
) -> None:
    installed(monkeypatch, origin)
    assert code.commit() == expected


def pod(image: str, digest: str, minute: int = 0) -> dict:
    status = {"name": "main", "image": "sha256:0", "imageID": digest and f"registry/moaa@{digest}"}
    return {
        "metadata": {"creationTimestamp": f"2026-01-01T00:{minute:02}:00Z"},
        "spec": {"containers": [{"name": "main", "image": image}]},
        "status": {"containerStatuses": [status]},
    }


def test_digests_are_those_that_pods_have_run() -> None:
    runtime = Runtime.model_validate(
        {"cluster": {"images": {"core": "r/core:1", "train": "r/train:1", "serve": f"r/s@{CORE}"}}}
    )
    pods = [
        pod("r/core:1", CORE, minute=2),
        pod("r/core:1", TRAIN, minute=1),
        pod("r/train:2", TRAIN),
        pod("r/train:1", ""),
        {**pod("r/train:1", CORE), "status": {}},
    ]
    assert code.images_of(runtime, pods) == {
        "core": {"reference": "r/core:1", "digest": CORE},
        "serve": {"reference": f"r/s@{CORE}", "digest": CORE},
        "train": {"reference": "r/train:1", "digest": ""},
    }


def test_a_cluster_that_says_nothing_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    found = code.code(Runtime())["images"]
    assert {each["digest"] for each in found.values()} == {""}
    assert "the digests of the images are not known" in caplog.text
