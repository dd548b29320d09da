"""Ways to change a folder of results, and what finds each: a check, or the signer's public key alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders import reports
from deepscan.report import json as report_json
from deepscan.report import page, signing
from deepscan.report.provenance import NAME, SIGNATURE, Manifest, files, read_manifest
from deepscan.report.reading import from_dict
from deepscan.verification.verify import Match, sha256, verify

Change = Callable[[Path], object]


def manifest_again(folder: Path) -> None:
    """Make a manifest that is right about the folder as it is now."""
    before = read_manifest(folder / NAME)
    outputs = {n: (sha256(folder / n), (folder / n).stat().st_size) for n in files(folder)}
    again = Manifest(before.tool, before.input_sha256, before.input_bytes, outputs)
    (folder / NAME).write_text(again.text(), "utf-8")


def stated(change: Callable[[dict[str, Any]], object], all_that_follows: bool = False) -> Change:
    """Change report.json and make a new manifest; with `all_that_follows` conclude and draw the page anew."""

    def done(folder: Path) -> None:
        path = folder / "report.json"
        document = json.loads(path.read_text("utf-8"))
        change(document)
        if all_that_follows:
            document = report_json.to_dict(from_dict(document))
            shown = (folder / page.NAME).read_text("utf-8")
            (folder / page.NAME).write_text(page.html(document), "utf-8")
            assert shown != (folder / page.NAME).read_text("utf-8")
        path.write_text(json.dumps(document), "utf-8")
        manifest_again(folder)

    return done


def put(place: str, value: object, all_that_follows: bool = False) -> Change:
    """Change one value of report.json, such as "verdict.name"."""

    def change(document: Any) -> None:
        *outer, last = (int(n) if n.isdigit() else n for n in place.split("."))
        for name in outer:
            document = document[name]
        document[last] = value

    return stated(change, all_that_follows)


def lower(document: dict[str, Any]) -> None:
    """Lower all logits by 9, and leave what was concluded of them."""
    for track in document["tracks"]:
        for frame in track["frames"]:
            frame["logit"] -= 9


def no_tool(document: dict[str, Any]) -> None:
    del document["tool"]


def edited(name: str, before: bytes, after: bytes, again: bool = True) -> Change:
    """Change bytes of a file, and make a new manifest if `again`."""

    def done(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        assert before in whole
        (folder / name).write_bytes(whole.replace(before, after, 1))
        if again:
            manifest_again(folder)

    return done


def pixels(folder: Path) -> None:
    """Another picture on the page, as large as the one it replaces."""
    shown = (folder / page.NAME).read_bytes()
    at = shown.index(b"data:image/jpeg;base64,") + 200
    other = b"A" if shown[at : at + 1] != b"A" else b"B"
    (folder / page.NAME).write_bytes(shown[:at] + other + shown[at + 1 :])
    manifest_again(folder)


def added(folder: Path) -> None:
    (folder / "more.txt").write_text("more")


def added_and_listed(folder: Path) -> None:
    added(folder)
    manifest_again(folder)


def link_for_a_file(folder: Path) -> None:
    (folder / SHEET).rename(folder.with_name("elsewhere.png"))
    (folder / SHEET).symlink_to(folder.with_name("elsewhere.png"))


def pipe_for_the_page(folder: Path) -> None:
    """Whoever opened it would wait for ever."""
    (folder / page.NAME).unlink()
    os.mkfifo(folder / page.NAME)


def link_for_the_manifest(folder: Path) -> None:
    (folder / NAME).rename(folder.with_name("elsewhere.json"))
    (folder / NAME).symlink_to(folder.with_name("elsewhere.json"))


def signed_by_another(folder: Path) -> None:
    put("input.tags", {"by": "me"}, True)(folder)
    signing.make_keys(other := folder.with_name("other"))
    signing.sign(folder, signing.private_key(other))


def unsigned(folder: Path) -> None:
    put("input.tags", {"by": "me"}, True)(folder)
    (folder / SIGNATURE).unlink()


SHEET = "heatmaps/contact_sheet.png"
BOTH = "report.json and manifest.json"
FACTS = "facts about the detector"
KEY = "signature"


@dataclass(frozen=True)
class Way:
    """A change of a folder, and the check that finds it; KEY: none does without the signer's key."""

    change: Change
    finds: str


