"""Lease arithmetic and the names that charts, launcher and reaper share."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from moaa.errors import EngineError, MoaaError
from moaa.kubernetes import leases, names
from moaa.kubernetes.names import IDLE_REPLICAS, LEASES, REPLICAS

NOW = 1000.0
A, B, GONE = "run-1/generate/aa", "run-2/label/bb", "run-0/generate/cc"


def held(**ends: float) -> dict[str, str]:
    return {
        LEASES: json.dumps({{"a": A, "b": B, "gone": GONE}[who]: end for who, end in ends.items()})
    }


def test_live_are_those_that_have_not_run_out() -> None:
    assert leases.live({}, NOW) == {}
    assert leases.live(held(a=1000.5, b=1000.0, gone=3), NOW) == {A: 1000.5}


def test_a_lease_is_added_and_renewed_and_dead_ones_are_cleaned() -> None:
    first = leases.add({}, A, NOW)
    assert leases.read(first) == {A: NOW + 120}
    both = leases.add(first, B, NOW - 100)
    assert leases.read(both) == {A: NOW + 120, B: NOW + 20}
    renewed = leases.add(both, A, NOW + 30)
    assert leases.read(renewed) == {A: NOW + 150}  # B's ran out meanwhile


def test_release_takes_only_its_own() -> None:
    assert leases.read(leases.release(held(a=2000, b=2000, gone=1), A, NOW)) == {B: 2000}
    assert leases.release(held(a=2000), A, NOW) == {
        LEASES: "{}"
    }  # it stays: an object once leased is told from one never
    assert leases.release({}, A, NOW) == {LEASES: "{}"}


def test_release_of_a_run_takes_all_its_stages_and_no_namesake() -> None:
    annotations = {
        LEASES: json.dumps({"run-1/sft/x": 2000, "run-1/label/y": 2000, "run-11/sft/z": 2000})
    }
    assert leases.read(leases.release_run(annotations, "run-1", NOW)) == {"run-11/sft/z": 2000}


HOLDERS = some.sampled_from([f"run-{n}/{stage}/x" for n in (1, 11, 2) for stage in ("sft", "dpo")])
CHANGES = some.lists(
    some.tuples(some.sampled_from(["add", "release", "expire"]), HOLDERS, some.floats(0, 300)),
    max_size=20,
)


@given(CHANGES)
def test_whatever_happens_live_are_those_that_were_added_and_neither_ended_nor_expired(
    changes: list[tuple[str, str, float]],
) -> None:
    annotations: dict[str, str] = {}
    ends: dict[str, float] = {}
    now = NOW
    for what, holder, pause_s in changes:
        now += pause_s
        if what == "add":
            annotations = leases.add(annotations, holder, now)
            ends[holder] = round(now + leases.LEASE_S, 3)
        elif what == "release":
            annotations = leases.release(annotations, holder, now)
            ends.pop(holder, None)
        else:
            annotations = leases.expire(annotations, now)
        ends = {each: end for each, end in ends.items() if end > now}
        assert leases.read(annotations) == ends, "each change drops expired leases"
    if annotations:
        left = leases.read(leases.release_run(annotations, "run-1", now))
        assert left == {each: end for each, end in ends.items() if not each.startswith("run-1/")}


@pytest.mark.parametrize(
    ("annotations", "replicas", "wanted"),
    [
        (held(a=2000), 0, 1),
        (held(a=2000) | {REPLICAS: "3"}, 0, 3),
        (held(a=2000) | {REPLICAS: "3"}, 5, 5),  # never fewer while it is leased
        (held(a=999) | {REPLICAS: "3"}, 3, 0),
        ({REPLICAS: "3"}, 3, 0),
        ({REPLICAS: "3", IDLE_REPLICAS: "1"}, 3, 1),
        ({IDLE_REPLICAS: "2"}, 0, 0),  # scaled by hand to fewer: left alone
    ],
)
def test_scaled(annotations: dict[str, str], replicas: int, wanted: int) -> None:
    assert leases.scaled(annotations, replicas, NOW) == wanted


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"a": "soon"}', '{"a": null}'])
def test_a_foreign_annotation_is_an_error_that_says_how_to_remove_it(text: str) -> None:
    with pytest.raises(MoaaError, match=re.escape(f"holds '{text}'") + ".*kubectl annotate"):
        leases.live({LEASES: text}, NOW)


def test_a_number_of_replicas_that_is_none() -> None:
    with pytest.raises(MoaaError, match=r"moaa\.dev/replicas is 'two'"):
        leases.scaled(held(a=2000) | {REPLICAS: "two"}, 0, NOW)


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


def test_the_holder_is_this_process_s_run_and_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.RUN_ENV, "run-9")
    monkeypatch.setenv(names.STAGE_ENV, "label")
    assert re.fullmatch("run-9/label/[0-9a-f]{8}", names.holder())
    assert names.holder() != names.holder()
    assert names.holder("r", "s").startswith("r/s/")


def test_labels_and_names_of_work() -> None:
    assert names.work_labels("demo run#1", "sft") == {
        "app.kubernetes.io/part-of": "moaa",
        "moaa.dev/run": "demo-run-1",
        "moaa.dev/stage": "sft",
    }
    assert len(names.label("x" * 100)) == 63
    assert names.training("sft", "0123456789abcdef") == "moaa-sft-0123456789ab"
    assert (names.runtime(), names.runtime("a100")) == ("moaa-train-default", "moaa-train-a100")
