"""A path goes in, a Report comes out: the whole line on the sample clip, with the real base and detector."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import jsonschema
import numpy as np
import pytest
from PIL import Image

import clips
import deepscan
from deepscan import Faces, Heatmaps, Sampling, Scoring, Settings, demo
from deepscan.errors import OutputError, SettingsError, UnreadableInput
from deepscan.files import sha256
from deepscan.pipeline import scan
from deepscan.records import VerdictName
from deepscan.report import json as report_json

QUICK = Settings(sampling=Sampling(frames=8), scoring=Scoring(offline=True))


@pytest.fixture(scope="module")
def scanned(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> deepscan.Report:
    """The sample's report with heatmaps, at eight instants."""
    out = tmp_path_factory.mktemp("results") / "sample"
    return scan(sample, replace(QUICK, heatmaps=Heatmaps(draw=True, cls=True)), out=out)


def test_the_face_is_followed_through_the_clip(scanned: deepscan.Report) -> None:
    (track,) = scanned.evidence.tracks
    assert len(track.frames) == scanned.evidence.frames_with_face == 8
    assert scanned.evidence.decoding.decoded == 8
    assert scanned.score == track.score == scanned.evidence.scores.largest_face  # type: ignore[union-attr]
    times = [float(frame.time) for frame in track.frames]
    assert (times[0], times[-1]) == (0, pytest.approx(6 - 1 / demo.RATE))


def test_the_input_is_left_as_it_was_and_named_by_its_hash(
    scanned: deepscan.Report, sample: Path
) -> None:
    assert scanned.source.sha256 == scanned.provenance.sha256_after == sha256(sample)


