"""Results as they were written are found the same; a change anywhere is found, and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deepscan import Heatmaps, Sampling, Scoring, Settings
from deepscan.cli import run
from deepscan.config import Settings as Plain
from deepscan.errors import InputError, SettingsError
from deepscan.files import sha256
from deepscan.media import open_source
from deepscan.model import weights
from deepscan.pipeline import scan
from deepscan.report import json as report_json
from deepscan.report import page, signing
from deepscan.report.provenance import NAME, write_manifest
from deepscan.report.reading import from_dict
from deepscan.verification.verify import TOLERANCE, Finding, Match, compare, verify

SETTINGS = Settings(
    sampling=Sampling(frames=4), scoring=Scoring(offline=True), heatmaps=Heatmaps(draw=True)
)


@pytest.fixture(scope="module")
def case(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the sample, a detector of its own, and the results of both."""
    folder = tmp_path_factory.mktemp("case")
    shutil.copy(sample, folder / "exhibit.mp4")
    shutil.copy(weights.detector_file("default"), folder / "mine.safetensors")
    scoring = replace(SETTINGS.scoring, weights=str(folder / "mine.safetensors"))
    scan(folder / "exhibit.mp4", replace(SETTINGS, scoring=scoring), out=folder / "results")
    return folder


@pytest.fixture
def results(case: Path, tmp_path: Path) -> Path:
    """A copy of the results, to be changed."""
    return Path(shutil.copytree(case / "results", tmp_path / "results"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def differing(folder: Path, given: Path | None = None) -> list[str]:
    return [f.what for f in verify(folder, given).findings if f.state is Match.DIFFERS]


def test_what_was_written_is_found_the_same(case: Path) -> None:
    found = verify(case / "results")
    assert found.state is Match.SAME
    assert {"report.json", "heatmaps/overlay.mp4", "input", "detector", "base"} <= {
        finding.what for finding in found.findings
    }
    assert found.manifest_sha256 == sha256(case / "results" / NAME)


def test_a_flipped_byte_is_found_in_every_file(results: Path) -> None:
    for path in sorted(p for p in results.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            flip(path, place)
            assert path.relative_to(results).as_posix() in differing(results)
            path.write_bytes(whole)
    assert differing(results) == []


def test_a_changed_field_of_the_report_is_found(results: Path) -> None:
    path = results / "report.json"
    path.write_text(path.read_text("utf-8").replace('"sampled": 4', '"sampled": 5'), "utf-8")
    found = verify(results)
    assert [f.what for f in found.findings if f.state is Match.DIFFERS] == ["report.json"]
    # Nothing that a changed report says is believed.
    unchecked = {f.what for f in found.findings if f.state is Match.NOT_CHECKED}
    assert unchecked == {
        "report.json and manifest.json",
        "conclusions",
        "page",
        "input",
        "detector",
        "base",
    }


def test_missing_added_and_replaced_files_are_found(results: Path) -> None:
    (results / "heatmaps" / "contact_sheet.png").unlink()
    (results / "heatmaps" / "extra.png").write_bytes(b"more")
    (results / "heatmaps" / "attention.npz").unlink()
    (results / "heatmaps" / "attention.npz").symlink_to(results / "report.json")
    assert set(differing(results)) == {
        "heatmaps/contact_sheet.png",
        "heatmaps/extra.png",
        "heatmaps/attention.npz",
    }


def test_a_changed_input_is_found(case: Path, results: Path, tmp_path: Path) -> None:
    other = tmp_path / "moved.mp4"
    shutil.copy(case / "exhibit.mp4", other)
    assert differing(results, other) == []
    flip(other, 1000)
    assert differing(results, other) == ["input"]


def test_an_input_that_is_elsewhere_now_is_asked_for(results: Path, tmp_path: Path) -> None:
    found = verify(results, tmp_path / "gone.mp4")
    assert found.state is Match.NOT_CHECKED
    (finding,) = (f for f in found.findings if f.what == "input")
    assert "--input" in finding.detail


def test_other_weights_are_found(case: Path, results: Path) -> None:
    mine = case / "mine.safetensors"
    whole = mine.read_bytes()
    try:
        flip(mine, len(whole) - 1)
        assert differing(results) == ["detector"]
        mine.unlink()
        assert verify(results).state is Match.NOT_CHECKED
    finally:
        mine.write_bytes(whole)


def test_a_base_that_is_not_here_leaves_the_check_open(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = weights.catalogue()
    entry = known.bases[known.detectors[known.default].base]
    known = replace(known, bases={entry.name: replace(entry, file=f"{entry.name}.elsewhere")})
    monkeypatch.setattr(weights, "catalogue", lambda: known)
    (finding,) = (f for f in verify(results).findings if f.what == "base")
    assert finding.state is Match.NOT_CHECKED


def rewrite(folder: Path, source: object, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    """What somebody does who knows how deepscan works: change the report and make a new manifest."""
    path = folder / "report.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")
    (folder / NAME).unlink()
    write_manifest(folder, source)  # type: ignore[arg-type]


def lower(document: dict) -> None:  # type: ignore[type-arg]
    """Lower all logits by 9, and leave what was concluded of them."""
    for frame in document["tracks"][0]["frames"]:
        frame["logit"] -= 9


def change_all(case: Path, results: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    """Change a report as somebody would who has deepscan: what is concluded, and the page, follow."""
    path = results / "report.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    concluded = report_json.to_dict(from_dict(document))
    (results / "report.html").write_text(page.html(concluded), "utf-8")
    rewrite(results, open_source(case / "exhibit.mp4").source, lambda d: d.update(concluded))


@pytest.mark.slow
def test_logits_changed_with_all_that_follows_are_found_by_a_rerun(
    case: Path, results: Path
) -> None:
    change_all(case, results, lower)
    assert differing(results) == []
    (finding,) = (f for f in verify(results, rerun=True).findings if f.what == "rerun")
    assert finding.state is Match.DIFFERS
    assert "logits differ by up to 9.0" in finding.detail


@pytest.mark.slow
def test_signatures_at_the_command_line(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, clip = tmp_path / "lab.key", case / "exhibit.mp4"
    assert run(["keygen", str(key)]) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert run(["keygen", str(key)]) == 1  # never overwritten
    out = tmp_path / "out"
    command = ["detect", str(clip), "--out", str(out), "--frames", "2", "--offline"]
    assert run([*command, "--sign", str(tmp_path / "lab.key.pub")]) == 2
    assert run([*command, "--sign", str(key)]) == 0
    assert run(["verify", str(out / "exhibit.mp4"), "--key", str(tmp_path / "lab.key.pub")]) == 0
    assert run(["verify", str(out / "exhibit.mp4")]) == 1  # signed by whom?
    signing.make_keys(tmp_path / "other")
    assert run(["verify", str(out / "exhibit.mp4"), "--key", str(tmp_path / "other.pub")]) == 3
    (out / "exhibit.mp4" / "manifest.sig").unlink()
    assert run(["verify", str(out / "exhibit.mp4"), "--key", str(tmp_path / "lab.key.pub")]) == 3
    assert "no signature" in capsys.readouterr().out


def test_a_rerun_finds_the_same(case: Path) -> None:
    found = verify(case / "results", rerun=True)
    assert found.state is Match.SAME
    assert "4 logits agree within 0.0000" in found.findings[-1].detail


def test_no_rerun_on_another_input(results: Path, sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    shutil.copy(sample, other)
    flip(other, 1000)
    assert verify(results, other, rerun=True).findings[-1].state is Match.NOT_CHECKED


def test_a_report_and_a_manifest_of_two_inputs_are_told(case: Path, results: Path) -> None:
    source = open_source(case / "exhibit.mp4").source
    rewrite(results, replace(source, sha256="0" * 64), lambda document: None)
    assert "report.json and manifest.json" in differing(results)


def test_a_report_of_an_earlier_form_is_not_called_changed(case: Path, results: Path) -> None:
    """Its files and its input are checked; its conclusions were drawn by rules of then."""

    def earlier(document: dict) -> None:  # type: ignore[type-arg]
        document["schema"] = "deepscan.report/1"
        for track in document["tracks"]:
            del track["finding"], track["merged"]

    rewrite(results, open_source(case / "exhibit.mp4").source, earlier)
    found = {f.what: f for f in verify(results).findings}
    assert found["conclusions"].state is found["page"].state is Match.NOT_CHECKED
    assert "deepscan.report/1: an earlier form" in found["conclusions"].detail
    assert found["report.json"].state is found["input"].state is Match.SAME


def test_without_a_manifest_nothing_can_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"manifest\.json"):
        verify(tmp_path)
    assert run(["verify", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_command_line(
    case: Path, results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["verify", str(case / "results" / "report.json")]) == 0
    shown = capsys.readouterr().out
    assert sha256(case / "results" / NAME) in shown
    assert "note its SHA-256 in the case file, or sign it" in shown
    assert run(["verify", str(results), "--input", str(tmp_path / "gone")]) == 1
    flip(results / "heatmaps" / "overlay.mp4", 200)
    capsys.readouterr()
    assert run(["verify", str(results), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == "differs"
    assert [f["what"] for f in document["findings"] if f["state"] == "differs"] == [
        "heatmaps/overlay.mp4"
    ]
    assert run(["verify"]) == 2


# --- settings there and back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [Plain(), replace(SETTINGS, sampling=Sampling.parse("every:0.1"))],
    ids=["default", "every"],
)
def test_settings_come_back_from_a_report_as_they_were(settings: Plain) -> None:
    assert Plain.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_settings_of_another_kind_are_refused() -> None:
    plain = Plain().to_dict()
    for broken in ({}, {**plain, "faces": {"size": 3}}, {**plain, "scoring": None}):
        with pytest.raises(SettingsError, match="another version"):
            Plain.from_dict(broken)


def test_a_verdict_that_differs_is_told(case: Path, sample: Path) -> None:
    report = json.loads((case / "results" / "report.json").read_text("utf-8"))
    again = scan(sample, replace(SETTINGS, heatmaps=Heatmaps()))
    assert compare(report, again).state is Match.SAME
    other = {**report, "verdict": {**report["verdict"], "name": "no_face"}}
    assert "the verdict is" in compare(other, again).detail
    fewer = scan(sample, replace(SETTINGS, sampling=Sampling(frames=2), heatmaps=Heatmaps()))
    assert "faces were found in only one run" in compare(report, fewer).detail
    assert set(TOLERANCE) == {"float32", "bfloat16"}
    assert isinstance(compare(report, again), Finding)
