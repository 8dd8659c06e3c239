"""What a store does when the wire or the other side misbehaves: against a small server of ours that
speaks S3 badly."""

from __future__ import annotations

import time
from functools import partial
from urllib.parse import parse_qs, urlsplit

import pytest

from moaa import home
from moaa.errors import StoreError
from moaa.store import KeyNames, Missing, Store, split
from moaa.store.errors import StoreLocation, explain_refusal
from tests.support.bad_s3 import (
    KEYS,
    BadS3,
    Handler,
    Script,
    breaks_off,
    error,
    hangs_up,
    ok,
)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_a_proxy_in_the_environment_does_not_hide_the_store_of_this_machine(
    bad: BadS3, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: "The local S3 did not start (ProxyConnectionError)"."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    bad.script = [ok()]
    bad.store().put("s3://bucket/a", b"1")
    assert bad.requests == ["PUT"]


def test_a_conflict_of_conditional_writes_is_neither_won_nor_lost(bad: BadS3) -> None:
    bad.script = [
        error(409, "ConditionalRequestConflict"),
        error(409, "ConditionalRequestConflict"),
        ok(),
    ]
    assert bad.store().put_new("s3://bucket/a", b"1")
    assert bad.requests == ["PUT", "PUT", "PUT"]


def test_a_lost_conditional_write_is_lost(bad: BadS3) -> None:
    bad.script = [error(412, "PreconditionFailed")]
    assert not bad.store().put_new("s3://bucket/a", b"1")
    assert bad.requests == ["PUT"]


@pytest.mark.parametrize(("there", "won"), [(b"1", True), (b"2", False)])
def test_a_write_whose_answer_got_lost_is_won_if_the_object_is_ours(
    bad: BadS3, there: bytes, won: bool
) -> None:
    bad.script = [hangs_up, error(412, "PreconditionFailed"), ok(there)]
    assert bad.store().put_new("s3://bucket/a", b"1") is won
    assert bad.requests == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize(("there", "won"), [(b"new", True), (b"another's", False)])
def test_a_replacement_whose_answer_got_lost_is_won_if_the_object_is_ours(
    bad: BadS3, there: bytes, won: bool
) -> None:
    bad.script = [ok(b"old"), hangs_up, error(412, "PreconditionFailed"), ok(there)]
    assert bad.store().replace("s3://bucket/a", b"old", b"new") is won
    assert bad.requests == ["GET", "PUT", "PUT", "GET"]
    assert bad.headers[1]["if-match"] == bad.headers[2]["if-match"] == '"e"'


def test_an_object_that_was_deleted_meanwhile_is_not_replaced(bad: BadS3) -> None:
    bad.script = [ok(b"old"), error(404, "NoSuchKey")]
    assert not bad.store().replace("s3://bucket/a", b"old", b"new")


def test_a_body_that_breaks_off_is_read_again(bad: BadS3) -> None:
    bad.script = [breaks_off, ok(b"the whole")]
    assert bad.store().get("s3://bucket/a") == b"the whole"


def test_a_store_that_never_answered_is_given_up_on_at_once(bad: BadS3) -> None:
    bad.script = [hangs_up] * 3
    before = time.monotonic()
    with pytest.raises(StoreError, match="cannot connect to http"):
        bad.store().get("s3://bucket/a")
    assert time.monotonic() - before < 10


@pytest.mark.parametrize(
    "trouble", [hangs_up, error(500, "InternalError"), error(503, "ServiceUnavailable")]
)
def test_a_store_that_has_answered_is_given_time_to_come_back(bad: BadS3, trouble: Script) -> None:
    store = bad.store()
    bad.script = [
        error(404, "NoSuchKey"),
        *[trouble] * 6,
        ok(b"back"),
    ]  # boto3 itself asks three times
    with pytest.raises(Missing):
        store.get("s3://bucket/a")
    assert store.get("s3://bucket/a") == b"back"


def test_but_not_for_ever(bad: BadS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moaa.store.client.RETRY_S", 0.0)
    store = bad.store()
    bad.script = [ok(), *[hangs_up] * 10]
    store.get("s3://bucket/a")
    with pytest.raises(StoreError, match="cannot connect to http"):
        store.get("s3://bucket/a")


def test_something_that_is_no_s3_is_not_an_absent_object(bad: BadS3) -> None:
    bad.script = [lambda handler, _: handler.answer(404, b"<html>nothing here</html>")]
    with pytest.raises(StoreError, match="does not look like an S3") as caught:
        bad.store().get("s3://bucket/a")
    assert not isinstance(caught.value, Missing)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (404, "NoSuchBucket", "Make the bucket 'bucket'"),
        (403, "InvalidAccessKeyId", "The keys in $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", "The keys in $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", "the right to read, write, list and delete"),
        (400, "AuthorizationHeaderMalformed", "another region than us-east-1"),
        (501, "NotImplemented", "conditional writes"),
        (400, "SomethingElse", "Try again"),
    ],
)
def test_a_refusal_names_store_object_code_and_remedy_but_no_secret(
    bad: BadS3, status: int, code: str, remedy: str
) -> None:
    bad.script = [error(status, code)]
    with pytest.raises(StoreError) as caught:
        bad.store().put("s3://bucket/a", b"1")
    message = str(caught.value)
    for part in (bad.url, "s3://bucket/a", code, remedy):
        assert part in message
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in message


