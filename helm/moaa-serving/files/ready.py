"""Exit status 0 if the model answers with one token, a score or a vector; /health alone is not
enough.

Arguments: port, model name, seconds, task (chat, reward or embed).
"""

import json
import os
import sys
import urllib.request

key = os.environ.get("VLLM_API_KEY", "")
port, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
task = sys.argv[4]
path = {"reward": "/classify", "embed": "/pooling"}.get(task, "/v1/chat/completions")
question = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
question |= {"max_tokens": 1, "temperature": 0} if task == "chat" else {}
request = urllib.request.Request(
    f"http://127.0.0.1:{port}{path}",
    json.dumps(question).encode(),
    {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
)
try:
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        answer = json.load(reply)
    if task != "chat":
        answer["data"][0]
    elif answer["usage"]["completion_tokens"] < 1:
        raise ValueError(f"an answer without a token: {answer}")
except Exception as error:  # whatever it is, the kubelet tries again
    sys.exit(f"{model} does not answer yet: {error}")
