"""Weights over HTTP, from real servers on this machine: whole, checked and resumed, or not at all."""

from __future__ import annotations

import errno
import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepscan.cli import run
from deepscan.errors import OutputError, WeightsMismatch, WeightsMissing
from deepscan.model import catalogue as entries
from deepscan.model import fetch, weights

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What a server does, and what it was asked: (path, Range header)."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    codes: list[int] = field(default_factory=list)  # answered first, one a request
    cut: list[int] = field(default_factory=list)  # then so many bytes, and the connection ends
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        wanted = to.headers.get("Range")
        self.asked.append((to.path, wanted))
        if to.path.startswith("/yermandy/"):  # the hub sends on to where it keeps large files
            to.send_response(302)
            to.send_header("Location", f"{self.url}/store/blob")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        if self.codes:
            to.send_error(self.codes.pop(0))
            return
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and self.ranges else 0
        if start >= len(self.content):
            to.send_error(416)
            return
        to.send_response(206 if start else 200)
        to.send_header("Content-Length", str(len(self.content) - start))
        if start:
            whole = len(self.content)
            to.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        to.end_headers()
        body = self.content[start:]
        to.wfile.write(body[: self.cut.pop(0)] if self.cut else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "http_proxy", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.safetensors"


def kept(target: Path) -> list[str]:
    """The names beside the target, but for the lock, which stays."""
    return sorted(p.name for p in target.parent.iterdir() if p.suffix != ".lock")


def test_a_file_is_fetched_whole(server: Server, target: Path) -> None:
    output: list[tuple[int, int]] = []
    fetch.download(f"{server.url}/f", target, DIGEST, None, lambda *counts: output.append(counts))
    assert target.read_bytes() == CONTENT
    assert kept(target) == [target.name]
    assert output[-1] == (3_000_000, 3_000_000)
    assert output == sorted(output)


def test_a_broken_connection_goes_on_where_it_broke(server: Server, target: Path) -> None:
    server.cut = [1_000_000, 500_000]
    fetch.download(f"{server.url}/f", target, DIGEST, len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/f", None), ("/f", "bytes=1000000-"), ("/f", "bytes=1500000-")]


def test_another_run_goes_on_where_this_one_gave_up(server: Server, target: Path) -> None:
    server.cut = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(WeightsMissing, match="1000000 bytes are kept, and the next try continues"):
        fetch.download(f"{server.url}/f", target, DIGEST)
    assert not target.exists()
    server.asked.clear()
    fetch.download(f"{server.url}/f", target, DIGEST)
    assert server.asked == [("/f", "bytes=1000000-")]
    assert target.read_bytes() == CONTENT


def test_one_fetches_and_the_others_wait(server: Server, target: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(fetch.download, f"{server.url}/f", target, DIGEST) for _ in range(4)
        ]:
            done.result()
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/f", None)]
    assert kept(target) == [target.name]


def test_processes_wait_for_each_other(server: Server, target: Path) -> None:
    server.cut = [1_000_000]  # the first one has to ask again
    code = (
        "import sys; from pathlib import Path; from deepscan.model import fetch; fetch.PAUSE = 0.5;"
        " fetch.download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])"
    )
    command = [sys.executable, "-c", code, f"{server.url}/f", str(target), DIGEST]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [one.wait(60) for one in running] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/f", None), ("/f", "bytes=1000000-")]


def test_without_locks_each_has_its_own_part(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with ThreadPoolExecutor(3) as pool:
        for done in [
            pool.submit(fetch.download, f"{server.url}/f", target, DIGEST) for _ in range(3)
        ]:
            done.result()
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: Server, target: Path) -> None:
    server.cut, server.ranges = [1_000_000], False
    fetch.download(f"{server.url}/f", target, DIGEST)
    assert target.read_bytes() == CONTENT


def test_a_part_that_was_complete_is_only_checked(server: Server, target: Path) -> None:
    target.parent.mkdir()
    (target.parent / f".{target.name}.part").write_bytes(CONTENT)
    fetch.download(f"{server.url}/f", target, DIGEST, len(CONTENT))
    assert server.asked == []
    assert target.read_bytes() == CONTENT


def test_a_part_of_a_longer_file_is_dropped(server: Server, target: Path) -> None:
    target.parent.mkdir()
    (target.parent / f".{target.name}.part").write_bytes(CONTENT + b"more")
    fetch.download(f"{server.url}/f", target, DIGEST, len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: Server, target: Path) -> None:
    server.codes = [503, 429]
    fetch.download(f"{server.url}/f", target, DIGEST)
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, target: Path, code: int) -> None:
    server.codes = [code]
    with pytest.raises(WeightsMissing, match=f"the server answered {code}"):
        fetch.download(f"{server.url}/f", target, DIGEST)
    assert len(server.asked) == 1


def test_another_file_is_refused_and_not_kept(server: Server, target: Path) -> None:
    server.content = b"<html>Please sign in to the network</html>"
    with pytest.raises(WeightsMismatch, match=f"not {DIGEST}, and was deleted"):
        fetch.download(f"{server.url}/f", target, DIGEST)
    assert kept(target) == []


def test_no_server_at_all(target: Path, server: Server) -> None:
    with pytest.raises(WeightsMissing, match="refused"):
        fetch.download("http://127.0.0.1:9/f", target, DIGEST)


def test_files_and_other_schemes_are_not_opened(target: Path) -> None:
    with pytest.raises(WeightsMissing, match="only http and https"):
        fetch.download("file:///etc/hostname", target, DIGEST)


def test_a_full_disk_is_told_before_anything_comes(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(OutputError, match="set DEEPSCAN_CACHE to another folder"):
        fetch.download(f"{server.url}/f", target, DIGEST)
    assert kept(target) == []


def test_the_environments_proxy_is_used(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is asked for the whole address, which it alone can reach."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    fetch.download("http://weights.invalid/f", target, DIGEST)
    assert server.asked == [("http://weights.invalid/f", None)]


# --- from the hub, by the catalogue -----------------------------------------------------------------


@pytest.fixture
def tower(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> weights.BaseEntry:
    """A base that the hub, which is here the server, keeps; an empty cache."""
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    source = entries.Source("model.safetensors", hub="yermandy/x", revision="1a2b", sha256=DIGEST)
    entry = weights.BaseEntry(
        "tower", "ViT-B-16", "the hub", "MIT", "as published", "tower.safetensors", DIGEST,
        source=source, open_clip="ViT-B-16:made-up",
    )  # fmt: skip
    known = weights.catalogue()
    changed = weights.Catalogue(known.default, {**known.bases, "tower": entry}, known.detectors, {})
    monkeypatch.setattr(weights, "catalogue", lambda: changed)
    return entry


def test_a_tower_is_fetched_by_its_open_clip_tag(
    tower: weights.BaseEntry, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut = [1_000_000]
    assert run(["weights", "fetch", "ViT-B-16:made-up", "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(tower.path)
    assert server.asked[0][0] == "/yermandy/x/resolve/1a2b/model.safetensors"
    assert server.asked[-1] == ("/store/blob", "bytes=1000000-")  # the range survives the redirect
    assert run(["weights", "verify", "tower"]) == 0
    server.asked.clear()
    assert run(["weights", "fetch", "tower", "--quiet"]) == 0
    assert server.asked == []


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_offline_nothing_is_asked_and_the_way_round_is_told(
    tower: weights.BaseEntry,
    server: Server,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(["weights", "fetch", "tower", *(["--offline"] if how == "flag" else [])]) == 1
    said = capsys.readouterr().err
    assert "offline" in said
    assert f"{server.url}/yermandy/x/resolve/1a2b/model.safetensors" in said
    assert "run `deepscan weights import FILE`" in said
    assert server.asked == []


@pytest.mark.parametrize("place", ["blobs/" + DIGEST, "snapshots/1a2b/model.safetensors"])
def test_what_another_program_fetched_from_the_hub_is_used(
    tower: weights.BaseEntry, server: Server, tmp_path: Path, place: str
) -> None:
    there = tmp_path / "hub-home" / "hub" / "models--yermandy--x" / place
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    assert weights.base_file(tower, offline=True).read_bytes() == CONTENT
    assert server.asked == []


def test_a_damaged_file_in_the_hubs_cache_is_passed_over(
    tower: weights.BaseEntry, server: Server, tmp_path: Path
) -> None:
    there = tmp_path / "hub-home" / "hub" / "models--yermandy--x" / "blobs" / DIGEST
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT[:-1])
    assert weights.base_file(tower).read_bytes() == CONTENT
    assert server.asked != []


def test_the_catalogue_says_enough_to_fetch_and_check_by() -> None:
    """What can be fetched has a SHA-256; towers go by tags that open_clip knows; licences are stated."""
    import open_clip

    known = weights.catalogue()
    for entry in (*known.bases.values(), *known.published.values()):
        assert entry.licence
        assert entry.trained_on
        if entry.source is not None and entry.source.address:
            assert re.fullmatch(r"[0-9a-f]{64}", entry.source.sha256)
    for base in known.bases.values():
        model, tag = base.open_clip.split(":")
        assert model == base.tower
        found = open_clip.pretrained.get_pretrained_cfg(model, tag)
        assert found
        assert tag == "openai" or found["hf_hub"].strip("/") == (base.source and base.source.hub)
    assert all(entry.auc for entry in known.published.values())


def test_names_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "fetch", "gend"]) == 1
    assert "weights 'gend' are unknown; did you mean gend-clip-l14?" in capsys.readouterr().err
