"""What a private report keeps back is nowhere in its folder, and no password is in any report."""

from __future__ import annotations

import base64
import html
import io
import json
import platform
import re
import socket
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from builders import footage, reports
from deepscan.cli import run
from deepscan.errors import OutputError, without_userinfo
from deepscan.media.video import DamagedFrame
from deepscan.records import Box, Credentials, Frame
from deepscan.report import signing
from deepscan.report.json import to_dict
from deepscan.report.privacy import Awaited, alone, withheld


@pytest.mark.parametrize(
    ("typed", "stated"),
    [
        ("s3://me:secret@host/rows", "s3://host/rows"),
        ("--engine=ray=ray://token@head:10001", "--engine=ray=ray://head:10001"),
        ("s3://me:p@ss@host/rows", "s3://host/rows"),
        ("s3://me:pa/ss@host/rows", "s3://host/rows"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("me@host", "me@host"),
    ],
)
def test_no_password_of_an_address_is_stated(typed: str, stated: str) -> None:
    assert without_userinfo(typed) == stated
    assert str(OutputError(f"{typed}: cannot be written")) == f"{stated}: cannot be written"
    report, _ = reports.made(1, 4)
    request = replace(report.provenance.request, argv=("deepscan", "detect", typed))
    report = replace(report, provenance=replace(report.provenance, request=request))
    assert to_dict(report)["run"]["argv"][2] == stated


def test_the_command_keeps_what_tells_of_nobody() -> None:
    report, _ = reports.made(1, 4, path="/home/jane/raid/a.mp4")
    typed = (
        "deepscan detect /home/jane/raid/a.mp4 /home/jane/b.mp4 --frames 8 --heatmap --out /home/jane/out"
        " --examiner Jane --parquet=s3://k:s@host/x --device=cpu -- --jane-doe.mp4"
    )
    origin = report.provenance
    origin = replace(
        origin,
        request=replace(origin.request, argv=tuple(typed.split())),
        credentials=Credentials("present", "signed by Jane"),
    )
    kept = withheld(replace(report, provenance=origin))
    assert " ".join(kept.provenance.request.argv) == (
        "deepscan detect a.mp4 (withheld) --frames 8 --heatmap --out (withheld)"
        " --examiner (withheld) --parquet=(withheld) --device=cpu -- (withheld)"
    )
    assert str(kept.source.path) == "a.mp4"
    assert kept.source.tags == {}
    assert "Jane" not in kept.provenance.credentials.detail


def roughness(pixels: np.ndarray) -> np.ndarray:
    """How much neighbours differ. Noise is as fine as a picture gets; a cell of a mosaic is flat."""
    return np.abs(np.diff(pixels.astype(float).mean(2), axis=1))


def test_a_frame_keeps_the_deciding_face_alone() -> None:
    """640 x 320 pixels: 16 cells of 40. The neighbour, 120 wide, would have 3 of them, and may have 6."""
    noise = np.random.default_rng(0).integers(0, 256, (320, 640, 3), np.uint8)
    own, neighbour = Box(100, 50, 200, 150), Box(180, 50, 300, 150)
    rough = roughness(alone(noise, [own], [neighbour]))
    assert rough[55:145, 105:175].mean() > 20
    assert rough[55:145, 185:195].max() == 0  # where the neighbour reaches in
    flat = np.delete(rough, np.s_[99:200], axis=1)
    assert (flat[170:] > 0).any(0).sum() <= 16  # the edges of cells
    assert (roughness(alone(noise, [], [])) > 0).any(0).sum() == 15


def test_a_large_neighbour_has_larger_cells() -> None:
    """600 of 640 pixels: 16 cells along the frame would draw it with 15, so cells have 100 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    shown = alone(noise, [], [Box(20, 20, 620, 620)])
    assert (roughness(shown) > 0).any(0).sum() == 5  # six cells


def test_frames_that_are_damaged_now_or_were_are_not_drawn() -> None:
    class Drawn(list[int]):
        def add(self, frame: Frame, crops: object, output: object) -> None:
            self.append(frame.index)

    frames = [Frame(i, Fraction(i), np.zeros((64, 64, 3), np.uint8)) for i in range(3)]
    awaited, drawn = Awaited(), Drawn()
    for frame in frames[:2]:
        awaited.add(frame, [], None)
    awaited.draw([frames[0], DamagedFrame(1, Fraction(1)), frames[2]], (), [drawn])
    assert drawn == [0]


def tagged(source: Path, path: Path, tags: dict[str, str]) -> None:
    """The same stream with other tags."""
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        out.metadata.update(tags)
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people side by side, in a file that tells much."""
    folder = tmp_path_factory.mktemp("raid-on-jane-doe")
    face = footage.portrait()
    plain = footage.pair(folder.with_name("plain") / "plain.mp4", face, footage.swapped(face), 2)
    tags = {"title": "At Jane's", "location": "+52.5200+013.4050/", "artist": "J. Doe"}
    tagged(plain, folder / "exhibit.mp4", tags)
    return folder / "exhibit.mp4"


@pytest.fixture(scope="module")
def results(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private batch of it, with every kind of file that deepscan writes."""
    out = tmp_path_factory.mktemp("results-of-jane")
    signing.make_keys(key := out / "lab.key")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("USER", "LOGNAME"):
            patch.setenv(name, "jdoe-the-examiner")
        patch.setattr(socket, "gethostname", lambda: "janes-laptop")
        patch.setattr(platform, "node", lambda: "janes-laptop")
        command = ["detect", str(two.parent), "--out", str(out / "batch"), "--offline", "--private"]
        command += ["--heatmap", "--cls-map", "--frames", "2", "--examiner", "Erika"]
        command += ["--sign", str(key), "--parquet", str(out / "batch" / "rows"), "--quiet"]
        assert run(command) == 0
    return out / "batch"


def inside(path: Path) -> Iterator[bytes]:
    """All that a file holds: its bytes, and those that are packed or encoded in it."""
    yield path.read_bytes()
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    if path.suffix == ".html":
        found = re.findall(r"base64,([A-Za-z0-9+/=]+)", path.read_text("utf-8"))
        yield from map(base64.b64decode, found)
        yield html.unescape(path.read_text("utf-8")).encode()
    if path.suffix == ".parquet":
        yield json.dumps(parquet.read_table(path).to_pylist()).encode()
    if path.suffix == ".mp4":
        with av.open(str(path)) as film:
            yield json.dumps(
                [dict(film.metadata), *(dict(s.metadata) for s in film.streams)]
            ).encode()
    if path.suffix == ".png":
        with Image.open(path) as image:
            yield json.dumps({k: str(v) for k, v in image.info.items()}).encode()


@pytest.mark.slow
def test_nothing_of_what_is_withheld_is_in_any_file(two: Path, results: Path) -> None:
    withheld_words = {
        *(str(two.parent), str(results.parent), "jane", "Jane", "52.52", "Doe", "jdoe"),
        *(str(Path.home()), str(Path.cwd()), sys.prefix, "laptop"),
        *(platform.platform(), platform.release()),
    }
    written = [p for p in results.rglob("*") if p.is_file() and p.name != "batch.sqlite"]
    kinds = {path.suffix for path in written}
    assert kinds == {".html", ".json", ".npz", ".png", ".jpg", ".mp4", ".sig", ".parquet", ".csv"}
    for path in written:
        for content in inside(path):
            for word in withheld_words - {"", "/"}:
                assert word.encode() not in content, (path.name, word)
    report = json.loads((results / "exhibit.mp4" / "report.json").read_text("utf-8"))
    assert report["run"]["case"]["examiner"] == "Erika"  # asked for
    assert report["input"]["path"] == "exhibit.mp4"
    assert (
        run(["verify", str(results / "exhibit.mp4"), "--input", str(two)]) == 1
    )  # signed by whom?


@pytest.mark.slow
def test_no_picture_and_no_film_shows_the_other_face(results: Path) -> None:
    """What is fine anywhere is the deciding face; the other's side of every frame is a mosaic."""
    folder = results / "exhibit.mp4"
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert len(report["tracks"]) == 2
    deciding = report["scores"]["track"]
    own, other = sorted(report["tracks"], key=lambda track: track["id"] != deciding)
    page = (folder / "report.html").read_text("utf-8")
    stills = [base64.b64decode(found) for found in re.findall(r"jpeg;base64,([\w+/=]+)", page)]
    frames = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in stills]
    with av.open(str(folder / "heatmaps" / "overlay.mp4")) as film:
        frames += [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    wide = [pixels for pixels in frames if pixels.shape[1] > 1.2 * pixels.shape[0]]
    assert len(wide) >= 4  # two frames on the page, and in the film
    for pixels in wide:
        scale = pixels.shape[1] / report["input"]["width"]
        fine = [_fine(pixels, track["frames"][0]["box"], scale) for track in (own, other)]
        assert fine[0] > 3 * fine[1]
    panels = sorted((folder / "heatmaps").glob("track*.png"))
    assert {path.name[:7] for path in panels} == {"track01", "track02"}
    blurred = [_fine(np.asarray(Image.open(path)), None, 1) for path in panels]
    assert len(blurred) == 8  # of two frames: two faces, evidence and [CLS]


def _fine(pixels: np.ndarray, box: list[float] | None, scale: float) -> float:
    """How much of the middle of a face is no flat cell."""
    left, top, right, bottom = (0, 0, 200, 200) if box is None else (int(v * scale) for v in box)
    room = (right - left) // 5
    part = pixels[max(0, top) + room : bottom - room, left + room : right - room]
    return float((roughness(part) > 2).mean())
