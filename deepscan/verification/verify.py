"""Checks a folder of results: are the files as deepscan wrote them, and does what they say follow?

It compares hashes first: every output with manifest.json, then the input, the detector and its base with the
report. Then it concludes again: from the logits in report.json the scores and the verdict, from report.json
the page, and from the detector's file what the report says of it. So a report that was edited and given a new
manifest is found as far as its numbers say otherwise; a signature finds every other change. With `rerun` it
repeats the scan with the report's own settings and compares each frame's logit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from deepscan.config import Heatmaps, Scoring, Settings
from deepscan.errors import (
    DataError,
    DeepscanError,
    InputError,
    SettingsError,
    WeightsMismatch,
    WeightsMissing,
)
from deepscan.files import check_readable, parse_json, sha256
from deepscan.flow import Progress
from deepscan.model import weights
from deepscan.model.header import read_header
from deepscan.model.networks import caution, each, threads
from deepscan.pipeline import scan
from deepscan.plain import read_value
from deepscan.records import Report
from deepscan.report import json as report_json
from deepscan.report import page, provenance, reading, signing

# Logits of a repeated run may differ by this much, depending on the precision of both runs. One machine
# with the same number of threads gives the same bits; another batch size changed logits by 8e-6 in either
# precision. With another number of threads, or on another processor, sums are ordered differently: the face
# finder's points move slightly, the crop with them, and logits (of 63 crops, between -20 and +11) changed
# by up to 0.009 in float32 and 0.23 in bfloat16, whose mantissa has 8 bits. Between the two precisions the
# difference was 0.27.
TOLERANCE = {"float32": 0.05, "bfloat16": 0.5}

MOST_THREADS = 1024  # of a rerun, whatever the report says

NOTE = (
    "Anyone who can change the folder can change manifest.json too: note its SHA-256 in the case"
    " file, or sign it."
)


class Match(StrEnum):
    """The result of one check."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: of a file (by its name), or of "signature", "conclusions", "page", "input", "rerun" ..."""

    what: str
    state: Match
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """All findings about one folder."""

    folder: Path
    manifest_sha256: str
    findings: tuple[Finding, ...]

    @property
    def state(self) -> Match:
        """DIFFERS if anything differs, else NOT_CHECKED if anything was not checked, else SAME."""
        found = {finding.state for finding in self.findings}
        return next((s for s in (Match.DIFFERS, Match.NOT_CHECKED) if s in found), Match.SAME)


def verify(
    folder: Path,
    given: Path | None = None,
    rerun: bool = False,
    progress: Progress | None = None,
    key: Path | None = None,
) -> Verification:
    """Check a folder of results.

    Args:
        folder: the results that `scan` wrote.
        given: the input file; None: where the report says it was.
        rerun: also repeat the scan; nothing is written.
        progress: of the rerun, as for `scan`.
        key: the public key whose owner must have signed manifest.json.

    Raises:
        InputError: there is no readable manifest.json, so nothing can be checked.
        SettingsError: `key` is not a public key.
    """
    path = folder / provenance.NAME
    if path.is_symlink():
        changed = Finding(provenance.NAME, Match.DIFFERS, "is a link; deepscan writes a file")
        return Verification(folder, "", (changed,))
    try:
        manifest = provenance.read_manifest(path)
    except DataError as error:
        changed = Finding(provenance.NAME, Match.DIFFERS, str(error))
        return Verification(folder, sha256(path), (changed,))
    findings = [_signature(folder, key)] if key is not None or signing.signed(folder) else []
    findings += _outputs(folder, manifest)
    report, finding = _report(folder, manifest, findings)
    findings.append(finding)
    if report is None:
        why = "report.json does not say which, or was changed"
        if given is not None:
            findings.append(_input(given, manifest))
        else:
            findings.append(Finding("input", Match.NOT_CHECKED, f"{why}; name it with --input"))
        unread = ("conclusions", "page", "detector", "base")
        findings += [Finding(w, Match.NOT_CHECKED, why) for w in unread]
    else:
        whole = {f.what for f in findings if f.state is Match.SAME}
        findings += _concluded(folder, report, page.NAME in whole)
        given = given or Path(report["input"]["path"])
        findings.append(_input(given, manifest))
        findings += _weights(report)
        if (second := report.get("second_opinion")) is not None:
            findings += [replace(f, what=f"second {f.what}") for f in _weights(second)]
    if rerun:
        findings.append(_rerun(given, report, findings, progress))
    return Verification(folder, sha256(path), tuple(findings))


