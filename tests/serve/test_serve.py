"""`deepscan serve` as programs meet it: what is taken, what is refused and how, what is left."""

from __future__ import annotations

import http.client
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")


from builders import reports
from builders.serving import KEY, MP4, Ask, served, wait_for
from deepscan.cli import run
from deepscan.errors import UnreadableInput
from deepscan.flow import Progress
from deepscan.media.recognise import is_media
from deepscan.records import Case
from deepscan.report import json as report_json
from deepscan.report import page
from deepscan.serve import jobs
from deepscan.serve.app import Limits
from deepscan.serve.jobs import Busy, JobQueue, JobState
from deepscan.serve.uploads import safe_name
from deepscan.serve.worker import Analysis


class Stand:
    """Stands for the worker: each clip waits until `go` is set, and ends as its name says."""

    def __init__(self) -> None:
        self.go, self.stopped = threading.Event(), threading.Event()
        self.go.set()
        self.cases: list[Case | None] = []

    def start(self) -> None: ...

    def stop(self) -> None:
        self.stopped.set()
        self.go.set()

    def run(self, clip: Path, out: Path, case: Case | None, progress: Progress) -> Analysis:
        progress("faces", 8, 32)
        assert self.go.wait(30)
        if not clip.exists():
            raise UnreadableInput(f"{clip.name}: the analysis broke off")
        self.cases.append(case)
        if clip.name.startswith("bad"):
            raise UnreadableInput(f"{clip.name}: cut short")
        if clip.name.startswith("gone"):
            shutil.rmtree(out.parent)
        out.mkdir()
        report, kept = reports.made(1, 4, path=clip.name)
        page.write(report_json.to_dict(report), out, kept)
        (out / "report.json").write_text(report_json.text(report))
        (out / "manifest.json").write_text("{}")
        return Analysis("inconclusive", "The mean is between the thresholds.", 2)


@pytest.fixture
def stand() -> Stand:
    return Stand()


@pytest.fixture
def ask(stand: Stand, tmp_path: Path) -> Iterator[Ask]:
    with served(stand, tmp_path) as asking:
        yield asking


# --- a clip's way ----------------------------------------------------------------------------------


def test_a_clip_waits_is_analysed_and_its_report_is_read(
    ask: Ask, stand: Stand, tmp_path: Path
) -> None:
    stand.go.clear()
    first, second = ask.send("interview.mp4"), ask.send("other.mp4")
    wait_for(lambda: (ask.job(first["id"]) or {})["stage"] == "faces")
    running, waiting = json.loads(ask("GET", "/jobs")[1])
    assert (running["state"], running["done"], running["total"]) == ("analysing", 8, 32)
    assert (waiting["state"], waiting["name"]) == ("waiting", "other.mp4")
    stand.go.set()
    done = ask.ended(first["id"])
    assert (done["headline"], done["warnings"]) == ("Inconclusive", 2)
    assert 3590 <= done["seconds_left"] <= 3600
    status, html, headers = ask("GET", f"/jobs/{first['id']}/report.html")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "interview.mp4" in html
    with zipfile.ZipFile(io.BytesIO(ask.raw(f"/jobs/{first['id']}/results.zip"))) as packed:
        assert sorted(packed.namelist()) == [
            f"interview/{name}" for name in ("manifest.json", "report.html", "report.json")
        ]
    ask.ended(second["id"])
    assert not list(tmp_path.rglob("*.mp4"))  # the clips themselves are gone


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_guides_commands_for_programs_do_what_they_say(ask: Ask, tmp_path: Path) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text("utf-8")
    block = guide.split("## From a program")[1].split("```")[1]
    lines = [line for line in block.splitlines() if line.startswith("curl")]
    here, came = tmp_path / "here", list[str]()
    here.mkdir()
    (here / "clip.mp4").write_bytes(MP4)
    for line in lines:
        said = line.replace("ADDRESS", f"http://127.0.0.1:8765/?key={KEY}")
        said = said.replace("ID", came[1]) if "ID" in line else said
        words = shlex.split(said.replace("8765", str(ask.port)), comments=True)
        asked = [words[0], "--silent", "--fail", *words[1:]]
        done = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=True)
        came.append(done.stdout)
        if "--data-binary" in words:
            came[-1] = json.loads(done.stdout)["id"]
            ask.ended(came[-1])
    assert [job["name"] for job in json.loads(came[2])] == ["clip.mp4"]
    assert "verdict" in json.loads((here / "report.json").read_text())
    assert len(came) == 5
    assert (ask.job(came[1]) or {})["state"] == "removed"


