"""A server of `deepscan serve` on a free port of this machine, and a program that asks it."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn

from deepscan.serve.app import Limits, build
from deepscan.serve.guard import COOKIE
from deepscan.serve.jobs import Analyst, JobQueue

# Begins like a video, which is what is looked at on arrival.
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(2000)

KEY = "s3cret"


@contextmanager
def served(
    analyst: Analyst, folder: Path, limits: Limits | None = None, local: bool = True, **queue: Any
) -> Iterator[Ask]:
    """A server on a free port of this machine."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        JobQueue(analyst, folder, **queue) as opened,
    ):
        config = uvicorn.Config(
            build(opened, limits or Limits(), KEY, local),
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Ask(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


class Ask:
    """Asks a server on this machine."""

    def __init__(self, port: int, key: str = KEY) -> None:
        self.port, self.key = port, key

    @property
    def cookie(self) -> str:
        """What a browser holds after the printed address was opened."""
        return f"{COOKIE}{hashlib.sha256(self.key.encode()).hexdigest()[:8]}={self.key}"

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str, http.client.HTTPMessage]:
        headers = {"Cookie": self.cookie, **headers}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            line.request(method, path, body, given)
            answer = line.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
        finally:
            line.close()

    def raw(self, path: str) -> bytes:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        line.request("GET", path, headers={"Cookie": self.cookie})
        answer = line.getresponse().read()
        line.close()
        return answer

    def send(self, name: str, body: bytes = MP4) -> dict[str, Any]:
        """A clip that is taken, as the server tells of it."""
        status, words, _ = self("POST", f"/jobs?name={quote(name)}", body)
        assert status == 202, words
        return json.loads(words)

    def job(self, name: str) -> dict[str, Any] | None:
        """The clip of this id, or None where there is none (any more)."""
        jobs = json.loads(self("GET", "/jobs")[1])
        return next((job for job in jobs if job["id"] == name), None)

    def ended(self, name: str) -> dict[str, Any]:
        """The same, once it is analysed."""
        wait_for(lambda: (self.job(name) or {}).get("state") in ("finished", "failed"))
        job = self.job(name)
        assert job is not None
        return job


def wait_for(true: Callable[[], bool]) -> None:
    """However long it takes: pytest's own limit ends what never comes true."""
    while not true():
        time.sleep(0.02)
