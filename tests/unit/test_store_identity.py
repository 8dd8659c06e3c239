"""Keys that are lent to a service account for an hour are renewed in time, by boto3 itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moaa.errors import StoreAway
from moaa.store import Store
from tests.support.bad_s3 import BadS3, Handler, error, ok, serve


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadS3]:
    with serve() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sts]:
    """A pod with an identity (IRSA): a token's file, a role, and an STS that lends keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text("first token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/moaa")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serve() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        yield Sts(server, tmp_path / "token")


class Sts:
    """Lends `key-1`, `key-2`, … for `lasts_s`; `tokens` are those that it was shown."""

    def __init__(self, server: BadS3, file: Path) -> None:
        self.file, self.server = file, server
        self.lasts_s = 3600.0
        self.tokens: list[str] = []
        server.script = [self._lend]

    def _lend(self, handler: Handler, body: bytes) -> None:
        self.server.script.append(self._lend)
        self.tokens += re.findall(r"WebIdentityToken=([^&]+)", body.decode())
        until = datetime.fromtimestamp(time.time() + self.lasts_s, UTC).isoformat()
        number = len(self.tokens)
        handler.answer(
            200,
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>key-{number}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
            f"<SessionToken>session-{number}</SessionToken><Expiration>{until}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>".encode(),
        )


def keys(s3: BadS3) -> list[str]:
    found = [re.findall(r"Credential=([^/]+)/", each["authorization"]) for each in s3.headers]
    sessions = [each["x-amz-security-token"] for each in s3.headers]
    return [f"{key} {session}" for (key,), session in zip(found, sessions, strict=True)]


def test_keys_of_an_identity_are_renewed_before_they_end(s3: BadS3, sts: Sts) -> None:
    """Kubernetes renews the token's file too: it is read again each time."""
    s3.script = [ok(b"x") for _ in range(4)]
    store = Store("s3://bucket/root")
    store.get("s3://bucket/a")
    store.get("s3://bucket/a")
    assert keys(s3) == ["key-1 session-1"] * 2
    sts.lasts_s = 1  # within boto3's ten minutes of the end
    again = Store("s3://bucket/root")
    again.get("s3://bucket/a")
    sts.file.write_text("second token")
    again.get("s3://bucket/a")
    assert keys(s3)[2:] != keys(s3)[:2]
    assert keys(s3)[3] != keys(s3)[2]
    assert sts.tokens[0] == "first+token"
    assert sts.tokens[-1] == "second+token"


def test_keys_that_the_store_calls_ended_are_asked_for_again(s3: BadS3, sts: Sts) -> None:
    """The clocks differ: boto3 believes in its keys, and the store does not."""
    s3.script = [ok(b"x"), error(400, "ExpiredToken"), ok(b"y")]
    store = Store("s3://bucket/root")
    store.get("s3://bucket/a")
    assert store.get("s3://bucket/a") == b"y"
    assert keys(s3) == ["key-1 session-1", "key-1 session-1", "key-2 session-2"]


def test_an_identity_that_is_taken_away_is_an_outside_fault(
    s3: BadS3, sts: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.script = [ok(b"x"), error(400, "ExpiredToken"), error(400, "ExpiredToken")]
    store = Store("s3://bucket/root")
    store.get("s3://bucket/a")
    with pytest.raises(StoreAway, match="Renew the keys"):
        store.get("s3://bucket/a")
