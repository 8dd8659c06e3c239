"""What a store may do to us: it goes away, ends the keys, is old, is somebody else's."""

from __future__ import annotations

import base64
import hashlib
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from moaa.errors import StoreAway, StoreError
from moaa.store import KeyNames, Store
from tests.support.bad_s3 import KEYS, BadS3, Handler, Script, error, hangs_up, ok

QUARTER_H_S = 15 * 60


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only pauses move, and ten times as far, so that there are fewer of them."""
    clock = SimpleNamespace(now=0.0, paused=0)

    def sleep(s: float) -> None:
        clock.now += 10 * s
        clock.paused += 1

    fake = SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr("moaa.store.retry.time", fake)
    monkeypatch.setattr("moaa.store.client.time", fake)
    return clock


def away_until(s: float, clock: SimpleNamespace, trouble: Script, then: Script) -> Script:
    def step(handler: Handler, body: bytes) -> None:
        handler.bad.script.append(step)
        (trouble if clock.now < s else then)(handler, body)

    return step


@pytest.mark.parametrize(
    "trouble", [hangs_up, error(500, "InternalError"), error(503, "ServiceUnavailable")]
)
@pytest.mark.parametrize("call", ["get", "put", "upload"])
def test_a_quarter_of_an_hour_without_a_store_is_survived_and_said_once(
    bad: BadS3,
    clock: SimpleNamespace,
    trouble: Script,
    call: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # boto3's own attempts pause for real: one is enough here
    monkeypatch.setattr("moaa.store.client.ATTEMPTS", 1)
    monkeypatch.setattr(logging.getLogger("moaa"), "propagate", True)
    store = bad.store()
    bad.script = [ok(b"x")]
    store.get("s3://bucket/a")
    bad.script = [away_until(QUARTER_H_S, clock, trouble, ok(b"x" if call == "get" else b""))]
    (tmp_path / "weights").write_bytes(b"w")
    with caplog.at_level(logging.INFO, "moaa"):
        match call:
            case "get":
                assert store.get("s3://bucket/a") == b"x"
            case "put":
                store.put("s3://bucket/a", b"x")
            case _:
                store.upload(tmp_path / "weights", "s3://bucket/weights")
    assert clock.now >= QUARTER_H_S
    said = [record.message for record in caplog.records if record.name == "moaa"]
    assert len(said) == 2, said
    assert "does not answer" in said[0]
    assert "kept in memory" in said[0]
    assert "answers again" in said[1]


def test_a_store_that_stays_away_is_an_outside_fault(
    bad: BadS3, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moaa.store.client.ATTEMPTS", 1)
    store = bad.store()
    bad.script = [ok(b"x")]
    store.get("s3://bucket/a")
    bad.script = [away_until(1e9, clock, hangs_up, ok())]
    with pytest.raises(StoreAway, match="cannot connect") as caught:
        store.get("s3://bucket/a")
    assert caught.value.outside
    assert QUARTER_H_S < clock.now < 2 * QUARTER_H_S


def test_a_wrong_address_or_wrong_keys_are_no_outside_fault(bad: BadS3) -> None:
    for script in ([hangs_up] * 3, [error(403, "InvalidAccessKeyId")]):
        bad.script = list(script)
        with pytest.raises(StoreError) as caught:
            bad.store().get("s3://bucket/a")
        assert not caught.value.outside


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "RequestExpired"])
def test_keys_that_end_in_the_middle_are_read_again_then_a_clear_error(
    bad: BadS3, code: str
) -> None:
    environ = {**KEYS, "AWS_SESSION_TOKEN": "old", "AWS_ENDPOINT_URL_S3": bad.url}
    store = Store("s3://bucket/root", environ=environ)
    bad.script = [ok(b"x")]
    store.get("s3://bucket/a")
    bad.script = [error(400, code), error(400, code)]
    with pytest.raises(StoreAway, match="Renew the keys in") as caught:
        store.get("s3://bucket/a")
    assert "nothing that was computed is lost" in str(caught.value)
    environ["AWS_SESSION_TOKEN"] = "new"
    bad.script = [error(400, code), ok(b"y")]
    assert store.get("s3://bucket/a") == b"y"
    tokens = [each.get("x-amz-security-token") for each in bad.headers]
    assert tokens == ["old", "old", "old", "old", "new"]


def test_a_session_token_is_not_sent_with_keys_of_other_names(bad: BadS3) -> None:
    environ = {"MY_KEY": "k", "MY_SECRET": "s", "AWS_SESSION_TOKEN": "of other keys"}
    bad.script = [ok(), ok()]
    for token in (None, "MY_TOKEN"):
        store = Store(
            "s3://bucket",
            endpoint_url=bad.url,
            environ={**environ, "MY_TOKEN": "mine"},
            keys=KeyNames("MY_KEY", "MY_SECRET", token),
        )
        store.get("s3://bucket/a")
    assert [each.get("x-amz-security-token") for each in bad.headers] == [None, "mine"]


def wants_md5(handler: Handler, body: bytes) -> None:
    """DeleteObjects of stores that do not know boto3's newer checksums."""
    digest = base64.b64encode(hashlib.md5(body).digest()).decode()
    if handler.headers.get("Content-MD5") == digest:
        handler.answer(200, b"<DeleteResult/>")
    else:
        error(400, "MissingContentMD5")(handler, body)


