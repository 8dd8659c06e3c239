"""Where `moaa runs` and `moaa report` look: the last run, a recipe, an address; else what to do."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from moaa import home
from moaa.commands import runs
from moaa.errors import StoreError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_run_the_error_says_how_to_name_a_store() -> None:
    with pytest.raises(StoreError, match="No run was started from this folder") as caught:
        runs.list_runs(None, None, 20)
    assert "--recipe RECIPE, or --root s3://BUCKET/PREFIX" in str(caught.value)


def test_the_s3_of_the_last_run_must_be_named_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio:9000")
    home.remember("mine", {"root": "s3://moaa/demo/"})
    last = home.last_run()
    assert last is not None
    assert (last.run_id, last.root, last.s3) == ("mine", "s3://moaa/demo", "http://minio:9000")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    with pytest.raises(StoreError, match=r"\(mine\) are in the S3 at http://minio:9000"):
        runs.report(None, None, None, Path("report.html"))


def test_a_local_s3_that_this_process_has_started_is_no_named_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`moaa retrain` starts it around its run: its port is another one the next time."""
    started = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:18333", "AWS_ACCESS_KEY_ID": "k"}
    monkeypatch.setattr("moaa.store.local.serve", lambda folder: nullcontext(started))
    with home.s3_environment():
        home.remember("mine", {"root": "s3://moaa/demo"})
    last = home.last_run()
    assert last is not None
    assert last.s3 == home.LOCAL


def test_the_s3_that_the_recipe_names_is_found_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own endpoint and variables of keys; no local S3 is started for it."""
    url = "http://127.0.0.1:1"
    monkeypatch.setenv("MINE_KEY", "id")
    monkeypatch.setenv("MINE_SECRET", "s3cret")
    names = {"access_key_env": "MINE_KEY", "secret_key_env": "MINE_SECRET"}
    home.remember("mine", {"root": "s3://moaa/demo", "endpoint_url": url, **names})
    with home.s3_environment(url) as address:
        assert address == url
    with pytest.raises(StoreError, match=f"cannot connect to {url}"):
        runs.list_runs(None, None, 20)
    assert not (folder / ".moaa" / "s3").exists()
    assert "s3cret" not in (home.HOME / "last.json").read_text()


def test_the_file_of_an_earlier_moaa_is_read() -> None:
    home.HOME.mkdir()
    (home.HOME / "last.json").write_text('{"run_id": "r", "root": "s3://b/p", "s3": "local"}')
    assert home.last_run() == home.LastRun("r", "s3://b/p", "local")


def test_a_local_store_is_never_made_by_looking(folder: Path) -> None:
    home.remember("mine", {"root": "s3://moaa/demo"})
    with pytest.raises(StoreError, match=r"there is no local one \(\.moaa/s3\)"):
        runs.list_runs(None, None, 20)
    assert not (folder / ".moaa" / "s3").exists()


def test_a_folder_that_cannot_be_written_to_does_not_stop_a_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".moaa").touch()
    home.remember("mine", {"root": "s3://moaa/demo"})
    assert (folder / ".moaa").read_text() == ""


def test_a_broken_file_is_named() -> None:
    home.HOME.mkdir()
    (home.HOME / "last.json").write_text("{}")
    with pytest.raises(StoreError, match=r"last\.json cannot be read.*Delete it"):
        home.last_run()


def test_variables_are_set_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("MOAA_TEST_SET", "before")
    with home.variables({"MOAA_TEST_SET": "now", "MOAA_TEST_UNSET": "now"}):
        assert os.environ["MOAA_TEST_UNSET"] == os.environ["MOAA_TEST_SET"] == "now"
    assert os.environ["MOAA_TEST_SET"] == "before"
    assert "MOAA_TEST_UNSET" not in os.environ


@pytest.mark.parametrize("root", ["foo", "s3:/moaa/demo", "s3://"])
def test_an_address_is_checked_before_a_local_s3_is_started_for_it(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.HOME / "s3").mkdir(parents=True)
    monkeypatch.setattr("moaa.store.local.serve", lambda folder: pytest.fail("it was started"))
    with pytest.raises(StoreError, match=f"'{root}' is not an S3 address. Write s3://BUCKET/PREF"):
        runs.list_runs(None, root, 20)
    with pytest.raises(StoreError, match="is not an S3 address"):
        runs.report(None, None, root, Path("report.html"))
