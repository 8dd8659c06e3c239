"""The few HTTP endpoints of Kubeflow Pipelines' API (v2beta1) that a submission uses, with its
refusals as measured on 2.17.

with KfpServer() as kfp:
    kfp.states = ["PENDING", "RUNNING", "SUCCEEDED"]     # one for each look; the last one stays
    ... kfp.url ...
    kfp.runs[0]["runtime_config"]["parameters"]
"""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class KfpServer:
    def __init__(self) -> None:
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.states = ["SUCCEEDED"]
        self.failing = 0
        """So many of the next requests are answered by 503."""
        self.token: str | None = None
        """Where set, requests without it are refused."""
        self.multi_user = False
        self.looks = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        match method, path.removeprefix("/apis/v2beta1/").split("/"):
            case "GET", ["healthz"]:
                return 200, {"multi_user": self.multi_user}
            case "GET", ["experiments"]:
                wanted = json.loads(query["filter"][0])["predicates"][0]["stringValue"]
                return 200, {
                    "experiments": [e for e in self.experiments if e["display_name"] == wanted]
                }
            case "POST", ["experiments"]:
                self.experiments.append({**body, "experiment_id": str(uuid.uuid4())})
                return 200, self.experiments[-1]
            case "POST", ["runs"]:
                return self._start(body)
            case "GET", ["runs"]:
                wanted = json.loads(query["filter"][0])["predicates"][0]
                assert wanted["operation"] == "EQUALS"
                named = [run for run in self.runs if run[wanted["key"]] == wanted["stringValue"]]
                return 200, {"runs": named[::-1][: int(query["page_size"][0])]}
            case "GET", ["runs", run_id]:
                found = next((run for run in self.runs if run["run_id"] == run_id), None)
                if found is None:
                    return 404, {"message": f"run {run_id} not found"}
                state = self.states[min(self.looks, len(self.states) - 1)]
                self.looks += 1
                return 200, {**found, "state": state}
        return 404, {"message": f"{method} {path} is not ours"}

    def _start(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        spec = body["pipeline_spec"]
        declared = spec.get("pipeline_spec", spec)["root"]["inputDefinitions"]["parameters"]
        given = body["runtime_config"].get("parameters") or {}
        if unknown := sorted(given.keys() - declared.keys()):
            message = f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}"
            return 400, {"message": f"Failed to create a new run: InvalidInputError: {message}"}
        types = {"STRING": str, "STRUCT": dict}
        for name, value in given.items():
            if not isinstance(value, types[declared[name]["parameterType"]]):
                kind = declared[name]["parameterType"].lower()
                message = f"input parameter {name} requires type {kind}"
                return 400, {"message": f"Failed to create a new run: {message}"}
        self.runs.append({**body, "run_id": str(uuid.uuid4())})
        return 200, self.runs[-1]


def _handler(server: KfpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            url = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if server.failing > 0:
                server.failing -= 1
                status, answer = 503, {"message": "upstream is restarting"}
            elif server.token and self.headers.get("authorization") != f"Bearer {server.token}":
                status, answer = (
                    401,
                    {"message": "Request header error: there is no user identity header."},
                )
            else:
                status, answer = server.answer(self.command, url.path, parse_qs(url.query), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
