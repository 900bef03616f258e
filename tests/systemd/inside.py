"""What the tests run inside the booted machine, where emulated AWS, the orchestrator and the upstream are on loopback.

python -m tests.systemd.inside prepare             wait for emulated AWS, then create what Terraform would
python -m tests.systemd.inside metadata            an instance metadata service, IMDSv2
python -m tests.systemd.inside submit PROMPT STEPS prints the job's id
python -m tests.systemd.inside job ID              prints the job
"""

from __future__ import annotations

import http.server
import json
import socket
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from services import devstack
from services.devstack.resources import BUCKET_NAME, aws_session, client_config, create_resources

AWS_PORT = 5000
METADATA_PORT = 1338
ORCHESTRATOR = "http://127.0.0.1:8080"
_START_LIMIT_S = 30.0
_PICTURE = Path(devstack.__file__).parent / "samples" / "portrait.jpg"


def prepare() -> None:
    give_up_at_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < give_up_at_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", AWS_PORT)) == 0:
                break
        time.sleep(0.05)
    endpoint_url = f"http://127.0.0.1:{AWS_PORT}"
    create_resources(endpoint_url)
    s3 = aws_session().client("s3", endpoint_url=endpoint_url, config=client_config())
    s3.put_object(Bucket=BUCKET_NAME, Key=_PICTURE.name, Body=_PICTURE.read_bytes())


class _Metadata(http.server.BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self._answer("token")

    def do_GET(self) -> None:
        self._answer("i-0fedcba9876543210")

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def submit(prompt: str, steps: str) -> None:
    body = {"image_url": f"s3://{BUCKET_NAME}/{_PICTURE.name}", "prompt": prompt, "steps": int(steps)}
    print(_ask("/api/v1/qwen-image-edit/jobs", body)["job_id"])


def job(job_id: str) -> None:
    print(json.dumps(_ask(f"/api/v1/jobs/{job_id}")))


def _ask(path: str, body: object = None) -> Any:
    headers = {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(ORCHESTRATOR + path, data, headers), timeout=20) as answer:
        return json.load(answer)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare"]:
            prepare()
        case ["metadata"]:
            http.server.HTTPServer(("127.0.0.1", METADATA_PORT), _Metadata).serve_forever()
        case ["submit", prompt, steps]:
            submit(prompt, steps)
        case ["job", job_id]:
            job(job_id)
