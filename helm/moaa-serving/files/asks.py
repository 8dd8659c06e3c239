"""`helm test`: the gateway is up and answers for each model that is: plain, mixture, streamed.

Argument: its address. API_KEY: a client's key.
"""

import json
import os
import sys
import urllib.error
import urllib.request

url, key = sys.argv[1], os.environ.get("API_KEY", "")
failed = 0


def ask(path, body=None):
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body else None
    return urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=120)


def whole(model):
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    with ask("/v1/chat/completions", body) as reply:
        answer = json.load(reply)
        revision = reply.headers.get("x-moaa-revision", "")
    tokens = answer["usage"]["completion_tokens"]
    return f"{tokens} tokens{' of revision ' if revision else ''}{revision}"


def streamed(model):
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    with ask("/v1/chat/completions", body | {"stream": True}) as reply:
        events = reply.read().decode().strip().split("\n\n")
    if events[-1] != "data: [DONE]" or any('"error"' in each[:20] for each in events):
        raise ValueError(f"the stream ends with {events[-1][:300]}")
    return f"{len(events) - 1} events, and its end"


with ask("/health") as reply:
    print(f"ok    the gateway: {json.load(reply)['status']}")
try:
    with ask("/v1/models") as reply:
        models = json.load(reply)["data"]
except urllib.error.HTTPError as error:
    if key or error.code != 401:
        raise
    print("ok    it asks for a key; gateway.test.secretName names none, so no model was asked")
    sys.exit(0)
for card in models:
    name, state = card["id"], card.get("state")
    kind = "mixture" if "mixture" in card else "promoted" if "slots" in card else "plain"
    if state != "ready":
        print(f"ok    {name} ({kind}): {state}, not asked")
        continue
    for what, way in (("whole", whole), ("stream", streamed)):
        try:
            print(f"ok    {name} ({kind}), {what}: {way(name)}")
        except Exception as error:
            failed += 1
            said = error.read().decode()[:300] if isinstance(error, urllib.error.HTTPError) else ""
            print(f"FAIL  {name} ({kind}), {what}: {error} {said}")
sys.exit(1 if failed else 0)