def test_a_store_that_wants_content_md5_deletes(bad: BadS3) -> None:
    bad.script = [wants_md5]
    bad.store().delete("s3://bucket/a", "s3://bucket/b")
    assert bad.requests == ["POST"]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "MissingContentMD5"), (501, "NotImplemented"), (405, "")]
)
def test_a_store_without_deletions_of_many_deletes_one_by_one(
    bad: BadS3, status: int, code: str
) -> None:
    bad.script = [error(status, code), ok(), ok()]
    bad.store().delete("s3://bucket/a", "s3://bucket/b")
    assert bad.requests == ["POST", "DELETE", "DELETE"]


def test_every_call_names_the_account_that_the_bucket_must_belong_to(
    bad: BadS3, tmp_path: Path
) -> None:
    """s3://moaa is somebody's: without it, results and keys' signatures would go there."""
    listed = ok(
        b"<ListBucketResult><Contents><Key>d/a</Key><Size>1</Size></Contents></ListBucketResult>"
    )
    uploads = ok(
        b"<ListMultipartUploadsResult><Upload><Key>d/a</Key><UploadId>i</UploadId></Upload>"
        b"</ListMultipartUploadsResult>"
    )
    store = bad.store(expected_owner="123456789012")
    (tmp_path / "file").write_bytes(b"x")
    head = lambda handler, _: handler.answer(200, b"", length=1, ETag='"e"')  # noqa: E731
    bad.script = [ok(), ok(), ok(), head, head, ok(), ok(b"x")]
    store.put("s3://bucket/d/a", b"")
    store.put_new("s3://bucket/d/a", b"")
    store.get("s3://bucket/d/a")
    assert store.exists("s3://bucket/d/a")
    assert store.versions("s3://bucket/d/a") == {"s3://bucket/d/a": "e 1"}
    store.upload(tmp_path / "file", "s3://bucket/d/a")
    store.download("s3://bucket/d/a", tmp_path / "copy")
    bad.script = [listed, ok(b"<DeleteResult/>"), uploads, ok()]
    store.delete_prefix("s3://bucket/d")
    owners = [each.get("x-amz-expected-bucket-owner") for each in bad.headers]
    assert owners == ["123456789012"] * len(bad.requests)
    assert len(owners) == 11


def test_a_bucket_of_another_account_says_which_account_was_expected(bad: BadS3) -> None:
    bad.script = [error(403, "AccessDenied")]
    with pytest.raises(StoreError, match=r"belong to the account 123456789012 \(store\.exp"):
        bad.store(expected_owner="123456789012").get("s3://bucket/a")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_not_asked_for_a_store_on_this_machine(
    bad: BadS3, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    bad.script = [ok(b"x")]
    assert bad.store().get("s3://bucket/a") == b"x"
