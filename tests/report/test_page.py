"""report.html and index.html as text: what they say, what they never say, how large they can get."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from builders import reports
from builders.language import terms
from deepscan.batches import index
from deepscan.batches.outcomes import Outcome
from deepscan.errors import OutputError, UnreadableInput
from deepscan.judgement.words import HEADLINES
from deepscan.records import VerdictName
from deepscan.report import json as report_json
from deepscan.report import page, rendering
from deepscan.report.heatmap import ATTENTION, EVIDENCE

STYLE = rendering.style_sheet()


def words(html: str) -> str:
    """What a reader sees, more or less."""
    body = re.sub(r"<(style|script|template)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


# --- what it says ----------------------------------------------------------------------------------


def test_every_verdict_has_a_headline_and_none_is_real() -> None:
    assert set(HEADLINES) == set(VerdictName)
    assert not any("real" in words.lower().split() for words in HEADLINES.values())


def first_screen(html: str) -> str:
    return words(html[html.index('<section id="finding"') :].partition("</section>")[0])


def test_the_first_screen_says_it_all_in_plain_words() -> None:
    """Verdict, reason, probability, face, scale with its limits, stretch, next steps: in this order."""
    report, kept = reports.made()
    document = report_json.to_dict(report)
    text = first_screen(page.html(document, kept))
    parts = (
        "Inconclusive",
        document["verdict"]["summary"],
        "No probability",
        "\u22124.00, face 1 as a whole",
        "Face 1 at 0:03.2",
        "red speaks for manipulation",
        "Score of face 1 over time",
        "What to do next",
        *document["verdict"]["next"],
    )
    places = [unescape(text).index(part) for part in parts]
    assert places == sorted(places)
    assert terms(text) == []


@pytest.mark.parametrize(
    ("how", "value"),
    [({}, 4.0), ({}, -5.0), ({}, 0.0), ({"people": 0}, 0.0), ({"instants": 2}, 9.0),
     ({"calibration": None}, 4.0)],
)  # fmt: skip
def test_no_first_screen_needs_a_specialist(how: dict[str, Any], value: float) -> None:
    tested = replace(reports.CALIBRATED, unseen=True)
    given = {"people": 1, "calibration": tested, "logit": lambda track, instant: value, **how}
    report, kept = reports.made(**given)
    text = first_screen(page.html(report_json.to_dict(report), kept))
    assert report.verdict.name.replace("_", " ") in text.lower() or "No face found" in text
    assert terms(text) == []


def test_all_blocks_are_there() -> None:
    report, kept = reports.made()
    html = page.html(report_json.to_dict(report), kept)
    titles = re.findall(r'<h2 id="[\w-]+-title">(.*?)</h2>', html.partition("</main>")[0])
    assert " ".join(titles) == "Limits of this result Faces Frames Record"
    entries = re.findall(r"<summary><h3>(.*?)</h3>", html)
    assert " ".join(entries) == (
        "Scores Maps Calibration Performance Input Coverage Tool Run Reproduction"
    )
    text = unescape(words(html))
    assert report.verdict.sentence in text
    assert "above 0 it leans to manipulated" in text
    assert EVIDENCE.caveat in text
    assert ATTENTION.caveat in text
    assert "The mean logit of face 1" in text
    assert "and a constant of" in text


def test_every_picture_stands_in_the_page_once_and_what_shows_it_refers_to_it() -> None:
    html = page.html(report_json.to_dict((made := reports.made())[0]), made[1])
    ids = re.findall(r' id="([^"{]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'<use [^>]*href="#([^"]+)"', html))
    assert used <= set(ids)
    assert html.count('href="data:image') == len(re.findall(r"<image ", html))


def test_outputs_are_links() -> None:
    report, kept = reports.made()
    names = ("heatmaps/a b#.png", "heatmaps/overlay.mp4", "report.html")
    html = page.html(report_json.to_dict(replace(report, outputs=names)), kept)
    for address in (
        "heatmaps/a%20b%23.png",
        "heatmaps/overlay.mp4",
        "report.json",
        "manifest.json",
    ):
        assert f'<a href="{address}">' in html


def test_without_heatmaps_nothing_is_said_of_them() -> None:
    report, kept = reports.made(heat=False)
    html = page.html(report_json.to_dict(report), kept)
    assert 'id="heatmaps"' not in html
    assert "image/webp" not in html
    assert "No map was drawn" in html
    assert 'class="strip"' in html


def test_without_a_face_there_is_no_score_and_still_the_frames() -> None:
    report, kept = reports.made(people=0)
    text = words(html := page.html(report_json.to_dict(report), kept))
    assert "No face found" in text
    assert "No face was found in 32 frames" in text
    assert 'id="timeline"' not in html
    assert 'class="scale-of-scores"' not in html
    assert html.count("<figure>") == 3


def test_a_report_of_an_earlier_version_still_makes_a_page() -> None:
    document = report_json.to_dict(reports.made()[0])
    document["schema"] = "deepscan.report/1"
    document["verdict"] |= {"reason": "score_low"}
    for name in ("performance", "faithfulness", "c2pa"):
        del document[name]
    for name in ("interval", "share_above", "longest_run", "faces_judged"):
        del document["scores"][name]
    del document["scores"]["stretch"]["finding"]
    for name in ("likelihood_ratio", "rates"):
        del document["calibration"][name]
    for name in ("instants", "cuts", "second_look", "faces_too_many", "interlaced"):
        del document["coverage"][name]
    for track in document["tracks"]:
        for name in ("interval", "share_above", "longest_run", "runs", "cuts", "merged", "finding"):
            del track[name]
    for name in ("argv", "case", "origins"):
        del document["run"][name]
    assert "Inconclusive" in page.html(document)
    del document["scores"]["stretch"]  # still earlier ones had none
    assert "Inconclusive" in page.html(document)


def test_every_face_has_its_verdict_its_thresholds_and_its_reason() -> None:
    """Face 2 alone is judged by others' number, too: 2 + 3.79 log(2) = 4.63 for either."""
    calibration = replace(reports.CALIBRATED, unseen=True, indicated=0.6, cleared=0.4)
    report, kept = reports.made(
        calibration=calibration, logit=lambda track, instant: 8.0 - 6 * track
    )
    document = report_json.to_dict(report)
    jsonschema.validate(document, report_json.schema())
    named = [track["finding"]["name"] for track in document["tracks"]]
    assert named == ["inconclusive", "no_manipulation_indicated"]
    assert [track["finding"]["high"] for track in document["tracks"]] == [4.63, 4.63]
    text = unescape(words(page.html(document, kept)))
    assert "Of 2 faces judged face 1 decides." in text
    for track in report.evidence.tracks:
        assert track.finding is not None
        assert " ".join(track.finding.verdict.sentence.split()) in text
    assert "indicate 5 % of the real and 60 % of the manipulated videos" in text