def test_case_details_reach_the_report(ask: Ask, stand: Stand) -> None:
    status, words, _ = ask("POST", "/jobs?name=a.mp4&case=12/26&examiner=J.+Doe", MP4)
    assert status == 202
    ask.ended(json.loads(words)["id"])
    assert stand.cases == [Case(case="12/26", examiner="J. Doe")]


def test_a_clip_that_cannot_be_analysed_says_why_and_is_gone(ask: Ask, tmp_path: Path) -> None:
    job = ask.ended(ask.send("bad.mp4")["id"])
    assert (job["state"], job["sentence"], job["headline"]) == ("failed", "cut short", None)
    assert ask("GET", f"/jobs/{job['id']}/report.html")[0] == 404
    assert not list(tmp_path.rglob("bad*"))


def test_removing_deletes_at_once_whatever_the_state(
    ask: Ask, stand: Stand, tmp_path: Path
) -> None:
    stand.go.clear()
    running, waiting = ask.send("running.mp4"), ask.send("waiting.mp4")
    wait_for(lambda: (ask.job(running["id"]) or {})["state"] == "analysing")
    for job in (waiting, running):
        assert ask("DELETE", f"/jobs/{job['id']}")[0] == 204
        assert ask("DELETE", f"/jobs/{job['id']}")[0] == 404
    assert stand.stopped.is_set()
    assert json.loads(ask("GET", "/jobs")[1]) == []
    wait_for(lambda: not list(tmp_path.glob("deepscan-serve-*/*/*")))
    done = ask.ended(ask.send("next.mp4")["id"])  # the line goes on
    assert done["state"] == "finished"


def test_removing_a_report_can_be_undone_for_a_minute(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "bad.mp4"):
        job = ask.ended(ask.send(name)["id"])
        assert ask("DELETE", f"/jobs/{job['id']}")[0] == 204
        assert ask("DELETE", f"/jobs/{job['id']}")[0] == 404
        gone = ask.job(job["id"])
        assert gone is not None
        assert gone["state"] == "removed"
        assert 50 < gone["seconds_left"] <= 60
        assert ask("GET", f"/jobs/{job['id']}/report.html")[0] == 404
        assert ask("POST", f"/jobs/{job['id']}/restore")[0] == 204
        assert ask("POST", f"/jobs/{job['id']}/restore")[0] == 404
        assert (ask.job(job["id"]) or {})["state"] == job["state"]
        ask("DELETE", f"/jobs/{job['id']}")
    monkeypatch.setattr(jobs, "UNDO", 0.0)
    wait_for(lambda: json.loads(ask("GET", "/jobs")[1]) == [])
    wait_for(lambda: not list(tmp_path.glob("deepscan-serve-*/*/*")))


