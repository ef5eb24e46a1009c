"""A local stand-in for the Hugging Face Hub: enough of its file protocol for one small file.

Headers and error codes as the real Hub sends them:
https://github.com/huggingface/huggingface_hub (``file_download.py``, ``hf_raise_for_status``).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from fluxvae.networks.catalog import HubFile
from tests.local_http import Quiet, answering

# How the stand-in answers: status and X-Error-Code.
REFUSALS = {
    "missing file": (404, "EntryNotFound"),
    "missing revision": (404, "RevisionNotFound"),
    "missing repository": (404, "RepoNotFound"),
    "hidden repository": (401, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "forbidden": (403, ""),
    "broken": (503, ""),
}


@dataclass
class HubServer:
    """What is served, how, and what was asked.

    ``mode`` is ``serve``; a key of ``REFUSALS``; ``cut`` (the connection closes after half the
    bytes, always at the same place); ``cut, no ranges`` (and every retry starts over); ``cut
    once`` (the retry succeeds); or ``hang`` (no answer until the server stops).
    """

    hub: HubFile
    content: bytes
    mode: str = "serve"
    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)  # sent along with the file's requests
    stopped: threading.Event = field(default_factory=threading.Event)

    def count(self, method: str) -> int:
        """Requests of one method so far."""
        return sum(asked == method for asked, _ in self.requests)


@contextmanager
def serving(hub: HubFile, content: bytes, mode: str = "serve") -> Iterator[HubServer]:
    """Run the stand-in."""
    state = HubServer(hub, content, mode)
    with answering(_handler(state)) as state.endpoint:
        try:
            yield state
        finally:
            state.stopped.set()


def _handler(state: HubServer) -> type[BaseHTTPRequestHandler]:
    hub = state.hub
    resolve = f"/{hub.repo}/resolve/{hub.revision}/{hub.file}"

    class HubHandler(Quiet, BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            state.requests.append((self.command, self.path))
            if self.path == resolve:
                state.tokens.add(self.headers.get("Authorization"))
            if state.mode == "hang":
                state.stopped.wait(60)
                self.close_connection = True
            elif state.mode in REFUSALS:
                self._refuse(*REFUSALS[state.mode])
            elif self.path != resolve:
                self._refuse(404, "RepoNotFound")
            else:
                self._send_file(body=body)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code or "no")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_file(self, *, body: bool) -> None:
            start = 0
            asked = self.headers.get("Range")
            if body and asked and state.mode != "cut, no ranges":
                start = int(asked.removeprefix("bytes=").split("-")[0])
            total = len(state.content)
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hub.sha256}"')
            self.send_header("X-Repo-Commit", hub.revision)
            self.send_header("X-Linked-Size", str(total))
            self.send_header("X-Linked-Etag", f'"{hub.sha256}"')
            self.send_header("Accept-Ranges", "bytes")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            if body:
                self._send_body(start)

        def _send_body(self, start: int) -> None:
            end = len(state.content)
            if state.mode.startswith("cut"):
                end = len(state.content) // 2
                self.close_connection = True
            if state.mode == "cut once":
                state.mode = "serve"
            self.wfile.write(state.content[start:end])

    return HubHandler
