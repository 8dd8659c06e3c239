"""`helm test`: models that are always on answer with one token, a score or a vector; leased ones
have an address.

Arguments: "SERVICE MODEL REPLICAS TASK".
"""

import json
import os
import socket
import sys
import urllib.request

key = os.environ.get("VLLM_API_KEY", "")
failed = 0
PATHS = {"reward": "/classify", "embed": "/pooling"}
for service, model, replicas, task in (argument.split(" ") for argument in sys.argv[1:]):
    try:
        if replicas == "0":
            print(f"ok    {model}: leased, its address is {socket.gethostbyname(service)}")
            continue
        question = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        question |= {"max_tokens": 1} if task == "chat" else {}
        request = urllib.request.Request(
            f"http://{service}:8000{PATHS.get(task, '/v1/chat/completions')}",
            json.dumps(question).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            answer = json.load(reply)
        what = f"{answer['usage']['completion_tokens']} token" if task == "chat" else task
        print(f"ok    {model}: answered, {what}")
    except Exception as error:
        failed += 1
        print(f"FAIL  {model} at {service}: {error}")
sys.exit(1 if failed else 0)
