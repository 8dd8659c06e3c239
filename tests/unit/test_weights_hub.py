"""Models of the hub: which of their files are fetched, and what the servers of this machine are
given."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from moaa.chat.client import Client
from moaa.engines import cores, devices
from moaa.engines.process import ProcessFleet
from moaa.engines.server import Server, command
from moaa.errors import EngineError, HubAway, RecipeError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Runtime
from moaa.weights import hub
from tests.support.sessions import session_of

TWICE = {
    "config.json",
    "tokenizer.model",
    "model-1.safetensors",
    "pytorch_model-1.bin",
    "original/consolidated.00.pth",
}
OLD = {"config.json", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx"}


class Hub:
    """In place of `snapshot_download`: repositories by name, the calls that were made, and a cache
    folder."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.calls = cache, []  # type: Path, list[tuple[str, dict[str, Any]]]
        self.repositories = {"org/twice": TWICE, "org/old": OLD}

    def __call__(self, name: str, *, ignore_patterns: Sequence[str] = (), **options: Any) -> str:
        self.calls.append((name, options))
        if name not in self.repositories:
            raise FileNotFoundError(f"{name} is neither on the hub nor in the cache")
        folder = Path(options.get("local_dir") or self.cache / name.replace("/", "--"))
        for file in self.repositories[name]:
            if not any(fnmatch(file, pattern) for pattern in ignore_patterns):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()
        return str(folder)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub_ = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_)
    return hub_


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_an_engine_loads_is_fetched(there: Hub) -> None:
    assert names(hub.download("org/twice", "abc")) == {
        "config.json",
        "tokenizer.model",
        "model-1.safetensors",
    }
    assert there.calls == [("org/twice", {"revision": "abc"})]


def test_other_weights_where_there_are_none_in_safetensors(there: Hub, tmp_path: Path) -> None:
    assert names(hub.download("org/old", None)) == {"config.json", "pytorch_model.bin"}
    assert names(hub.download("org/twice", None, weights=())) == TWICE - {
        "original/consolidated.00.pth"
    }


def test_what_is_asked_for_in_a_folder_comes_whole(there: Hub, tmp_path: Path) -> None:
    """`moaa fetch` of a repository may be for its GGUF file."""
    assert names(hub.download("org/twice", None, tmp_path / "mine")) == TWICE


@pytest.mark.parametrize("status", [None, 429, 503])
def test_a_hub_that_goes_away_while_it_is_downloaded_from_is_an_outside_fault(
    status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hub set to offline it is a model that is not here."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    def fail(*given: object, **named: object) -> str:
        if status is None:
            raise httpx2.ConnectError("no route")
        request = httpx2.Request("GET", "https://hub")
        raise HfHubHTTPError("busy", response=httpx2.Response(status, request=request))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("moaa.weights.hub.is_offline", lambda: False)
    with pytest.raises(HubAway, match=r"'org/model' is no folder here.* does not answer"):
        hub.download("org/model", None)
    monkeypatch.setattr("moaa.weights.hub.is_offline", lambda: True)
    with pytest.raises(RecipeError, match="cannot be downloaded"):
        hub.download("org/model", None)


def test_what_cannot_be_fetched_says_what_to_look_at(
    there: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        RecipeError,
        match=r"'org/none' is no folder here, so it is taken for a hub id, and it cannot be "
        r"downloaded: org/none is neither .*HF_HUB_OFFLINE",
    ):
        hub.download("org/none", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RecipeError, match=r"pip install .*'moaa\[hub\]'"):
        hub.download("org/twice", None)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_offline_it_is_what_the_cache_holds(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own library, on a cache as it leaves one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789" * 4
    kept = tmp_path / "models--org--kept"
    for file, text in (
        ("refs/main", commit),
        (f"snapshots/{commit}/config.json", "{}"),
        (f"snapshots/{commit}/{weights}", ""),
    ):
        (kept / file).parent.mkdir(parents=True, exist_ok=True)
        (kept / file).write_text(text)
    assert (
        hub.download("org/kept", None)
        == hub.download("org/kept", commit)
        == kept / "snapshots" / commit
    )
    with pytest.raises(RecipeError, match=r"'org/other' .*, and it cannot be downloaded"):
        hub.download("org/other", None)


# The process fleet: what its servers are started with.


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the servers that a fleet would have started; none is."""
    lines: list[list[str]] = []

    async def launch(spec: Any, log: Path) -> Server:
        lines.append(command(spec, 8000)[0])
        raise EngineError("not started, this is a test")

    monkeypatch.setattr(Server, "launch", launch)
    monkeypatch.setattr(cores, "available", lambda: [0, 1])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        "moaa.engines.process.hardware", lambda: devices.Hardware("cpu", ("0", "1"))
    )
    return lines


async def up(progress: Progress | None = None, **options: Any) -> None:
    runtime, ledger = Runtime(), Ledger()
    async with Client(runtime.calls, ledger) as client:
        models = {"a": Model.model_validate({"source": "org/twice", "revision": "abc", **options})}
        fleet = ProcessFleet(
            session_of(models, runtime, ledger=ledger, progress=progress), models, client
        )
        try:
            await fleet.up(["a"])
        finally:
            await fleet.close()


def value(line: list[str], flag: str) -> str:
    return line[line.index(flag) + 1]


async def test_a_hub_model_is_there_before_its_server_is_started(
    there: Hub, started: list[list[str]]
) -> None:
    said: list[str] = []

    class Noting(Progress):
        def note(self, text: str) -> None:
            said.append(text)

    with pytest.raises(EngineError, match="not started"):
        await up(Noting("stage"))
    (line,) = started
    assert (value(line, "--model"), value(line, "--served-model-name")) == (
        str(there.cache / "org--twice"),
        "a",
    )
    assert "--revision" not in line, "the folder is of that revision"
    assert there.calls == [("org/twice", {"revision": "abc"})]
    assert said[:2] == ["fetching org/twice", "starting a"]


@pytest.mark.parametrize(
    "options",
    [
        {"engine_args": ["--tokenizer", "org/other"]},
        {"engine_args": ["--lora-modules", "x=org/lora"]},
        {"trust_remote_code": True},
    ],
)
async def test_a_server_that_needs_more_of_the_hub_is_given_the_id(
    options: dict[str, Any], there: Hub, started: list[list[str]]
) -> None:
    """Given a folder it would be kept offline. The model itself is in the cache by then."""
    with pytest.raises(EngineError, match="not started"):
        await up(**options)
    assert (value(started[0], "--model"), value(started[0], "--revision")) == ("org/twice", "abc")
    assert len(there.calls) == 1


async def test_a_model_that_cannot_be_fetched_starts_nothing(
    there: Hub, started: list[list[str]]
) -> None:
    with pytest.raises(RecipeError, match=r"'org/none' .* cannot be downloaded"):
        await up(source="org/none")
    assert not started


async def test_without_huggingface_hub_the_engine_is_given_the_id(
    there: Hub, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="not started"):
        await up()
    assert value(started[0], "--model") == "org/twice"
    assert not there.calls
