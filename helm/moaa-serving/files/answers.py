"""`helm test`: models that are always on answer with one token; leased ones have an address.

Arguments: "SERVICE MODEL REPLICAS".
"""

import json
import os
import socket
import sys
import urllib.request

key = os.environ.get("VLLM_API_KEY", "")
failed = 0
for service, model, replicas in (argument.split(" ") for argument in sys.argv[1:]):
    try:
        if replicas == "0":
            print(f"ok    {model}: leased, its address is {socket.gethostbyname(service)}")
            continue
        question = {
            "model": model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
        }
        request = urllib.request.Request(
            f"http://{service}:8000/v1/chat/completions",
            json.dumps(question).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            usage = json.load(reply)["usage"]
        print(f"ok    {model}: answered, {usage['completion_tokens']} token")
    except Exception as error:
        failed += 1
        print(f"FAIL  {model} at {service}: {error}")
sys.exit(1 if failed else 0)
