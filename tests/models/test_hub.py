"""The Hub: networks go to a local server that speaks its protocol, and come back.

The clients run in processes of their own, because huggingface_hub reads its settings once.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet.models import LeNet1989

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories in memory: ``{"owner/name": {"config.json": b"..."}}``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if found is None or found[1] not in self.hub.repositories:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif found[2] not in ("main", COMMIT):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif found[3] not in self.hub.repositories[found[1]]:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            self.answer(404, b"{}", missing)
        else:
            content = self.hub.repositories[found[1]][found[3]]
            tag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "me"
            name = f"{owner}/{asked['name']}"
            self.hub.repositories.setdefault(name, {})
            self.answer(200, {"url": f"{self.address}/{name}", "name": name, "id": name})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.repositories[found[1]][line["value"]["path"]] = content
            address = f"{self.address}/{found[1]}/commit/{COMMIT}"
            self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": address})
        else:
            self.answer(200, {})

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.hub.server_port}"

    def answer(
        self, status: int, body: bytes | dict[str, object], headers: dict[str, str] | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def python(code: str, hub: Hub, folder: Path) -> str:
    """Run ``code`` against the server; what it printed."""
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": "hf_none",
    }
    header = (
        "import torch; torch.set_num_threads(1)\n"
        "from alexnet.errors import AlexnetError\n"
        "from alexnet.models import *\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", header + code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_and_back(hub, tmp_path):
    sent = python(
        "torch.manual_seed(0)\n"
        "net = create_model('lenet5_dense', num_classes=3).eval()\n"
        "print(net.push_to_hub('someone/digits'))\n"
        "print(net(torch.ones(1, 1, 32, 32)).tolist())\n",
        hub,
        tmp_path,
    )
    address, logits = sent.splitlines()
    assert address.endswith(f"/someone/digits/commit/{COMMIT}")
    files = hub.repositories["someone/digits"]
    assert files.keys() == {"config.json", "model.safetensors", "README.md"}
    assert b"library_name: alexnet" in files["README.md"]
    got = python(
        "x = torch.ones(1, 1, 32, 32)\n"
        "print(load_run('hf:someone/digits').network(x).tolist())\n"
        "print(Network.from_pretrained('someone/digits')(x).tolist())\n"
        "print(LeNet5Dense.from_pretrained('hf:someone/digits@main')(x).tolist())\n"
        "print(create_model('lenet5_dense', weights='hf:someone/digits').eval()(x).tolist())\n",
        hub,
        tmp_path,
    )
    for line in got.splitlines():
        assert json.loads(line)[0] == pytest.approx(json.loads(logits)[0], abs=1e-6)
    assert len(got.splitlines()) == 4


def test_what_is_not_there_is_one_line(hub, tmp_path):
    hub.repositories["someone/empty"] = {"README.md": b""}
    sources = ["hf:no/where", "hf:someone/empty", "hf:someone/empty@v9", "hf:not a name"]
    said = python(
        f"for source in {sources!r}:\n"
        "    try:\n"
        "        load_run(source)\n"
        "    except AlexnetError as error:\n"
        "        print(error.exit_code, error)\n",
        hub,
        tmp_path,
    ).splitlines()
    assert len(said) == 4
    assert said[0].startswith("2 no repository 'no/where' on the Hugging Face Hub")
    assert "someone/empty on the Hugging Face Hub has no config.json" in said[1]
    assert "someone/empty has no revision 'v9'" in said[2]
    assert "no repository 'not a name'" in said[3]


def test_no_network_is_one_line(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    said = python(
        "for act in (lambda: load_run('hf:some/one', local_files_only=True), "
        "lambda: create_model('lenet5').push_to_hub('some/one')):\n"
        "    try:\n"
        "        act()\n"
        "    except AlexnetError as error:\n"
        "        print(error.exit_code, error)\n",
        hub,
        tmp_path,
    ).splitlines()
    assert len(said) == 2
    assert said[0].startswith("3 cannot reach the Hugging Face Hub for some/one/config.json")
    assert said[1].startswith("3 cannot upload to some/one (")


def test_save_pretrained_writes_a_card_once(tmp_path):

    network = LeNet1989()
    assert network.save_pretrained(tmp_path, config={"note": "kept"}) is None
    assert json.loads((tmp_path / "config.json").read_text())["note"] == "kept"
    (tmp_path / "README.md").write_text("mine")
    network.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