def _outputs(folder: Path, manifest: provenance.Manifest) -> Iterator[Finding]:
    """Check every file that is in the manifest or in the folder."""
    there = set(provenance.files(folder))
    for name, (digest, size) in sorted(manifest.outputs.items()):
        path = folder / name
        if name not in there:
            yield Finding(name, Match.DIFFERS, "missing")
        elif path.is_symlink() or not path.is_file():
            yield Finding(name, Match.DIFFERS, "is no longer a regular file")
        elif (found := path.stat().st_size) != size:
            yield Finding(name, Match.DIFFERS, f"has {found} bytes, not {size}")
        elif (now := sha256(path)) != digest:
            yield Finding(name, Match.DIFFERS, f"SHA-256 is {now}, not {digest}")
        else:
            yield Finding(name, Match.SAME, digest)
    for name in sorted(there - manifest.outputs.keys()):
        yield Finding(name, Match.DIFFERS, "was added; manifest.json does not list it")
    known = {parent for name in manifest.outputs for parent in PurePosixPath(name).parents}
    for path in sorted(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink()):
        if (inner := PurePosixPath(path.relative_to(folder).as_posix())) not in known:
            yield Finding(
                f"{inner}/", Match.DIFFERS, "was added; no file in this folder is from deepscan"
            )


def _report(
    folder: Path, manifest: provenance.Manifest, outputs: list[Finding]
) -> tuple[dict[str, Any] | None, Finding]:
    """Read report.json if it is unchanged, and check that it agrees with the manifest."""
    what = "report.json and manifest.json"
    if (
        Finding("report.json", Match.SAME, manifest.outputs.get("report.json", ("", 0))[0])
        not in outputs
    ):
        return None, Finding(
            what, Match.NOT_CHECKED, "report.json has changed since it was written"
        )
    try:
        report = parse_json((folder / "report.json").read_bytes())
        source, names = report["input"], {*report["outputs"], "report.json"}
        stated = [read_value(str, source[n], n) for n in ("sha256", "sha256_after", "path")]
        hashes = {*stated[:2], manifest.input_sha256}
        second = report.get("second_opinion")
        for one in (report,) if second is None else (report, second):
            report_settings(one)
            for name in ("sha256", "base_sha256"):
                read_value(str, one["tool"]["detector"][name], name)
            _ = one["calibration"]["measured"]
    except (ValueError, KeyError, TypeError, AttributeError, SettingsError) as error:
        return None, Finding(
            what, Match.DIFFERS, f"report.json was not written by deepscan: {error}"
        )
    if len(hashes) > 1:
        return report, Finding(
            what, Match.DIFFERS, f"name different inputs: {', '.join(sorted(hashes))}"
        )
    if names != set(manifest.outputs):
        return report, Finding(what, Match.DIFFERS, "list different outputs")
    return report, Finding(what, Match.SAME, "name the same input and outputs")


def _signature(folder: Path, key: Path | None) -> Finding:
    if key is None:
        return Finding("signature", Match.NOT_CHECKED, "there is one; check it with --key FILE")
    try:
        return Finding("signature", Match.SAME, signing.check(folder, key))
    except DataError as error:
        return Finding("signature", Match.DIFFERS, str(error))


