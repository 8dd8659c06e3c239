"""Keeps other users of this machine out of the local S3: its keys, and the rights of its files.

SeaweedFS's filer, volume server and gRPC ports require no key unless its file `security.toml` says
so. Below the server's directory, which only its owner can open:
    keys.json        the S3's two keys
     security.toml    keys that sign the requests between the parts of the server
     tls/             a certificate that only the parts of this server have, for gRPC
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

_SIGNED = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_PARTS = ("master", "volume", "filer", "s3", "client", "admin", "worker", "msg_broker", "mq")


def keys(directory: Path) -> dict[str, str]:
    """Return the S3's keys; the first caller creates them."""
    path = directory / "keys.json"
    if not path.exists():
        made = {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        }
        _write_once(path, json.dumps(made))
    found: dict[str, str] = json.loads(path.read_text())
    return found


def keep_out_others(directory: Path) -> None:
    """Make the directory accessible only to its owner, and make every port require a key."""
    directory.chmod(0o700)
    tls = directory / "tls"
    tls.mkdir(mode=0o700, exist_ok=True)
    if not (tls / "own.crt").exists():
        _write_certificate(tls)
    lines = ["[access]", "ui = false"]
    for name in _SIGNED:
        lines += [f"[{name}]", f'key = "{secrets.token_hex(32)}"']
    lines += ["[grpc]", f'ca = "{tls}/own.crt"']
    for part in _PARTS:
        lines += [f"[grpc.{part}]", f'cert = "{tls}/own.crt"', f'key = "{tls}/own.key"']
    path = directory / "security.toml"
    path.unlink(missing_ok=True)  # one server at a time: the next one makes new keys
    _write_once(path, "\n".join(lines) + "\n")


def _write_certificate(folder: Path) -> None:
    """Write a key, and a certificate signed with it: the one that all parts trust."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "moaa local S3")])
    now = datetime.now(UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write_once(folder / "own.key", text.decode())
    _write_once(folder / "own.crt", certificate.public_bytes(serialization.Encoding.PEM).decode())


def _write_once(path: Path, text: str) -> None:
    """Write a file that only its owner can read, unless another run was faster."""
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    # Unlike a rename, a link does not replace the keys of a run that was faster.
    with suppress(FileExistsError):
        path.hardlink_to(whole)
    whole.unlink()
