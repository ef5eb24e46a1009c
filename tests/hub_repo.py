"""A local stand-in for the Hub as a place to publish: repositories, uploads, commits, downloads.

Speaks what a stock huggingface_hub speaks over HTTP (``_commit_api.py``, ``lfs.py``, ``hf_api.py``
of https://github.com/huggingface/huggingface_hub): small files inside the commit, large ones by
git-lfs. The Hub's newer storage protocol (xet) is not spoken here; clients switch it off.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.local_http import Quiet, answering

TOKEN = "hf_stand_in"  # not a real one
REVISION = "main"


@dataclass
class HubRepo:
    """One repository: its files, and how requests are answered.

    ``private`` None: it is not there yet. ``lfs_from``: files of so many bytes go by git-lfs.
    ``refuse``: status of every request whose path holds ``refuse_at``.
    """

    name: str
    private: bool | None = None
    lfs_from: int = 1000
    refuse: int | None = None
    refuse_at: str = "/"
    endpoint: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # git-lfs, by digest
    commits: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        """A commit's name: 40 hexadecimal digits of what the repository holds."""
        text = repr(sorted((path, sha256(data)) for path, data in self.files.items()))
        return sha256(text.encode())[:40]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def serving_repo(repo: HubRepo) -> Iterator[HubRepo]:
    """Run the stand-in."""
    with answering(_handler(repo)) as repo.endpoint:
        yield repo


def _handler(repo: HubRepo) -> type[BaseHTTPRequestHandler]:
    api, lock = f"/api/models/{repo.name}", threading.Lock()

    class HubHandler(Quiet, BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._download(body=False)

        def do_PUT(self) -> None:
            data = self._body()
            digest = self.path.rsplit("/", 1)[-1]
            if not self.path.startswith("/lfs/") or sha256(data) != digest:
                self._send(400)
                return
            repo.stored[digest] = data
            self._send(200)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if self._refused(path):
                return
            if path in (api, f"{api}/revision/{REVISION}", f"{api}/revision/{repo.sha}"):
                self._json(_info(repo))
            elif path.startswith(f"{api}/tree/"):
                self._json([{"type": "file", "path": p, "size": len(d), "oid": git_oid(d)}
                            for p, d in sorted(repo.files.items())])  # fmt: skip
            else:
                self._download(body=True)

        def do_POST(self) -> None:
            path, body = urlsplit(self.path).path, self._body()
            if self._refused(path):
                return
            if path == "/api/repos/create":
                self._create(json.loads(body))
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif path == f"{api}/preupload/{REVISION}":
                self._json({"files": [self._mode(f) for f in json.loads(body)["files"]]})
            elif path == f"/{repo.name}.git/info/lfs/objects/batch":
                objects = json.loads(body)["objects"]
                self._json({"transfer": "basic", "objects": [self._action(o) for o in objects]})
            elif path == f"{api}/commit/{REVISION}":
                with lock:
                    self._commit([json.loads(line) for line in body.splitlines()])
            else:
                self._send(404)

        def _refused(self, path: str) -> bool:
            repo.requests.append(f"{self.command} {path}")
            status = repo.refuse if repo.refuse_at in path else None
            if status is None and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status = 401
            if status is not None:
                self._send(status)
            return status is not None

        def _create(self, asked: dict[str, Any]) -> None:
            if f"{asked['organization']}/{asked['name']}" != repo.name:
                self._send(403)
                return
            there = repo.private is not None
            if not there:
                repo.private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self._json({"url": f"{repo.endpoint}/{repo.name}"}, 409 if there else 200)

        def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
            large = file["size"] >= repo.lfs_from
            there = repo.files.get(file["path"])
            return {
                "path": file["path"],
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": None if there is None else sha256(there) if large else git_oid(there),
            }

        def _action(self, asked: dict[str, Any]) -> dict[str, Any]:
            upload = {"href": f"{repo.endpoint}/lfs/{asked['oid']}"}
            return {**asked, "actions": {"upload": upload}}

        def _commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    repo.commits.append(value["summary"])
                elif line["key"] == "file":
                    repo.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repo.files[value["path"]] = repo.stored[value["oid"]]
                elif line["key"] == "deletedFile":
                    del repo.files[value["path"]]
            self._json({"commitUrl": f"{repo.endpoint}/{repo.name}/commit/{repo.sha}",
                        "commitOid": repo.sha})  # fmt: skip

        def _download(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            place = path.removeprefix(f"/{repo.name}/resolve/").partition("/")[2]
            data = repo.files.get(place)
            if data is None:
                self._send(404, {"X-Error-Code": "EntryNotFound"})
                return
            headers = {"ETag": f'"{sha256(data)}"', "X-Repo-Commit": repo.sha}
            self._send(200, headers, data, body=body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _json(self, data: Any, status: int = 200) -> None:
            self._send(status, {"Content-Type": "application/json"}, json.dumps(data).encode())

        def _send(
            self,
            status: int,
            headers: dict[str, str] | None = None,
            data: bytes = b"",
            *,
            body: bool = True,
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    return HubHandler


def _info(repo: HubRepo) -> dict[str, Any]:
    siblings = [{"rfilename": path} for path in sorted(repo.files)]
    return {"id": repo.name, "private": repo.private, "sha": repo.sha, "siblings": siblings}


def git_oid(data: bytes) -> str:
    """git's own name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