def test_results_by_kind_are_told_with_unseen_sources_first() -> None:
    report, kept = reports.made()
    row = {"kind": "swap", "data": "own", "unseen": False, "real": 20, "manipulated": 30, "auc": 0.9,
           "low": 0.8, "high": 0.95, "indicated": 0.5, "cleared": 0.04}  # fmt: skip
    value = {"value": 0.9, "low": 0.8, "high": 0.95}
    validation = {
        "videos": {"real": 20, "manipulated": 30},
        "video_auc": value,
        "eer": value,
        "tpr_at_fpr_5": value,
    }
    kinds = [row, {**row, "kind": "lip-sync", "data": "elsewhere", "unseen": True, "auc": 0.6}]
    training = {"data": "own", "results": {"validation": validation, "kinds": kinds}}
    detector = {**report.provenance.detector, "training": training}
    stated = replace(report, provenance=replace(report.provenance, detector=detector))
    document = report_json.to_dict(stated)
    jsonschema.validate(document, report_json.schema())
    assert [row["kind"] for row in document["performance"]["kinds"]] == ["lip-sync", "swap"]
    assert "lip-sync elsewhere (never seen) 20 + 30 0.60" in words(page.html(document, kept))


def test_a_picture_has_no_timeline() -> None:
    report, kept = reports.made(people=1, instants=1)
    document = report_json.to_dict(replace(report, source=replace(report.source, kind="image")))
    html = page.html(document, kept)
    assert 'id="timeline"' not in html
    text = words(html.partition("</main>")[0])
    shown = text.partition(" Record Scores ")[
        0
    ]  # the record states everything, the frame's time too
    assert not re.search(r"\b0:00|between them|video’s own|Step through", shown)


# --- what it lets through --------------------------------------------------------------------------


def test_nothing_can_be_loaded_and_only_what_the_policy_names_runs() -> None:
    report, kept = reports.made()
    html = page.html(report_json.to_dict(report), kept)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src &#39;none&#39;; img-src data:;")
    assert "unsafe" not in policy
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    for text in (style, script):
        assert rendering._digest(text) in policy
    assert not re.search(r"""src="(?!data:)|<(?!a )\w+[^>]* href="(?!data:|\#)""", html)
    assert " style=" not in html