def test_a_folder_that_goes_while_results_are_written_costs_that_clip_alone(ask: Ask) -> None:
    lost = ask.ended(ask.send("gone.mp4")["id"])
    assert lost["state"] == "failed"
    assert lost["sentence"] == "its results could not be written: No such file or directory"
    assert ask.ended(ask.send("next.mp4")["id"])["state"] == "finished"


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("letter.pdf", b"%PDF-1.7\n" + bytes(5000)),
        ("clip.mp4", b"PK\x03\x04" + bytes(5000)),  # whatever its name says
        ("page.mp4", b"<html><script>alert(1)</script>" * 100),
        ("note.mp4", b"short"),
        ("playlist.mp4", b"#EXTM3U\n/etc/passwd\n" * 100),
        (
            "large.pdf",
            b"%PDF-1.7\n" + bytes(6_000_000),
        ),  # told in words, though there is more to come
    ],
)
def test_other_files_are_refused_by_their_content(
    ask: Ask, tmp_path: Path, name: str, content: bytes
) -> None:
    status, words, _ = ask("POST", f"/jobs?name={name}", content)
    assert status == 415
    assert words.startswith("This is not a video or picture that deepscan knows")
    assert json.loads(ask("GET", "/jobs")[1]) == []
    assert not list(tmp_path.glob("deepscan-serve-*/*/*"))


def test_forms_and_empty_files_are_refused(ask: Ask) -> None:
    status, words, _ = ask("POST", "/jobs", MP4, content_type="multipart/form-data; boundary=x")
    assert (status, words) == (415, "Send the clip's bytes as the body itself, not as a form.")
    status, words, _ = ask("POST", "/jobs?name=a.mp4", b"")
    assert status == 400
    assert "empty" in words
    assert ask("POST", f"/jobs?name=a.mp4&case={'x' * 300}", MP4)[0] == 422


def test_a_clip_that_is_too_large_is_refused_before_it_is_sent(
    stand: Stand, tmp_path: Path
) -> None:
    with served(stand, tmp_path, Limits(bytes=10_000)) as ask:
        with socket.create_connection(("127.0.0.1", ask.port)) as line:
            head = f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nCookie: {ask.cookie}\r\n"
            line.sendall(f"{head}Content-Length: 20000\r\n\r\n".encode())
            answer = line.makefile().read()  # not one byte of it was sent
        assert answer.startswith("HTTP/1.1 413")
        assert "larger than the 10.0 kB that this server accepts" in answer
        assert ask.ended(ask.send("small.mp4")["id"])["state"] == "finished"


def test_a_clip_that_states_no_size_is_counted_as_it_comes(stand: Stand, tmp_path: Path) -> None:
    with served(stand, tmp_path, Limits(bytes=10_000)) as ask:
        line = http.client.HTTPConnection("127.0.0.1", ask.port, timeout=30)
        line.putrequest("POST", "/jobs?name=a.mp4")
        line.putheader("Transfer-Encoding", "chunked")
        line.putheader("Cookie", ask.cookie)
        line.endheaders()
        for _ in range(6):
            line.send(b"7d0\r\n" + MP4[:2000] + b"\r\n")
        assert line.getresponse().status == 413
        line.close()
        assert not list(tmp_path.glob("deepscan-serve-*/*/*"))


def begin(ask: Ask, name: str, size: int = 5000) -> socket.socket:
    """A clip of which the first bytes are sent."""
    line = socket.create_connection(("127.0.0.1", ask.port))
    head = f"POST /jobs?name={name} HTTP/1.1\r\nHost: localhost\r\nCookie: {ask.cookie}\r\n"
    line.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + MP4)
    wait_for(lambda: any(job["name"] == name for job in json.loads(ask("GET", "/jobs")[1])))
    return line


def test_too_many_at_once_are_asked_to_wait(stand: Stand, tmp_path: Path) -> None:
    with served(stand, tmp_path, Limits(uploads=2)) as ask:
        lines = [begin(ask, "a.mp4"), begin(ask, "b.mp4")]
        status, words, headers = ask("POST", "/jobs?name=c.mp4", MP4)
        assert (status, headers["retry-after"]) == (429, "10")
        assert words == "2 clips are being received already; send this one when they are done."
        for line in lines:
            line.sendall(bytes(5000 - len(MP4)))
            assert line.recv(100).startswith(b"HTTP/1.1 202")
            line.close()
        ask.send("c.mp4")


