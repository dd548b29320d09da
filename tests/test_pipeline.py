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

import deepscan
from builders import clips
from deepscan import Faces, Heatmaps, Sampling, Scoring, Settings
from deepscan.cli import run
from deepscan.errors import OutputError, SettingsError, UnreadableInput
from deepscan.files import sha256
from deepscan.judgement.words import time_code
from deepscan.model import packed, processor
from deepscan.model.networks import load_scorer
from deepscan.pipeline import scan
from deepscan.records import Case, Request, VerdictName
from deepscan.report import json as report_json
from deepscan.report.performance import performance
from deepscan.verification import sample as demo
from deepscan.verification.verify import TOLERANCE

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
    assert (times[0], times[-1]) == (0, pytest.approx(demo.Clip().seconds - 1 / demo.RATE))


def test_the_input_is_left_as_it_was_and_named_by_its_hash(
    scanned: deepscan.Report, sample: Path
) -> None:
    assert scanned.source.sha256 == scanned.provenance.sha256_after == sha256(sample)


def test_the_report_on_disk_fits_its_schema(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    document = json.loads((scanned.folder / "report.json").read_text("utf-8"))
    jsonschema.validate(document, report_json.schema())
    assert document["calibration"]["state"] == "calibrated"
    assert document["calibration"]["probability"] == pytest.approx(scanned.probability, abs=1e-6)
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
    assert there == {*scanned.outputs, "report.json", "manifest.json"}
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
    assert times[-1] == pytest.approx(demo.Clip().seconds, abs=0.1)


def test_the_raw_attention_is_kept(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    raw = np.load(scanned.folder / "heatmaps" / "attention.npz")
    assert raw["query_attention"].shape == (8, 4, 196)
    assert raw["cls_attention"].shape == (8, 196)
    assert np.allclose(raw["query_attention"].sum(-1), 1, atol=1e-3)
    assert raw["logit"].mean() == pytest.approx(scanned.score, abs=0.005)


def test_the_raw_evidence_adds_up_to_the_logits(scanned: deepscan.Report) -> None:
    assert scanned.folder is not None
    raw = np.load(scanned.folder / "heatmaps" / "evidence.npz")
    assert set(raw) >= {"track", "frame_index", "time", "to_frame", "view"}
    assert raw["evidence"].shape == (8, 196)
    np.testing.assert_allclose(raw["evidence"].sum(1) + raw["constant"], raw["logit"], atol=1e-4)
    found = scanned.evidence_sum
    assert found is not None
    parts = found.speaking_for + found.speaking_against + found.constant
    assert parts == pytest.approx(found.logit, abs=1e-4)


def test_the_same_scan_gives_the_same_scores(scanned: deepscan.Report, sample: Path) -> None:
    again = scan(sample, QUICK)
    assert [f.logit for f in again.evidence.crops()] == [f.logit for f in scanned.evidence.crops()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_batch_size_agrees_to_the_stated_tolerance(sample: Path, precision: str) -> None:
    few, logits = Sampling(frames=3), []
    for batch in (1, 16):
        scoring = Scoring(precision=precision, batch=batch, offline=True)
        report = scan(sample, replace(QUICK, sampling=few, scoring=scoring))
        logits.append([f.logit for f in report.evidence.crops()])
    assert np.ptp(np.array(logits), axis=0).max() < TOLERANCE[precision]


@pytest.mark.parametrize(("flag", "computed"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_a_processor_without_bfloat16_emulates_it_only_where_asked_to(
    flag: str,
    computed: str,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load_scorer.cache_clear()  # loaded for this processor as it is
    monkeypatch.setattr(processor, "computes_bfloat16", lambda: False)
    monkeypatch.setattr(packed, "packable", lambda tower: False)
    asked = ["detect", str(sample), f"--out={tmp_path}", "--frames=2", f"--precision={flag}"]
    assert run([*asked, "--device=cpu", "--json", "--offline"]) == 0
    load_scorer.cache_clear()
    said = capsys.readouterr()
    assert json.loads(said.out)["tool"]["precision"] == computed
    assert said.err.count("emulates it") == (flag == "bfloat16")


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


def test_the_report_says_how_it_was_asked_for(sample: Path, tmp_path: Path) -> None:
    case = Case("K-7", notes="<b>as typed</b>")
    request = Request(("deepscan", "detect"), QUICK.origins() | {"sampling.frames": "flag"}, case)
    run = report_json.to_dict(scan(sample, QUICK, out=tmp_path / "out", request=request))["run"]
    assert run["argv"] == ["deepscan", "detect"]
    assert run["case"] == {
        "case": "K-7",
        "exhibit": "",
        "examiner": "",
        "notes": "<b>as typed</b>",
    }
    origins = run["origins"]
    assert origins.keys() == {f"{s}.{k}" for s, keys in run["settings"].items() for k in keys}
    assert (origins["sampling.frames"], origins["sampling.rule"]) == ("flag", "default")
    assert origins["scoring.offline"] == "call"  # neither the default nor a flag's


def test_a_call_from_python_has_no_command_line_and_no_case(scanned: deepscan.Report) -> None:
    run = report_json.to_dict(scanned)["run"]
    assert (run["argv"], run["case"]) == ([], None)
    assert run["origins"]["heatmaps.draw"] == "call"


def test_what_the_detector_does_on_sources_left_out_stands_in_the_report(
    scanned: deepscan.Report,
) -> None:
    found = report_json.to_dict(scanned)["performance"]
    assert "that had not seen its source" in found["data"]
    assert found["videos"] == {"real": 363, "manipulated": 473}
    assert f"{found['video_auc']['value']:.0%}".replace("%", " % of all pairs") in found["sentence"]
    assert "473 manipulated videos) a" in found["sentence"]


def test_a_test_on_other_data_goes_before_people_held_out() -> None:
    measured = {"value": 0.8, "low": 0.7, "high": 0.9}
    results = {"videos": {"real": 3, "manipulated": 4}, "video_auc": measured, "eer": measured}
    results |= {"tpr_at_fpr_5": measured}
    both = {"results": {"test": results, "validation": results}, "test": "others", "data": "own"}
    found = performance(both)
    assert found is not None
    assert found["sentence"].startswith("On others (3 real and 4 manipulated videos) a manipulated")
    found = performance(both | {"test": None})
    assert found is not None
    assert found["data"] == "held-out people of own"


@pytest.mark.parametrize(
    "training", [{}, {"results": None}, {"results": {"test": {"videos": 3}}, "test": "x"}]
)
def test_a_detector_that_states_no_test_has_no_performance(training: dict[str, object]) -> None:
    assert performance(training) is None


@pytest.mark.slow
def test_heatmaps_are_faithful_on_the_sample(sample: Path, tmp_path: Path) -> None:
    """Covering what the heatmaps mark costs more of the logit than covering patches by lot."""
    settings = replace(QUICK, heatmaps=Heatmaps(explain=True))
    report = scan(sample, settings, out=tmp_path / "out")
    found = report.faithfulness
    assert found is not None
    assert found.crops == 8  # three of them manipulated
    assert found.marked.deletion > found.random.deletion
    document = report_json.to_dict(report)
    jsonschema.validate(document, report_json.schema())
    assert "depends on" in document["faithfulness"]["sentence"]


@pytest.mark.slow
@pytest.mark.shared
def test_a_manipulated_tenth_is_pointed_at_with_its_time_codes(
    shared: Path, tmp_path: Path
) -> None:
    """A man as the camera saw him, and as a face-swap model made him from 60 % to 70 % of the clip.

    By the detector that tells such swaps; the default one does not, and says "inconclusive".
    """
    with av.open(str(shared / "pairs" / "David_Kovalniy_1.mp4")) as film:
        rate = film.streams.video[0].average_rate
        both = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert rate is not None
    half, count = both[0].shape[1] // 2, len(both)
    begin, end = count * 6 // 10, count * 7 // 10
    mixed = [
        frame[:, half:] if begin <= i < end else frame[:, :half] for i, frame in enumerate(both)
    ]
    clip = clips.write(tmp_path / "tenth.mp4", mixed, rate=int(rate), options={"crf": "18"})
    report = scan(clip, Settings(scoring=Scoring(weights="b16-lora", offline=True)))
    scores = report.evidence.scores
    assert scores is not None
    assert report.verdict.name is VerdictName.MANIPULATION_INDICATED
    assert report.verdict.reason == "stretch_high"  # whatever the mean of the whole says
    assert scores.stretch is not None
    assert scores.longest_run is not None
    step = count / rate / 31  # between two sampled instants
    for found in (scores.stretch, scores.longest_run):
        assert begin / rate <= found.start < begin / rate + step
        assert end / rate - step <= found.end < end / rate
    sentence = report.verdict.sentence
    assert f"{time_code(scores.stretch.start)}–{time_code(scores.stretch.end)}" in sentence


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

    def gone(stage: str, done: int, total: int) -> None:
        if stage == "scoring":
            path.unlink(missing_ok=True)

    with pytest.raises(UnreadableInput, match="cannot be read"):
        scan(path, QUICK, out=tmp_path / "out", progress=gone)


def test_a_device_that_is_not_there_is_refused(sample: Path) -> None:
    with pytest.raises(SettingsError, match="no such GPU"):
        scan(sample, replace(QUICK, scoring=Scoring(device="cuda:99", offline=True)))


def test_progress_is_told_by_stage(sample: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    scan(sample, QUICK, progress=lambda *step: heard.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in heard))
    assert [s for s in stages if s != "second look"] == ["loading", "faces", "scoring", "writing"]
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


@pytest.mark.slow
def test_the_manipulated_quarter_of_the_sample_has_a_second_look_and_a_verdict_of_its_own(
    sample: Path,
) -> None:
    """Its mean is inconclusive; the stretch stands out of it, and the second look confirms that."""
    report = deepscan.scan(sample)
    assert report.verdict.reason == "stretch_high"
    assert report.evidence.second_look is not None
    assert len(report.evidence.second_look.frames) >= 24
    assert report.evidence.scores is not None
    stretch, found = report.evidence.scores.stretch, report.evidence.scores.stretch_finding
    assert stretch is not None
    assert found is not None
    assert found.score > report.evidence.thresholds.high
    assert 1.9 < stretch.start < stretch.end < 4.1
    without = deepscan.scan(
        sample, deepscan.Settings(sampling=deepscan.Sampling(second_look=False))
    )
    assert without.verdict.reason == "stretch_stands_out"
    assert without.evidence.second_look is None
    again = [track.score for track in without.evidence.tracks]
    assert again == [track.score for track in report.evidence.tracks]