def test_text_from_outside_stays_text() -> None:
    report, kept = reports.made(
        text=reports.HOSTILE, path=f"clips/{reports.HOSTILE.replace('/', '')}"
    )
    html = page.html(report_json.to_dict(report), kept)
    assert (
        html.count("<script") == html.count("</script>") == 2
    )  # the page's data and its own script
    assert "onerror=alert(2)&gt;" in html
    assert "<img src=x" not in html
    assert "{{ 7*7 }}" in html
    assert not set("\u202e\u2066\x07") & set(html)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "<bdi>plain</bdi>"),
        ("<b>", "<bdi>&lt;b&gt;</bdi>"),
        ("a\u202eb", '<bdi>a<span class="code">U+202E</span>b</bdi>'),
        (
            "\udcff.mp4",
            '<bdi><span class="code">U+DCFF</span>.mp4</bdi>',
        ),  # a byte that is no UTF-8
    ],
)
def test_what_cannot_be_seen_is_shown_by_its_code(text: str, seen: str) -> None:
    assert rendering.shown(text) == seen


def test_endless_text_is_told_by_its_length() -> None:
    assert "and 8000 more characters" in rendering.shown("x" * 10_000)


def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    report, kept = reports.made(path="clips/\udcff.mp4")
    assert page.write(report_json.to_dict(report), tmp_path, kept) == tmp_path / "report.html"


# --- how it looks ----------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("text", ["ink", "soft", "accent"])
@pytest.mark.parametrize("ground", ["paper", "tint", "wash"])
def test_text_stands_out_from_its_ground(scheme: int, text: str, ground: str) -> None:
    """AA asks for 4.5 to 1."""
    root = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w{6});", root))
    lights = sorted(luminance(colours[name]) for name in (text, ground))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


# --- the index of a batch --------------------------------------------------------------------------


def batch(out: Path) -> list[Outcome]:
    """One input judged, one with a name that needs quoting, one that failed."""
    first, _ = reports.made(path="a.mp4")
    odd, _ = reports.made(path="50% <b>&#?.mp4", people=0)
    return [
        Outcome.of(Path("a.mp4"), replace(first, folder=out / "a.mp4")),
        Outcome.of(Path("50% <b>&#?.mp4"), replace(odd, folder=out / "50% <b>&#?.mp4")),
        Outcome.of(Path("c.mp4"), UnreadableInput("c.mp4: cannot be <i>read</i>")),
    ]


def test_the_index_counts_verdicts_links_reports_and_tells_failures(tmp_path: Path) -> None:
    html = index.write(tmp_path, batch(tmp_path)).read_text("utf-8")
    assert 'href="a.mp4/report.html"' in html
    assert 'href="50%25%20%3Cb%3E%26%23%3F.mp4/report.html"' in html
    assert "cannot be &lt;i&gt;read&lt;/i&gt;" in html
    assert "<b>1</b> <span>Not analysed</span>" in html
    assert re.search(r"default-src &#39;none&#39;", html)


def test_an_index_is_replaced_by_the_next_and_nothing_else_is(tmp_path: Path) -> None:
    index.write(tmp_path, batch(tmp_path))
    index.write(tmp_path, batch(tmp_path)[:1])
    assert "1 input" in words((tmp_path / "index.html").read_text("utf-8"))
    (tmp_path / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(OutputError, match="not written by deepscan"):
        index.write(tmp_path, batch(tmp_path))


def test_a_batch_too_long_for_a_page_lists_what_matters_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "MOST_ROWS", 2)
    plain, _, failed = batch(tmp_path)
    raised = replace(plain, path=Path("z.mp4"), verdict=VerdictName.MANIPULATION_INDICATED)
    html = index.html(tmp_path, [plain, failed, raised])
    assert re.findall(r'<tr data-verdict="(\w+)"', html) == [
        "manipulation_indicated",
        plain.verdict,
    ]
    assert "2 of them are listed" in words(html)
    assert "3 inputs" in words(html)


def test_the_script_gets_its_data_as_data() -> None:
    report, kept = reports.made(seconds=Fraction(4))
    html = page.html(report_json.to_dict(report), kept)
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    data = json.loads(text)
    assert data["frames"] == list(range(32))
    assert [len(points) for points in data["lanes"].values()] == [32, 32]


def test_a_calibration_is_told_with_its_data_and_its_errors() -> None:
    report, kept = reports.made(calibration=reports.CALIBRATED, logit=lambda track, instant: -2.0)
    document = report_json.to_dict(report)
    jsonschema.validate(document, report_json.schema())
    assert document["calibration"]["probability"] == pytest.approx(0.5)
    text = words(page.html(document, kept))
    assert "uncalibrated" not in text
    assert "Probability of manipulation 50 %" in text
    assert "made-up people 39 real and 40 manipulated videos" in text
    assert "0.062" in text
