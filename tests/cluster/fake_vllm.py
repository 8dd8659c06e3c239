"""In a pod it stands in for `vllm.entrypoints.openai.api_server`: /health at once, answers only
after FAKE_START_S seconds.

Standard library only: it is mounted from a ConfigMap into a bare Python image.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--model")
parser.add_argument("--served-model-name")
parser.add_argument("--fingerprint-mode")
parser.add_argument("--fingerprint-value")
asked, rest = parser.parse_known_args()
began = time.monotonic()
ANSWERS = json.loads(os.environ.get("FAKE_ANSWERS", "{}"))
"""A part of a question, and the answer to it."""
running = 0
hangs = False
"""Whether it takes requests and answers none, from the question "Hang from now on." on."""


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer(200, {})
        if self.path == "/metrics":
            return self.answer(
                200, f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n"
            )
        return self.answer(
            200,
            {"data": [{"id": asked.served_model_name}], "arguments": rest, "model": asked.model},
        )

    def do_POST(self) -> None:
        global running, hangs
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("VLLM_API_KEY")
        if key and self.headers["Authorization"] != f"Bearer {key}":
            return self.answer(401, {"error": "Unauthorized"})
        if time.monotonic() - began < float(os.environ.get("FAKE_START_S", "0")):
            return self.answer(503, {"error": "loading"})
        if "stuck" in (asked.model or ""):  # it never becomes ready
            return self.answer(503, {"error": "loading"})
        if question["model"] != asked.served_model_name:
            return self.answer(404, {"error": "no such model"})
        if "bad" in (asked.model or "") and question.get("max_tokens") != 1:  # ready, and broken
            return self.answer(500, {"error": "this version is broken"})
        if question.get("stream"):
            return self.stream()
        running += 1
        if hangs:
            time.sleep(3600)
        hangs = any(each["content"] == "Hang from now on." for each in question["messages"])
        time.sleep(float(question.get("sleep_s", os.environ.get("FAKE_ANSWER_S", "0"))))
        running -= 1
        said, reason = "Hello", "length"
        for part, answer in ANSWERS.items():
            if part in question["messages"][-1]["content"]:
                said, reason = answer, "stop"
        message = {"role": "assistant", "content": said}
        choices = [{"index": 0, "message": message, "finish_reason": reason}]
        return self.answer(
            200,
            {
                "choices": choices,
                "usage": USAGE,
                "system_fingerprint": asked.fingerprint_value,
            },
        )

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in ("Hel", "lo"):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self.event({"choices": [choice], "system_fingerprint": asked.fingerprint_value})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": USAGE})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, chunk: dict[str, object]) -> None:
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1}
        chunk = {**head, "model": asked.served_model_name, **chunk}
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()

    def answer(self, status: int, body: object) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("0.0.0.0", asked.port), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", asked.served_model_name, flush=True)
server.serve_forever()
sys.exit(0)