def test_a_full_line_is_said_so(stand: Stand, tmp_path: Path) -> None:
    stand.go.clear()
    with served(stand, tmp_path, waiting=2) as ask:
        first = ask.send("running.mp4")
        wait_for(lambda: (ask.job(first["id"]) or {})["state"] == "analysing")
        ask.send("a.mp4")
        ask.send("b.mp4")
        status, words, headers = ask("POST", "/jobs?name=c.mp4", MP4)
        assert (status, headers["retry-after"]) == (503, "10")
        assert words.startswith("Not taken: 2 clips are waiting already")


def test_a_full_disk_is_said_so(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "free")
    monkeypatch.setattr("deepscan.serve.jobs.shutil.disk_usage", lambda path: usage(1000))
    with JobQueue(stand, tmp_path) as queue, pytest.raises(Busy, match="no room"):
        queue.receive("a.mp4", 10)


def test_a_sender_that_goes_quiet_or_away_leaves_nothing(stand: Stand, tmp_path: Path) -> None:
    with served(stand, tmp_path, Limits(stall=0.3)) as ask:
        with begin(ask, "quiet.mp4") as line:
            assert line.recv(100).startswith(b"HTTP/1.1 408")
        begin(ask, "away.mp4").close()
        wait_for(lambda: json.loads(ask("GET", "/jobs")[1]) == [])
        assert not list(tmp_path.glob("deepscan-serve-*/*/*"))


# --- who may ask -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "]"]
)
def test_a_foreign_name_for_this_machine_is_not_answered_to(ask: Ask, host: str) -> None:
    """DNS rebinding: a page of evil.example, which now leads here, would be of the same origin."""
    status, words, _ = ask("GET", "/jobs", Host=host)
    assert status == 421
    assert "127.0.0.1" in words


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:80"])
def test_loopback_names_are_answered_to_by_any_port(ask: Ask, host: str) -> None:
    """An SSH tunnel has a port of its own."""
    assert ask("GET", "/jobs", Host=host)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_sites_page_can_neither_send_nor_remove(ask: Ask, headers: dict[str, str]) -> None:
    job = ask.send("a.mp4")
    assert ask("POST", "/jobs?name=b.mp4", MP4, **headers)[0] == 403
    assert ask("DELETE", f"/jobs/{job['id']}", **headers)[0] == 403
    assert len(json.loads(ask("GET", "/jobs")[1])) == 1


