"""`helm test`: the pipeline's account has the rights that it needs, and none that it must not have.

Arguments: "yes|no VERB RESOURCE[/SUBRESOURCE] GROUP [NAME]".
"""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
namespace, token = (ACCOUNT / "namespace").read_text(), (ACCOUNT / "token").read_text()
trust = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")


def allowed(verb: str, resource: str, group: str = "", name: str = "") -> bool:
    kind, _, part = resource.partition("/")
    asked = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": kind,
        "subresource": part,
        "name": name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    request = urllib.request.Request(
        f"{API}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        json.dumps(review).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=20, context=trust) as reply:
        return json.load(reply)["status"]["allowed"]


wrong = 0
for argument in sys.argv[1:]:
    wanted, *right = argument.split(" ")
    got = "yes" if allowed(*right) else "no"
    wrong += got != wanted
    print(f"{'ok  ' if got == wanted else 'FAIL'}  {' '.join(filter(None, right))}: {got}")
sys.exit(1 if wrong else 0)
