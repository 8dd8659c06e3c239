"""What heals is tried again, for as long as it should be; what is left of killed uploads goes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import CredentialRetrievalError

from moaa.errors import StoreError
from moaa.store import Store
from moaa.store.errors import FILE_RETRY_WINDOWS, is_temporary
from moaa.store.retry import RetryWindow
from tests.support.bad_s3 import KEYS, BadS3, Handler, Script, error, hangs_up, ok


def asked(script: list[Script], seen: list[tuple[str, str, bytes]]) -> list[Script]:
    """The same script, which notes the method, path and body of each request."""

    def noting(step: Script) -> Script:
        def answer(handler: Handler, body: bytes) -> None:
            seen.append((handler.command, handler.path, body))
            step(handler, body)

        return answer

    return [noting(step) for step in script]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "RequestTimeout"),
        (400, "Throttling"),
        (409, "OperationAborted"),
        (500, "InternalError"),
    ],
)
def test_what_only_an_s3_says_of_a_passing_trouble_is_tried_again_whatever_its_status(
    bad: BadS3, status: int, code: str
) -> None:
    bad.script = [*[error(status, code)] * 3, ok(b"there")]  # boto3 itself asks up to three times
    assert bad.store().get("s3://bucket/a") == b"there"


def test_keys_that_could_not_be_renewed_are_asked_for_again_once_there_were_some() -> None:
    failed = CredentialRetrievalError(provider="web identity", error_msg="timed out")
    assert is_temporary(failed, reached=True)
    assert not is_temporary(failed, reached=False)


def test_a_transfer_that_worked_for_longer_than_the_patience_is_tried_again(
    bad: BadS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = SimpleNamespace(now=0.0)

    def late(handler: Handler, body: bytes) -> None:
        clock.now += 3600
        error(503, "SlowDown")(handler, body)

    monkeypatch.setattr(
        "moaa.store.retry.time",
        SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda s: None),
    )
    (tmp_path / "weights").write_bytes(b"w")
    bad.script = [*[late] * 3, ok()]  # boto3 itself asks three times
    bad.store().upload(tmp_path / "weights", "s3://bucket/weights")
    assert bad.requests == ["PUT"] * 4


@pytest.mark.parametrize(
    ("works_s", "tries", "ends_s"),
    [
        ([0.1] * 99, range(9, 20), (60, 70)),  # a store that is gone, by one that refuses at once
        (
            [3600, *[0.1] * 99],
            range(9, 20),
            (3660, 3670),
        ),  # gone after an hour of work: the patience begins then
        (
            [3600, 3600, 0.1, 3600, 0.1, 0.1],
            range(99, 100),
            (0, 0),
        ),  # three troubles in three hours
        ([600] * 99, range(5, 6), (3000, 3030)),  # never gets through
    ],
)
def test_patience_is_counted_from_the_first_failure_after_long_work_and_ends(
    monkeypatch: pytest.MonkeyPatch, works_s: list[float], tries: range, ends_s: tuple[float, float]
) -> None:
    clock = SimpleNamespace(now=0.0)

    def sleep(s: float) -> None:
        clock.now += s

    monkeypatch.setattr(
        "moaa.store.retry.time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )
    window = RetryWindow(60, FILE_RETRY_WINDOWS)
    for tried, work_s in enumerate(works_s, start=1):
        clock.now += work_s
        if not window.pause():
            assert tried in tries
            assert ends_s[0] <= clock.now <= ends_s[1]
            return
    assert ends_s == (0, 0), "it did not end"


def test_a_small_call_that_hangs_is_not_tried_for_a_quarter_of_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """boto3's own three attempts at a store that does not answer take three minutes."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        "moaa.store.retry.time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda s: None)
    )
    window = RetryWindow(60)
    for tries in (True, False):
        clock.now += 183
        assert window.pause() is tries


def test_a_store_that_others_have_reached_is_given_time_from_the_first_call_on(bad: BadS3) -> None:
    bad.script = [*[hangs_up] * 3, ok(b"back")]
    store = Store(
        "s3://bucket/root", environ={**KEYS, "AWS_ENDPOINT_URL_S3": bad.url}, reached=True
    )
    assert store.get("s3://bucket/a") == b"back"


def left(*errors: tuple[str, str]) -> Script:
    """The answer 200 of DeleteObjects where some keys were not deleted."""
    each = "".join(
        f"<Error><Key>{key}</Key><Code>{code}</Code><Message>said {code}</Message></Error>"
        for key, code in errors
    )
    return ok(f"<DeleteResult>{each}</DeleteResult>".encode())


def test_keys_that_were_not_deleted_for_a_passing_reason_are_deleted_again_and_no_others(
    bad: BadS3,
) -> None:
    seen: list[tuple[str, str, bytes]] = []
    bad.script = asked(
        [left(("b", "InternalError"), ("c", "SlowDown")), left(("c", "SlowDown")), left()], seen
    )
    bad.store().delete("s3://bucket/a", "s3://bucket/b", "s3://bucket/c")
    assert [re.findall(b"<Key>(.)</Key>", body) for _, _, body in seen] == [
        [b"a", b"b", b"c"],
        [b"b", b"c"],
        [b"c"],
    ]


def test_a_key_that_may_not_be_deleted_is_named_at_once(bad: BadS3) -> None:
    bad.script = [left(("a", "SlowDown"), ("b", "AccessDenied"))]
    with pytest.raises(
        StoreError, match=r"s3://bucket/b: .* AccessDenied said AccessDenied\. Check the keys"
    ):
        bad.store().delete("s3://bucket/a", "s3://bucket/b")
    assert bad.requests == ["POST"]


def test_parts_of_killed_uploads_below_a_prefix_go_with_it(bad: BadS3) -> None:
    uploads = "".join(
        f"<Upload><Key>{key}</Key><UploadId>id</UploadId></Upload>" for key in ("run/w", "run2/w")
    )
    seen: list[tuple[str, str, bytes]] = []
    listed = ok(
        b"<ListBucketResult><Contents><Key>run/a</Key><Size>1</Size></Contents></ListBucketResult>"
    )
    unfinished = ok(f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>".encode())
    bad.script = asked([listed, left(), unfinished, ok()], seen)
    bad.store().delete_prefix("s3://bucket/run")
    assert [(method, path.split("?")[0]) for method, path, _ in seen] == [
        ("GET", "/bucket"),
        ("POST", "/bucket"),
        ("GET", "/bucket"),
        ("DELETE", "/bucket/run/w"),
    ]
    assert "prefix=run%2F" in seen[2][1]


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed"), (403, "AccessDenied")]
)
def test_a_store_that_lists_no_uploads_deletes_nevertheless(
    bad: BadS3, status: int, code: str
) -> None:
    bad.script = [ok(b"<ListBucketResult/>"), error(status, code)]
    bad.store().delete_prefix("s3://bucket/run")
    assert bad.requests == ["GET", "GET"]