def test_an_absent_object_is_missing(bad: BadS3) -> None:
    bad.script = [error(404, "NoSuchKey")]
    with pytest.raises(Missing, match="s3://bucket/a does not exist"):
        bad.store().get("s3://bucket/a")


def test_a_store_that_ignores_conditions_is_refused_by_check(bad: BadS3) -> None:
    bad.script = [ok(), ok(), ok(b"<DeleteResult/>")]
    with pytest.raises(StoreError, match="ignores If-None-Match"):
        bad.store().check()
    assert bad.requests == ["PUT", "PUT", "POST"]


def test_a_store_needs_no_if_match(bad: BadS3) -> None:
    listing = (
        b"<ListBucketResult><Contents><Key>%s</Key><Size>1</Size></Contents></ListBucketResult>"
    )

    def lists(handler: Handler, body: bytes) -> None:
        assert "If-Match" not in handler.headers
        prefix = parse_qs(urlsplit(handler.path).query)["prefix"][0]
        handler.answer(200, listing % f"{prefix}object".encode())

    exists = error(412, "PreconditionFailed")
    bad.script = [ok(), exists, ok(b"1"), lists, ok(b"<DeleteResult/>")]
    bad.store().check()
    assert bad.requests == ["PUT", "PUT", "GET", "GET", "POST"]


def test_keys_that_the_recipe_names_must_be_set(bad: BadS3) -> None:
    store = Store("s3://bucket", keys=KeyNames("MY_KEY", "MY_SECRET"), environ={"MY_KEY": "x"})
    with pytest.raises(StoreError, match=r"MY_SECRET is not set"):
        store.get("s3://bucket/a")


@pytest.mark.parametrize("uri", ["bucket/key", "s3://", "s3:///key", "/tmp/x", ""])
def test_what_is_no_s3_address_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="s3://BUCKET/PREFIX"):
        split(uri)


def test_addresses_are_split_at_the_bucket() -> None:
    assert split("s3://bucket/a/b c") == ("bucket", "a/b c")
    assert split("s3://bucket") == ("bucket", "")


def test_a_whole_bucket_is_not_deleted() -> None:
    with pytest.raises(StoreError, match="refusing"):
        Store("s3://bucket").delete_prefix("s3://bucket//")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize(
    "url", ["http://user:S3CR3T@h:9000", "http://h?key=S3CR3T", "S3CR3T", "http://S3CR3T..h"]
)
def test_an_address_in_the_environment_shows_no_secret(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv(name, url)
    for ask in (partial(Store, "s3://bucket"), home.named_s3):
        with pytest.raises(StoreError, match=f"variable {name} ") as caught:
            ask()
        assert "S3CR3T" not in str(caught.value)


def test_an_address_without_a_scheme_is_said_before_anything_is_asked() -> None:
    with pytest.raises(StoreError, match=r"AWS_ENDPOINT_URL_S3 must begin with http:// or https"):
        Store("s3://bucket", environ={"AWS_ENDPOINT_URL_S3": "127.0.0.1:9000"})


def test_aws_itself_is_named_by_its_region() -> None:
    assert "AWS S3 in eu-west-1" in explain_refusal(
        "NoSuchBucket", "", "b", StoreLocation(None, "eu-west-1", KeyNames("A", "B"))
    )