def test_the_report_on_disk_fits_its_schema(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    document = json.loads((scanned.folder / "report.json").read_text("utf-8"))
    jsonschema.validate(document, report_json.schema())
    assert document["calibration"]["state"] == "uncalibrated, provisional"
    assert document["scores"]["direction"] == "logit > 0 leans to manipulated"
    assert document == json.loads(report_json.text(scanned))


def test_the_schema_refuses_what_it_does_not_know(scanned: deepscan.Report) -> None:
    document = report_json.to_dict(scanned)
    for broken in (
        {**document, "mood": "good"},
        {**document, "verdict": {**document["verdict"], "name": "REAL"}},
        {key: value for key, value in document.items() if key != "calibration"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, report_json.schema())


def test_every_announced_output_is_there_and_no_other(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    there = {
        p.relative_to(scanned.folder).as_posix() for p in scanned.folder.rglob("*") if p.is_file()
    }
    assert there == {*scanned.outputs, "report.json"}
    pictures = [
        name for name in there if re.fullmatch(r"heatmaps/track01_\d{6}\.\d{3}s(_cls)?\.png", name)
    ]
    assert len(pictures) == 2 * 8
    assert {"heatmaps/overlay.mp4", "heatmaps/contact_sheet.png", "heatmaps/attention.npz"} <= there


def test_the_overlay_film_plays_as_long_as_the_clip(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    with av.open(str(scanned.folder / "heatmaps" / "overlay.mp4")) as film:
        stream = film.streams.video[0]
        times = [float(frame.time) for frame in film.decode(video=0)]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width % 2, stream.height % 2) == (0, 0)
    assert times[0] == 0
    assert times == sorted(times)
    assert times[-1] == pytest.approx(6, abs=0.1)


def test_the_raw_attention_is_kept(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    raw = np.load(scanned.folder / "heatmaps" / "attention.npz")
    assert raw["query_attention"].shape == (8, 4, 196)
    assert raw["cls_attention"].shape == (8, 196)
    assert np.allclose(raw["query_attention"].sum(-1), 1, atol=1e-3)
    assert raw["logit"].mean() == pytest.approx(scanned.score)


def test_the_same_scan_gives_the_same_scores(scanned: deepscan.Report, sample: Path) -> None:
    again = scan(sample, QUICK)
    assert [f.logit for f in again.evidence.crops()] == [f.logit for f in scanned.evidence.crops()]


@pytest.mark.slow
def test_precision_and_batch_change_no_verdict(sample: Path) -> None:
    """float32 one by one against bfloat16 in batches; the logits differ by bfloat16's rounding."""
    plain = scan(
        sample, replace(QUICK, scoring=Scoring(precision="float32", batch=1, offline=True))
    )
    fast = scan(
        sample, replace(QUICK, scoring=Scoring(precision="bfloat16", batch=16, offline=True))
    )
    assert (plain.provenance.precision, fast.provenance.precision) == ("float32", "bfloat16")
    assert plain.verdict.name == fast.verdict.name
    assert plain.score == pytest.approx(fast.score, abs=0.2)


def test_a_clip_without_a_face_has_a_verdict_and_no_score(tmp_path: Path) -> None:
    wall = [np.full((120, 160, 3), 128, np.uint8)] * 5
    report = scan(clips.write(tmp_path / "wall.mp4", wall), QUICK, out=tmp_path / "out")
    assert report.verdict.name is VerdictName.NO_FACE
    assert report.score is None
    jsonschema.validate(report_json.to_dict(report), report_json.schema())


def test_a_picture_is_judged_too(tmp_path: Path) -> None:
    demo.portrait().save(tmp_path / "portrait.png")
    settings = replace(QUICK, heatmaps=Heatmaps(draw=True))
    report = scan(tmp_path / "portrait.png", settings, out=tmp_path / "out")
    assert report.verdict.name.assessed
    assert report.source.kind == "image"
    assert "heatmaps/overlay.mp4" not in report.outputs
    jsonschema.validate(report_json.to_dict(report), report_json.schema())


def test_small_faces_are_counted_not_judged(sample: Path) -> None:
    report = scan(sample, replace(QUICK, faces=Faces(min_size=400)))
    assert report.verdict.name in (VerdictName.NO_FACE, VerdictName.INSUFFICIENT)
    assert report.score is None


def test_two_people_are_two_tracks(tmp_path: Path) -> None:
    person = np.asarray(demo.portrait().resize((256, 304), Image.Resampling.BICUBIC))
    pair = np.concatenate([person, person[:, ::-1]], axis=1)
    report = scan(clips.write(tmp_path / "pair.mp4", [pair] * 6), QUICK)
    assert [len(track.frames) for track in report.evidence.tracks] == [6, 6]


def test_results_are_not_replaced_unless_asked(sample: Path, scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    before = sha256(scanned.folder / "report.json")
    with pytest.raises(OutputError, match="--force"):
        scan(sample, QUICK, out=scanned.folder)
    assert sha256(scanned.folder / "report.json") == before


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "not.mp4").write_text("no video")
    with pytest.raises(UnreadableInput, match="not a readable video"):
        scan(tmp_path / "not.mp4", QUICK, out=tmp_path / "out" / "not.mp4")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_input_that_changes_while_it_is_looked_at_gets_no_score(
    sample: Path, tmp_path: Path
) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(sample.read_bytes())

    def touched(stage: str, done: int, total: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(UnreadableInput, match="changed while it was analysed"):
        scan(path, QUICK, out=tmp_path / "out" / "x", progress=touched)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_input_that_vanishes_is_an_input_error(sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "gone.mp4"
    path.write_bytes(sample.read_bytes())
    with pytest.raises(UnreadableInput, match="cannot be read"):
        scan(path, QUICK, out=tmp_path / "out", progress=lambda *_: path.unlink(missing_ok=True))


def test_a_device_that_is_not_there_is_refused(sample: Path) -> None:
    with pytest.raises(SettingsError, match="no such GPU"):
        scan(sample, replace(QUICK, scoring=Scoring(device="cuda:99", offline=True)))


def test_progress_is_told_by_stage(sample: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    scan(sample, QUICK, progress=lambda *step: heard.append(step))
    assert {stage for stage, _, _ in heard} == {"decoding", "faces", "scoring"}
    assert [step for step in heard if step[0] == "scoring"][-1] == ("scoring", 8, 8)


@pytest.mark.slow
@pytest.mark.shared
def test_the_crowded_street_has_several_tracks(shared: Path, tmp_path: Path) -> None:
    report = scan(shared / "clips" / "real" / "facenet_street_many.mp4", QUICK)
    assert sum(track.enough for track in report.evidence.tracks) >= 3


def test_the_package_offers_what_the_readme_uses() -> None:
    names: dict[str, Callable[..., object]] = {
        name: getattr(deepscan, name) for name in deepscan.__all__
    }
    assert names["scan"] is scan
