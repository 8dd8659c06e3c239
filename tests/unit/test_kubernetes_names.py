"""Names and labels of objects: valid, short enough, and never those of something else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from moaa.errors import EngineError
from moaa.kubernetes import names


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("smol", "smol"),
        ("Qwen2.5-72B_it", "qwen2-5-72b-it"),
        ("--a//b--", "a-b"),
        ("x" * 40, "x" * 40),
        ("smol+sft", "smol-sft"),
    ],
)
def test_dns(name: str, made: str) -> None:
    assert names.dns(name) == made


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    one, other = names.dns("m" * 60 + "1"), names.dns("m" * 60 + "2")
    assert one != other
    assert len(one) == len(other) == 40
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", names.dns("a" * 32 + "-" * 20 + "b" * 20))


@given(some.text(max_size=100))
def test_any_name_is_a_dns_label_or_refused(name: str) -> None:
    if re.search("[a-z0-9]", name.lower(), re.ASCII):
        made = names.dns(name)
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made)
        assert len(made) <= names.MAX_DNS
        assert names.dns(made) == made
    else:
        with pytest.raises(EngineError):
            names.dns(name)


@given(some.from_regex(r"[a-z0-9]{1,60}", fullmatch=True), some.text("a0", min_size=1, max_size=9))
def test_names_of_letters_and_digits_stay_apart(name: str, more: str) -> None:
    assert names.dns(name) != names.dns(name + more)


@given(some.text(max_size=100))
def test_any_text_is_a_label_value(text: str) -> None:
    assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", names.label(text))
    assert len(names.label(text)) <= 63


def test_names_that_cannot_be() -> None:
    with pytest.raises(EngineError, match="'\\?\\?' has no letter"):
        names.dns("??")
    with pytest.raises(EngineError, match=r"'a\.b' and 'a-b' would both be 'a-b'"):
        names.by_dns(["a.b", "c", "a-b"])
    assert names.by_dns(["A", "b", "b"]) == {"a": "A", "b": "b"}


def test_labels_and_names_of_work() -> None:
    assert names.work_labels("demo run#1", "sft") == {
        "app.kubernetes.io/part-of": "moaa",
        "moaa.dev/run": "demo-run-1",
        "moaa.dev/stage": "sft",
    }
    assert len(names.label("x" * 100)) == 63
    assert names.training("sft", "0123456789abcdef") == "moaa-sft-0123456789ab"
    assert (names.runtime(), names.runtime("a100")) == ("moaa-train-default", "moaa-train-a100")
