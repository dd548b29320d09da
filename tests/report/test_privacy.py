"""What a private report keeps back is nowhere in its folder, and no password is in any report."""

from __future__ import annotations

import io
import json
import platform
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from builders import reports
from deepscan.cli import run
from deepscan.errors import OutputError
from deepscan.records import Box, Credentials
from deepscan.report.json import to_dict
from deepscan.report.pictures import FacePicture, FramePicture, jpeg
from deepscan.report.privacy import hidden, withheld, without_userinfo


@pytest.mark.parametrize(
    ("typed", "stated"),
    [
        ("s3://me:secret@host/rows", "s3://host/rows"),
        ("--engine=ray=ray://token@head:10001", "--engine=ray=ray://head:10001"),
        ("https://host/a@b", "https://host/a@b"),
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
        " --examiner Jane --parquet=s3://k:s@host/x --device=cpu"
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
        " --examiner (withheld) --parquet=(withheld) --device=cpu"
    )
    assert str(kept.source.path) == "a.mp4"
    assert kept.source.tags == {}
    assert "Jane" not in kept.provenance.credentials.detail


def test_pictures_show_the_deciding_face_alone() -> None:
    """Noise is as fine as a picture gets: where it is left, neighbours differ as they did."""
    noise = np.random.default_rng(0).integers(0, 256, (320, 640, 3), np.uint8)
    own = jpeg(noise[:300, :300], 300, 10**6)
    face = FacePicture(1, own, (150, 50, 300, 300), {}, 120, np.zeros((2, 3)))
    other = replace(face, track=2)
    picture = FramePicture(5, 0.2, 1280, 640, jpeg(noise, 640, 10**6), (face, other))
    (shown,) = hidden([picture], 1, {5: Box(200, 100, 400, 300)})  # of a frame twice as large

    def rough(data: bytes) -> np.ndarray:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
        return np.abs(np.diff(pixels, axis=1))

    assert rough(shown.jpeg)[55:145, 105:195].mean() > 20
    assert rough(shown.jpeg)[170:].mean() < 3
    assert rough(shown.faces[0].jpeg)[60:240, 60:240].mean() > 20  # its box, and nothing around it
    assert rough(shown.faces[0].jpeg)[255:].mean() < 3
    assert rough(shown.faces[1].jpeg).mean() < 3
    (none,) = hidden([picture], None, {})
    assert rough(none.jpeg).mean() < 3


def tagged(source: Path, path: Path, tags: dict[str, str]) -> None:
    """The same stream with other tags."""
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        out.metadata.update(tags)
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


def test_nothing_of_what_is_withheld_is_in_the_folder(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raid-on-jane-doe"
    folder.mkdir()
    clip = folder / "exhibit.mp4"
    tags = {"title": "At Jane's", "location": "+52.5200+013.4050/", "artist": "J. Doe"}
    tagged(sample, clip, tags)
    out = tmp_path / "results-of-jane"
    command = ["detect", str(clip), "--out", str(out), "--frames", "4", "--heatmap", "--offline"]
    assert run([*command, "--private", "--examiner", "Erika"]) == 0
    written = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    withheld_words = (
        str(tmp_path),
        "jane",
        "Jane",
        "52.52",
        "Doe",
        platform.platform(),
        platform.release(),
    )
    for name, content in written.items():
        for word in withheld_words:
            assert word.encode() not in content, (name, word)
    names = [name for name in written if "/heatmaps/" in name]
    assert not any(name.endswith(".mp4") for name in names)
    report = json.loads(written["exhibit.mp4/report.json"])
    assert report["run"]["case"]["examiner"] == "Erika"  # asked for
    assert report["input"]["path"] == "exhibit.mp4"
    capsys.readouterr()
    assert run(["verify", str(out / "exhibit.mp4"), "--input", str(clip)]) == 0