def _concluded(folder: Path, report: dict[str, Any], page_is_whole: bool) -> Iterator[Finding]:
    """Judge again from report.json's logits, and make the page again from report.json.

    A page that is not the file it was is not opened: a pipe in its place would never end.
    """
    here = metadata.version(provenance.DISTRIBUTION)
    wrote = report["tool"].get("versions", {}).get(provenance.DISTRIBUTION)
    if wrote != here:
        why = (
            f"deepscan {wrote} wrote it, this is {here}; use that version to check the conclusions"
        )
        yield from (Finding(w, Match.NOT_CHECKED, why) for w in ("conclusions", "page"))
        return
    if (form := report.get("schema")) != report_json.SCHEMA:
        why = f"{form}: an earlier form with other rules; this version writes {report_json.SCHEMA}"
        yield from (Finding(w, Match.NOT_CHECKED, why) for w in ("conclusions", "page"))
        return
    try:
        again = report_json.to_dict(reading.from_dict(report))
        differ = reading.differences(report, again)
        if differ:
            why = f"do not follow from the logits: {_listed(differ)}"
            yield Finding("conclusions", Match.DIFFERS, why)
            yield Finding("page", Match.NOT_CHECKED, "report.json contradicts itself")
            return
        yield Finding("conclusions", Match.SAME, "scores and verdict follow from the logits")
        if not page_is_whole:
            yield Finding(
                "page", Match.NOT_CHECKED, f"{page.NAME} has changed since it was written"
            )
            return
        text = (folder / page.NAME).read_bytes().decode("utf-8")
        if page.same(report, text):
            why = "matches report.json; its pictures were not drawn again"
            yield Finding("page", Match.SAME, why)
        else:
            why = f"{page.NAME} differs from what report.json says"
            yield Finding("page", Match.DIFFERS, why)
    except (DataError, OSError, UnicodeDecodeError) as error:
        yield Finding("conclusions", Match.DIFFERS, f"cannot be drawn: {error}")


def _listed(places: list[str]) -> str:
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return ", ".join(places[:4]) + more


def _card(report: dict[str, Any], path: Path) -> Finding:
    """Compare what the report says of its detector with what the detector's file says."""
    header = read_header(path)
    stated, calibration = report["tool"]["detector"], header.calibration
    differ = reading.differences(
        {
            **{n: stated.get(n) for n in ("name", "training", "licence", "base", "base_sha256")},
            "calibration": report["calibration"]["measured"],
        },
        {
            "name": header.name,
            "training": parse_json(json.dumps(header.training)),
            "licence": header.licence,
            "base": header.base["name"],
            "base_sha256": header.base["sha256"],
            "calibration": None if calibration is None else asdict(calibration),
        },
    )
    what = "facts about the detector"
    if differ:
        return Finding(what, Match.DIFFERS, f"are not those in its file: {_listed(differ)}")
    return Finding(what, Match.SAME, "are those in its file: calibration, training, base")


def report_settings(report: dict[str, Any]) -> Settings:
    """The settings that a report states; raises SettingsError, KeyError or TypeError for others."""
    return Settings.from_dict(report["run"]["settings"])


def _input(path: Path, manifest: provenance.Manifest) -> Finding:
    digest = manifest.input_sha256
    try:
        check_readable(path)
        # First, since a report may name any file of this machine, however large.
        if (size := path.stat().st_size) != manifest.input_bytes:
            why = f"{path}: has {size} bytes, not {manifest.input_bytes}"
            return Finding("input", Match.DIFFERS, why)
        found = sha256(path)
    except InputError as error:
        return Finding("input", Match.NOT_CHECKED, f"{error}; name its new place with --input FILE")
    if found != digest:
        return Finding("input", Match.DIFFERS, f"{path}: SHA-256 is {found}, not {digest}")
    return Finding("input", Match.SAME, digest)


def _weights(report: dict[str, Any]) -> Iterator[Finding]:
    """Check the detector and the base that the same command would use here."""
    stated = report["tool"]["detector"]
    try:
        path = weights.detector_file(each(report_settings(report).scoring)[0].weights)
        yield (finding := _compared("detector", path, stated["sha256"]))
        if finding.state is Match.SAME:
            yield _card(report, path)
    except (WeightsMissing, WeightsMismatch) as error:
        yield _weightless("detector", error)
    try:
        entry = weights.base_by_hash(stated["base_sha256"])
        yield _compared("base", weights.base_file(entry, offline=True), stated["base_sha256"])
    except (WeightsMissing, WeightsMismatch) as error:
        yield _weightless("base", error)