@pytest.mark.parametrize("local", [True, False])
def test_a_key_is_asked_for(stand: Stand, tmp_path: Path, local: bool) -> None:
    """Any account of this machine can open a loopback port."""
    with served(stand, tmp_path, local=local) as ask:
        host = "localhost" if local else "desk.example"
        job = ask.send("a.mp4")
        for path in (
            "/",
            "/jobs",
            "/?key=wrong",
            "/?key=",
            f"/jobs?key={KEY}",
            f"/jobs/{job['id']}",
        ):
            assert ask("GET", path, Host=host, Cookie="")[0] == 401
        assert ask("POST", "/jobs?name=a.mp4", MP4, Cookie="")[0] == 401
        assert ask("DELETE", f"/jobs/{job['id']}", Cookie="")[0] == 401
        status, _, headers = ask("GET", f"/?key={KEY}", Host=host, Cookie="")
        assert (status, headers["location"]) == (303, "/")  # the key leaves the address
        assert "HttpOnly" in headers["set-cookie"]
        assert "samesite=strict" in headers["set-cookie"].lower()
        assert headers["set-cookie"].split(";")[0] == ask.cookie
        assert ask("GET", "/jobs", Host=host)[0] == 200
        assert ask("GET", "/jobs", Cookie=ask.cookie.replace(KEY, "wrong"))[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/jobs/../../../etc/passwd",
        "/jobs/{id}/../../../../etc/passwd",
        "/jobs/{id}/..%2f..%2f..%2fetc%2fpasswd",
        "/jobs/{id}/%2e%2e%2fclip%2fa.mp4",
        "/jobs/..%2f{id}/report.html",
        "/jobs/{id}/.in-use.lock",
        "/jobs/{id}/heatmaps",
        "/jobs/{id}/report.html%00.txt",
        "//etc/passwd",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_address_leads_to_another_file(ask: Ask, path: str) -> None:
    job = ask.ended(ask.send("a.mp4")["id"])
    status, words, _ = ask("GET", path.format(id=job["id"]))
    assert status == 404
    assert "root:" not in words


def test_every_answer_carries_its_policy(ask: Ask) -> None:
    job = ask.ended(ask.send("a.mp4")["id"])
    answers = {
        path: ask("GET", path)[2]
        for path in ("/", "/jobs", "/none", f"/jobs/{job['id']}/report.html")
    }
    for headers in answers.values():
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        own = "self" if headers is answers[f"/jobs/{job['id']}/report.html"] else "none"
        assert f"frame-ancestors '{own}'" in policy
        assert "unsafe" not in policy
    *_, report = answers.values()
    assert report["content-security-policy"].endswith(
        "sandbox allow-scripts allow-downloads allow-modals"
    )
    assert "connect-src" not in report["content-security-policy"]


# --- names and content -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("interview.mp4", "interview.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip.mov", "clip.mov"),
        ("..", "clip"),
        ("", "clip"),
        (".hidden.mp4", "hidden.mp4"),
        ("a\x00b\n\x1b[31m.mp4", "a_b__[31m.mp4"),
        ("\u202egpj.exe", "_gpj.exe"),
        ('<img src=x onerror="1">.mp4', "_img src=x onerror=_1__.mp4"),
        ("con.mp4", "_con.mp4"),
        ("Käse 50 % 👍.mp4", "Käse 50 % 👍.mp4"),
    ],
)
def test_a_name_means_nothing_but_itself(given: str, kept: str) -> None:
    assert safe_name(given) == kept


def test_a_long_name_is_shortened_before_its_suffix() -> None:
    name = safe_name("ä" * 500 + ".mp4")
    assert name.endswith("ä.mp4")
    assert len(name.encode()) <= 120


