"""The job document: what it refuses, and how it is read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from moaa.errors import TrainError
from moaa.recipe.schema import Dpo, Sft, StoreAddress
from moaa.train.job import Job
from moaa.train.protocol import ERROR, parse, send


def job(kind="sft", numbers=None, **more) -> Job:
    numbers = numbers or (Dpo() if kind == "dpo" else Sft())
    return Job(
        kind=kind,
        numbers=numbers,
        base="b",
        data="s3://b/d",
        output="s3://b/o",
        store=StoreAddress(root="s3://b/r"),
        **more,
    )


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_job_survives_its_own_json(kind, tmp_path):
    (tmp_path / "job.json").write_text(job(kind).model_dump_json())
    again = Job.read(str(tmp_path / "job.json"))
    assert again == job(kind)
    assert type(again.numbers) is (Dpo if kind == "dpo" else Sft)


def test_numbers_of_the_other_kind_are_refused():
    with pytest.raises(ValidationError, match="a dpo job was given the numbers of Sft"):
        job("dpo", Sft())


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("{}", "is not a training job")]
)
def test_a_job_that_is_none_is_an_error_that_names_it(text, message, tmp_path):
    path = tmp_path / "job.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrainError, match=message) as error:
        Job.read(str(path))
    assert str(path) in str(error.value)


def test_what_is_wrong_with_a_job_is_told_without_its_values(tmp_path):
    path = tmp_path / "job.json"
    path.write_text(job().model_dump_json().replace('"sft"', '"S3CR3T"'))
    with pytest.raises(TrainError) as error:
        Job.read(str(path))
    text = str(error.value)
    assert "kind: Input should be 'sft' or 'dpo'" in text
    assert "S3CR3T" not in text
    assert "pydantic" not in text


def test_half_a_surrogate_pair_in_an_error_reaches_the_launcher(capfd):
    send(ERROR, rank=0, message="half \ud800 and é")
    (line,) = capfd.readouterr().out.splitlines()
    assert parse(line) == (ERROR, {"rank": 0, "message": "half \ud800 and é"})