WAYS = {
    # of the folder
    "a byte of a picture": Way(edited(SHEET, b"IDAT", b"IDAU", again=False), SHEET),
    "a file removed": Way(lambda folder: (folder / SHEET).unlink(), SHEET),
    "a file added": Way(added, "more.txt"),
    "a file added, and listed": Way(added_and_listed, BOTH),
    "a folder added": Way(lambda folder: (folder / "empty").mkdir(), "empty/"),
    "a link for a file": Way(link_for_a_file, SHEET),
    "a pipe for the page": Way(pipe_for_the_page, page.NAME),
    "a link for the manifest": Way(link_for_the_manifest, NAME),
    "a manifest edited": Way(edited(NAME, b'"bytes"', b'"bytez"', again=False), NAME),
    # of the report, with a new manifest
    "another verdict": Way(put("verdict.name", "no_manipulation_indicated"), "conclusions"),
    "another sentence": Way(put("verdict.sentence", "All is well."), "conclusions"),
    "another score": Way(put("scores.video", -99.0), "conclusions"),
    "other logits": Way(stated(lower), "conclusions"),
    "other thresholds": Way(put("calibration.high", 99.0), "conclusions"),
    "no warnings": Way(put("warnings", ["none"]), "conclusions"),
    "logits that are words": Way(put("tracks.0.frames.0.logit", "high"), "conclusions"),
    "tracks that are none": Way(put("tracks", None), "conclusions"),
    "another calibration": Way(put("calibration.measured.high", 99.0, True), FACTS),
    "another training": Way(put("tool.detector.training", {"data": "more"}), FACTS),
    "another base": Way(put("tool.detector.base_sha256", "0" * 64), FACTS),
    "other weights": Way(put("tool.detector.sha256", "0" * 64), "detector"),
    "another input": Way(put("input.sha256", "0" * 64), BOTH),
    "no tool": Way(stated(no_tool), BOTH),
    "a path that is a number": Way(put("input.path", 1), BOTH),
    "a hash that is a number": Way(put("input.sha256_after", 1), BOTH),
    "no calibration": Way(put("calibration", []), BOTH),
    "an opinion of none": Way(put("second_opinion", {}), BOTH),
    "a setting unknown": Way(put("run.settings.more", {}), BOTH),
    "outputs that are not there": Way(put("outputs", ["more.png"]), BOTH),
    "a page that says other things": Way(edited(page.NAME, b"</h1>", b"!</h1>"), "page"),
    "an older version": Way(put("tool.versions.deepscan-forensics", "0.0.1"), "conclusions"),
    # of all that is concluded and drawn, or of what is neither
    "logits and all that follows": Way(stated(lower, True), KEY),
    "tags and the page": Way(put("input.tags", {"by": "me"}, True), KEY),
    "a setting and the page": Way(put("run.settings.faces.min_size", 41, True), KEY),
    "a picture of heatmaps": Way(edited(SHEET, b"IDAT", b"IDAU"), KEY),
    "a picture on the page": Way(pixels, KEY),
    "a signature of another key": Way(signed_by_another, KEY),
    "no signature": Way(unsigned, KEY),
}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results, signed, with the public key beside it."""
    place = tmp_path_factory.mktemp("signed")
    (clip := place / "clip.mp4").write_bytes(b"evidence")
    signing.make_keys(key := place / "lab.key")
    signing.sign(reports.written(place / "results", clip), signing.private_key(key))
    return place


def test_unchanged_it_is_the_same(signed: Path) -> None:
    found = verify(signed / "results", key=signed / "lab.key.pub")
    assert [f for f in found.findings if f.state is not Match.SAME] == []


@pytest.mark.parametrize("name", WAYS)
def test_what_finds_a_change(signed: Path, tmp_path: Path, name: str) -> None:
    """The check that is named; and whoever has the signer's public key learns it in any case."""
    folder = Path(shutil.copytree(signed / "results", tmp_path / "results"))
    WAYS[name].change(folder)
    found = {f.what: f.state for f in verify(folder).findings}
    finds = WAYS[name].finds
    if finds == KEY:
        assert Match.DIFFERS not in found.values()
    else:
        older = name == "an older version"  # to be checked by that version
        assert found[finds] is (Match.NOT_CHECKED if older else Match.DIFFERS)
    with_key = verify(folder, key=signed / "lab.key.pub")
    assert with_key.state is Match.DIFFERS
