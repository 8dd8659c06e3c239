"""Check that the core image works: a step that fails stops its build.

It imports each installed library and each module of ours, loads each shared library, and uses what
trimming could break: Parquet, S3, data sets, the command line.
Of our modules it passes over those that need a library that this image does not have on purpose
(torch).
"""

from __future__ import annotations

import ctypes
import importlib
import io
import pkgutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path

USED_LATER = ["pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "kfp.dsl.executor_main"]
"""Modules that libraries and stages import only when they use them."""


def check_imports() -> list[str]:
    """Import everything. Returns our modules that were passed over, each with what it lacks."""
    found = packages_distributions()
    installed = sorted(name for name in found if name.isidentifier() and not name.startswith("_"))
    for name in [*installed, *USED_LATER]:
        importlib.import_module(name)
    passed_over = []
    for module in pkgutil.walk_packages(importlib.import_module("moaa").__path__, "moaa."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] in installed:
                raise
            passed_over.append(f"{module.name} ({error.name})")
    return passed_over


def check_shared_libraries() -> int:
    """Load each shared library below site-packages. Returns how many there are."""
    libraries = sorted(Path(sysconfig.get_path("platlib")).rglob("*.so*"))
    for library in libraries:
        ctypes.CDLL(str(library))
    return len(libraries)


def check_parquet_and_datasets() -> None:
    """Write a Parquet file with zstd, read it, and load it as a data set of the hub's library."""
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"id": str(n), "row": f"text {n}"} for n in range(1000)]
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/rows.parquet"
        parquet.write_table(pa.Table.from_pylist(rows), file, compression="zstd")
        assert parquet.read_table(file).to_pylist() == rows
        for streaming in (False, True):
            loaded = datasets.load_dataset(
                "parquet", data_files=file, split="train", streaming=streaming, cache_dir=folder
            )
            assert list(loaded) == rows


def check_s3() -> None:
    """Put and get an object by boto3, at a server that stores it."""
    import boto3

    objects: dict[str, bytes] = {}

    class Server(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(objects[self.path])

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region_name="us-east-1",
        **keys,
    )
    s3.upload_fileobj(io.BytesIO(b"content"), "bucket", "key")
    assert objects, "nothing was uploaded"
    s3.get_object(Bucket="bucket", Key="key")["Body"].read()
    boto3.client("sts", region_name="us-east-1", **keys)
    server.shutdown()


def check_command() -> None:
    """Run our command and Kubeflow's entry of a stage, as pods do."""
    moaa = Path(sys.executable).with_name("moaa")
    for command in ([moaa, "--help"], [sys.executable, "-m", "kfp.dsl.executor_main", "--help"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    passed_over = check_imports()
    libraries = check_shared_libraries()
    check_parquet_and_datasets()
    check_s3()
    check_command()
    print(f"imported all, loaded {libraries} shared libraries", file=sys.stderr)
    for module in passed_over:
        print(f"  not imported: {module}", file=sys.stderr)


if __name__ == "__main__":
    main()