def test_what_deepscan_reads_is_taken(sample: Path, tmp_path: Path) -> None:
    import av
    import numpy as np
    from PIL import Image

    from builders import clips

    kinds = {"avi": "mpeg4", "mkv": "libx264", "webm": "libvpx", "mov": "libx264", "ts": "libx264"}
    paths = [sample]
    for suffix, codec in kinds.items():
        path = tmp_path / f"clip.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = clips.WIDTH, clips.HEIGHT, "yuv420p"
            for i in range(25):
                frame = av.VideoFrame.from_ndarray(clips.numbered(i), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        paths.append(path)
    picture = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    for suffix in ("jpg", "png", "webp", "bmp", "tiff", "gif", "avif", "jp2"):
        picture.save(tmp_path / f"picture.{suffix}")
        paths.append(tmp_path / f"picture.{suffix}")
    assert [path.name for path in paths if not is_media(path.read_bytes()[:1024])] == []


# --- what is left ----------------------------------------------------------------------------------


def test_results_go_when_their_time_is_up(stand: Stand, tmp_path: Path) -> None:
    with served(stand, tmp_path, keep=0.5) as ask:
        job = ask.send("a.mp4")
        wait_for(lambda: ask.job(job["id"]) is None)
        assert ask("GET", f"/jobs/{job['id']}/report.html")[0] == 404
        wait_for(lambda: not list(tmp_path.glob("deepscan-serve-*/*/*")))


def test_a_closed_desk_leaves_nothing(stand: Stand, tmp_path: Path) -> None:
    with served(stand, tmp_path) as ask:
        ask.ended(ask.send("a.mp4")["id"])
        assert list(tmp_path.glob("deepscan-serve-*/*/results"))
        (queue,) = tmp_path.glob("deepscan-serve-*")
        assert os.name == "nt" or queue.stat().st_mode & 0o077 == 0  # nobody else may look in
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_goes_and_what_another_has_stays(
    stand: Stand, tmp_path: Path
) -> None:
    left = tmp_path / "deepscan-serve-killed" / "id" / "clip"
    left.mkdir(parents=True)
    (left / "secret.mp4").write_bytes(MP4)
    (tmp_path / "deepscan-serve-killed" / ".in-use.lock").touch()
    with JobQueue(stand, tmp_path) as one:
        assert not left.exists()
        job = one.receive("a.mp4", 10)
        with JobQueue(Stand(), tmp_path):
            assert one.clip(job).parent.is_dir()


def test_states_are_the_ones_the_page_knows() -> None:
    script = (Path(page.__file__).parent / "front.js").read_text("utf-8")
    assert all(f'"{state}"' in script for state in JobState)


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Ask]]]:
    """Starts `deepscan serve` as a process, with a queue of its own beside the real weights."""
    from deepscan.model import weights

    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "weights").symlink_to(weights.cache_folder())
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], Ask]:
        process = subprocess.Popen(
            [sys.executable, "-m", "deepscan", "serve", "--port", "0", "--offline", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DEEPSCAN_CACHE": str(cache)},
        )
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Open http://127.0.0.1:"), line + process.stderr.read()
        key = line.split("?key=")[1].split()[0]
        return process, Ask(int(line.split(":")[2].split("/")[0]), key)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM there")
def test_a_real_clip_a_broken_one_and_a_clean_end(
    command: Callable[..., Any], sample: Path, tmp_path: Path
) -> None:
    process, ask = command()
    broken = ask.send("broken.mp4")
    job = ask.send("sample.mp4", sample.read_bytes())
    wait_for(lambda: (ask.job(broken["id"]) or {})["state"] == "failed")
    assert "an MP4 or MOV file without its index" in (ask.job(broken["id"]) or {})["sentence"]
    wait_for(lambda: (ask.job(job["id"]) or {})["state"] == "finished")
    with zipfile.ZipFile(io.BytesIO(ask.raw(f"/jobs/{job['id']}/results.zip"))) as packed:
        packed.extractall(tmp_path / "taken")
    report = json.loads((tmp_path / "taken" / "sample" / "report.json").read_text("utf-8"))
    assert report["input"]["path"] == "sample.mp4"  # and no folder that is gone
    assert report["run"]["argv"][:2] == ["deepscan", "serve"]
    assert run(["verify", str(tmp_path / "taken" / "sample"), "--input", str(sample)]) == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr.read().splitlines()[-1] == "stopped; all clips and reports are deleted"
    assert list((tmp_path / "cache" / "serve").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_clip_that_takes_the_worker_down_takes_nothing_else(
    command: Callable[..., Any], sample: Path
) -> None:
    """The worker is killed under a clip, as when memory runs out; the next one is read."""
    process, ask = command()
    job = ask.send("sample.mp4", sample.read_bytes())
    wait_for(lambda: (ask.job(job["id"]) or {})["state"] == "analysing")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    for child in children.read_text().split():
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    assert "analysis stopped" in ask.ended(job["id"])["sentence"]
    again = ask.send("sample.mp4", sample.read_bytes())
    wait_for(lambda: (ask.job(again["id"]) or {})["state"] == "finished")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "0"], "not a positive time"),
        (["--max-size", "0"], "any clip"),
        (["--host", "203.0.113.1"], "cannot listen there"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--offline", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_taken_port_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve", "--offline", "--port", port]) == 2
    assert "choose another port with --port N" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "deepscan.serve.app", None)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ModuleNotFoundError):  # a broken package of ours is no missing extra
        run(["serve"])
    monkeypatch.delitem(sys.modules, "deepscan.serve.app")
    assert run(["serve"]) == 2
    assert "pip install 'deepscan-forensics[serve]'" in capsys.readouterr().err