def _compared(what: str, path: Path, digest: str) -> Finding:
    if (found := sha256(path)) != digest:
        return Finding(what, Match.DIFFERS, f"{path}: SHA-256 is {found}, not {digest}")
    return Finding(what, Match.SAME, digest)


def _weightless(what: str, error: WeightsMissing | WeightsMismatch) -> Finding:
    """Missing weights leave the check open; weights with a wrong hash fail it."""
    state = Match.DIFFERS if isinstance(error, WeightsMismatch) else Match.NOT_CHECKED
    return Finding(what, state, str(error))


# --- rerun -----------------------------------------------------------------------------------------


def _rerun(
    path: Path | None,
    report: dict[str, Any] | None,
    findings: list[Finding],
    progress: Progress | None,
) -> Finding:
    """Repeat the scan, after input and weights were found to be the report's."""
    needed = {"input", "detector", "base"}
    if report is not None and report.get("second_opinion"):
        needed |= {"second detector", "second base"}
    ready = {f.what for f in findings if f.state is Match.SAME} >= needed
    if path is None or report is None or not ready:
        why = "needs the unchanged report, input and weights"
        return Finding("rerun", Match.NOT_CHECKED, why)
    settings, tool = report_settings(report), report["tool"]
    try:
        # In the report's precision, which changes logits most, but on whatever device is here.
        precision = read_value(str, tool["precision"], "precision")
        scoring = replace(settings.scoring, precision=precision, device="auto", offline=True)
        with threads(max(1, min(read_value(int, tool["threads"], "threads"), MOST_THREADS))):
            again = scan(
                path, replace(settings, scoring=scoring, heatmaps=Heatmaps()), progress=progress
            )
        second = report.get("second_opinion")
        found = [compare(report, again)]
        if second is not None and again.second is not None:
            found.append(compare(second, again.second))
        return next((one for one in found if one.state is not Match.SAME), found[0])
    except DeepscanError as error:
        return Finding("rerun", Match.DIFFERS, f"fails now: {error}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Finding(
            "rerun", Match.DIFFERS, f"report.json was not written by deepscan: {error!r:.200}"
        )


def compare(report: dict[str, Any], again: Report) -> Finding:
    """Compare each frame's logit and the verdict in report.json with a repeated run."""
    before = {
        (track["id"], frame["index"]): frame["logit"]
        for track in report["tracks"]
        for frame in track["frames"]
    }
    after = {(f.track, f.frame_index): f.logit for f in again.evidence.crops()}
    tolerance = TOLERANCE[report["tool"]["precision"]]
    origin = again.provenance
    where = f"on {origin.device} in {origin.precision}"
    if caution(Scoring(device=origin.device, precision=origin.precision)):
        where += ", emulated"
    if before.keys() != after.keys():
        only = len(before.keys() ^ after.keys())
        return Finding("rerun", Match.DIFFERS, f"{only} faces were found in only one run, {where}")
    largest, (track, index) = max(
        ((abs(before[key] - after[key]), key) for key in before), default=(0.0, (0, 0))
    )
    if largest > tolerance:
        return Finding(
            "rerun",
            Match.DIFFERS,
            f"logits differ by up to {largest:.4f} (face {track}, frame {index}), more than the tolerance"
            f" of {tolerance}, {where}",
        )
    if again.verdict.name != report["verdict"]["name"]:
        return Finding(
            "rerun",
            Match.DIFFERS,
            f"the verdict is {again.verdict.name}, not {report['verdict']['name']}, {where}",
        )
    return Finding(
        "rerun",
        Match.SAME,
        f"{len(before)} logits agree within {largest:.4f} (tolerance {tolerance}), the verdict is the same,"
        f" {where}",
    )
