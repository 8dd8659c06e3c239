"""From a source in the recipe to what an engine can load."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moaa.errors import ArtifactError, EngineError, RecipeError
from moaa.weights import local
from tests.support.artifacts import add_file
from tests.support.memory_store import MemoryStore


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MOAA_PACKAGES", str(tmp_path / "packages"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.mark.parametrize("source", ["Qwen/Qwen2-72B-Instruct", "gpt2", "google/gemma-2-27b-it"])
def test_a_hub_id_is_the_engines_business(source: str, store: MemoryStore) -> None:
    assert local.resolve(source, store, "abc123") == source


def test_a_folder(tmp_path: Path, store: MemoryStore) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").touch()
    assert (
        local.resolve("m", store)
        == local.resolve("./m", store)
        == local.resolve(str(tmp_path / "m"), store)
        == str(tmp_path / "m")
    )


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "a/b/c", "empty"])
def test_a_folder_that_is_none(source: str, tmp_path: Path, store: MemoryStore) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RecipeError, match=r"there is no config.json in .*Give a folder written by save_pretrained"
    ):
        local.resolve(source, store)


def test_only_hub_models_have_revisions(tmp_path: Path, store: MemoryStore) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").touch()
    for source in ("./m", "s3://memory/m", "package:m.gguf"):
        with pytest.raises(RecipeError, match="only hub models have revisions"):
            local.resolve(source, store, "main")


def test_package_files_are_found_in_the_order_of_moaa_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("second", "path"):
        (tmp_path / place / "pkg").mkdir(parents=True)
        (tmp_path / place / "pkg" / "file").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "path")])
    assert local.package_file("pkg/file") == tmp_path / "path" / "pkg" / "file"
    monkeypatch.setenv("MOAA_PACKAGES", f"{tmp_path / 'first'}:second")
    assert local.package_file("pkg/file") == tmp_path / "second" / "pkg" / "file"
    with pytest.raises(
        RecipeError,
        match=rf"package:pkg/other is not in {tmp_path}/first, /.*/second .*MOAA_PACKAGES"
        rf".* nor in a package of {sys.prefix}\. If `make setup` has installed it",
    ):
        local.package_file("pkg/other")


def test_a_prefix_is_downloaded_once(store: MemoryStore, cache: Path) -> None:
    for name, data in (
        ("config.json", b"{}"),
        ("model.safetensors", b"weights"),
        ("sub/tokenizer.json", b"t"),
    ):
        store.put(f"s3://bucket/my/model/{name}", data)
    store.put("s3://bucket/my/model-2/config.json", b"other")
    folder = Path(local.resolve("s3://bucket/my/model/", store))
    assert folder.is_relative_to(cache)
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "sub/tokenizer.json": b"t",
    }
    (folder / "config.json").write_bytes(b"")  # torn: fetched again, the others are not
    downloads = _count(store, "download")
    assert local.resolve("s3://bucket/my/model", store) == str(folder)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert downloads() == 1


def test_a_prefix_without_a_model(store: MemoryStore) -> None:
    store.put("s3://bucket/my/data.parquet", b"")
    with pytest.raises(RecipeError, match=r"neither manifest.json nor config.json"):
        local.resolve("s3://bucket/my", store)


def test_a_name_that_leaves_the_folder_is_refused(store: MemoryStore, cache: Path) -> None:
    store.put("s3://bucket/my/config.json", b"{}")
    store.put("s3://bucket/my/../../../stolen", b"")
    with pytest.raises(RecipeError, match="leaves the folder"):
        local.resolve("s3://bucket/my", store)
    assert not list(cache.rglob("stolen"))


def test_an_artifact_is_verified(store: MemoryStore, tmp_path: Path) -> None:
    from moaa.artifacts import Draft, Output

    (tmp_path / "config.json").write_text("{}")
    with Output(store, "s3://memory/root/sft/abc", "model") as out:
        add_file(out, tmp_path / "config.json", "config.json")
        out.commit(Draft(stage="sft", name="test", fingerprint="abc"))
    folder = Path(local.resolve("s3://memory/root/sft/abc", store))
    assert (folder / "config.json").read_text() == "{}"
    (weights,) = [uri for uri in store.objects if not uri.endswith("manifest.json")]
    store.put(weights, b"[]")
    assert local.resolve("s3://memory/root/sft/abc", store) == str(
        folder
    )  # what is here is still right
    (folder / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"config\.json"):
        local.resolve("s3://memory/root/sft/abc", store)


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    path = tmp_path / "packages" / "pkg" / "small.Q4.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF not really")
    return "package:pkg/small.Q4.gguf"


def _converter(monkeypatch: pytest.MonkeyPatch, script: str) -> list[list[str]]:
    """Runs `script` (sh; $1 the file, $2 the folder) where torch would convert; returns the
    commands that ran."""
    ran: list[list[str]] = []
    run = subprocess.run

    def convert(command: list[str], **options: object) -> object:
        ran.append(command)
        return run(["sh", "-c", script, "sh", *command[-2:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr("subprocess.run", convert)
    return ran


def test_a_gguf_is_converted_once(
    gguf: str,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cache: Path,
) -> None:
    caplog.set_level("INFO", "moaa")
    ran = _converter(monkeypatch, "umask 077; sleep 0.2; echo '{}' > $2/config.json")
    threads = [threading.Thread(target=local.resolve, args=(gguf, store)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = Path(local.resolve(gguf, store))
    assert len(ran) == 1
    assert ran[0][:3] == [sys.executable, "-m", "moaa.weights.local"]
    assert folder.parent == cache / "models"
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o644, "others read it too"
    assert caplog.text.count("converting small.Q4.gguf to") == 1


def test_an_image_brings_its_model_converted(
    gguf: str, store: MemoryStore, tmp_path: Path, cache: Path
) -> None:
    beside = tmp_path / "packages" / "pkg" / "small.Q4"
    beside.mkdir()
    (beside / "config.json").write_text("{}")
    assert Path(local.resolve(gguf, store)) == beside
    assert not (cache / "models").exists()


def test_other_content_is_another_model(
    gguf: str, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _converter(monkeypatch, "cp $1 $2/config.json")
    first = local.resolve(gguf, store)
    local.package_file("pkg/small.Q4.gguf").write_bytes(b"GGUF changed")
    assert local.resolve(gguf, store) != first


def test_a_failed_conversion_leaves_nothing_and_says_why(
    gguf: str, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _converter(
        monkeypatch, "touch $2/half; echo 'ValueError: this file is made of cheese' >&2; exit 1"
    )
    with pytest.raises(
        EngineError,
        match=r"could not be converted \(exit status 1\)[\s\S]*"
        r"pip install .*'moaa\[train\]'[\s\S]*made of cheese",
    ):
        local.resolve(gguf, store)
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def _count(store: MemoryStore, method: str):
    """How often the method was called since now."""
    calls, original = 0, getattr(store, method)

    def counted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return original(*args, **options)

    setattr(store, method, counted)
    return lambda: calls
