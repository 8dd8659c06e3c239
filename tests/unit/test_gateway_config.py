"""The file of a gateway: each mistake with its line, and what to do."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from moaa.errors import RecipeError
from moaa.gateway import fields
from moaa.gateway.access import Access
from moaa.gateway.config import load_config, missing_keys, parse_config
from moaa.gateway.keys import load_keys
from moaa.gateway.wire import ApiError
from moaa.recipe.fields import END
from tests.support.paths import ROOT

GOOD = """\
anonymous: true
models:
  smol:
    endpoints: [http://127.0.0.1:8000/v1, http://127.0.0.1:8001/v1]
  Qwen/Qwen2-72B:
    endpoints: [https://big.example/v1]
    key_env: BIG_API_KEY
"""
HASH = hashlib.sha256(b"one").hexdigest()


def mistakes(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_config(text, "g.yaml")
    return str(caught.value).splitlines()


def test_a_file_for_a_laptop() -> None:
    config = parse_config(GOOD, "g.yaml")
    assert config.names == ["smol", "Qwen/Qwen2-72B"]
    assert config.anonymous
    assert not config.anonymous.wake


def test_the_environment_must_have_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(GOOD, "g.yaml")
    monkeypatch.delenv("BIG_API_KEY", raising=False)
    (said,) = missing_keys(config)
    assert "BIG_API_KEY is not set" in said
    assert "https://big.example:443" in said
    monkeypatch.setenv("BIG_API_KEY", "x")
    assert missing_keys(config) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "g.yaml: the file of a gateway is a mapping of fields"),
        ("models: {", "g.yaml:1: this is not YAML"),
        (GOOD.replace("anonymous", "anonymus"), "g.yaml:1: anonymus is not a known field. Did you"),
        (GOOD.replace("anonymous: true\n", ""), "keys: there is no key, so nobody could ask"),
        (GOOD.replace("anonymous: true", "anonymous: false"), "there is no key"),
        ("anonymous: true\n", "g.yaml:1: models: there is no model"),
        (GOOD.replace("8000/v1", "8000/v1?key=a"), "g.yaml:4: models.smol.endpoints[0]: the addr"),
        (GOOD.replace("8001", "8000"), "the same address is listed twice"),
        (GOOD.replace("https://big", "http://big"), "g.yaml:6: models.Qwen/Qwen2-72B.endpoints[0]"),
        (GOOD.replace("BIG_API_KEY", "sk-abcdefghijklmnop1234"), "begins like a secret"),
        (GOOD.replace("smol:", "smol@1:"), "g.yaml:3: "),
        (GOOD + "port: 99999\n", "g.yaml:8: port is 99999."),
        (GOOD + "limits: {in_flight: 0}\n", "g.yaml:8: limits.in_flight is 0."),
        (GOOD + "keys: [{name: a, sha256: secret}]\n", "keys[0].sha256"),
        (GOOD + f"keys: [{{name: a, sha256: {HASH}, models: [x]}}]\n", "'x' is not one of the mo"),
        (GOOD + f"keys: [{{name: a, sha256: {HASH}}}, {{name: b, sha256: {HASH}}}]\n", "keys[1]"),
        (GOOD.replace("true", "{models: [none]}"), "anonymous.models[0]: 'none' is not one of"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    found = mistakes(text)
    assert any(said in line for line in found), found
    assert all(line.startswith("g.yaml") for line in found)


def test_a_secret_is_not_repeated() -> None:
    given = GOOD.replace("BIG_API_KEY", "sk-abcdefghijklmnop1234")
    assert "abcdefghijklmnop" not in "\n".join(mistakes(given))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: the file cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"page: \xe9")
    with pytest.raises(RecipeError, match=r"latin\.yaml: .*it is not text in UTF-8\. Save it as"):
        load_config(path)


def test_a_file_that_is_no_document_has_one_error() -> None:
    assert len(mistakes("")) == 1


def keys_file(path: Path, *names: str) -> None:
    """Replaced as Kubernetes replaces a mounted Secret: by another file of that name."""
    keys = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"keys": keys}))
    os.replace(part, path)  # noqa: PTH105


def test_keys_of_a_file_are_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    keys_file(path, "one")
    text = GOOD.replace("anonymous: true", f"keys_file: {path}")
    access = Access(parse_config(text, "g.yaml"))
    assert access.caller("Bearer one").name == "one"
    assert not access.read_keys()
    keys_file(path, "two")
    assert access.read_keys()
    assert access.caller("Bearer two").name == "two"
    with pytest.raises(ApiError):
        access.caller("Bearer one")
    path.write_text("keys: [{name: three}]")
    with pytest.raises(RecipeError, match=r"keys\.yaml:1: keys\[0\]\.sha256 is missing"):
        access.read_keys()
    assert access.caller("Bearer two").name == "two"


def test_mistakes_in_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    for text, said in (
        ("[]", "a file of keys is a mapping"),
        ("{}", "keys is missing"),
        (f"keys: [{{name: a, sha256: {HASH}, wakes: true}}]", "Did you mean 'wake'?"),
        (f"keys: [{{name: a, sha256: {HASH}}}, {{name: a, sha256: {HASH}}}]", "is the same as"),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError, match=r"keys\.yaml") as caught:
            load_keys(path)
        assert said in str(caught.value)


PAGE = (ROOT / "docs/gateway.md").read_text(encoding="utf-8")


def test_the_tables_of_the_page_are_those_of_the_schema() -> None:
    written = PAGE.partition(fields.START)[2].partition(END)[0].strip()
    assert written == fields.tables().strip(), "run: python -m moaa.gateway.fields docs/gateway.md"


def test_the_example_of_the_page_is_right() -> None:
    (example,) = re.findall("```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert parse_config(example, "g.yaml").names == ["smol", "big"]
