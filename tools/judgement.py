"""Measure what docs/judgement.md states of the judgement: python -m tools.judgement intervals|alarms|tracks

`intervals` needs nothing. `alarms RUN PACK` takes what `tools.evidence.plan` wrote and the archive that it
learnt from: frames of clips, each scored by a detector that had not seen its source. `tracks PACK` makes
shots of the archive's people.
"""

from __future__ import annotations

import argparse
import math
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from deepscan.faces.alignment import TEMPLATE
from deepscan.faces.tracks import Follower, look_of
from deepscan.judgement.findings import judge_frames
from deepscan.judgement.stretches import CLEAR, highest
from deepscan.judgement.timeline import Scenes, interval
from deepscan.judgement.verdict import thresholds_of
from deepscan.records import (
    Box,
    Calibration,
    CropQuality,
    Face,
    Frame,
    FrameEvidence,
    Pixels,
    Source,
    VerdictName,
)
from deepscan.training import calibrate
from tools.evidence.entries import Entry, read_entries
from tools.evidence.folds import FOLDS
from tools.evidence.recipes import DEFAULT
from tools.evidence.ship import Video, crop_of, videos

RATIO = 4.48  # by which ship brings the folds' scores to the detector's scale
QUALITY = CropQuality(200, 200, 128, 0, 1)
FACE = Face(Box(0, 0, 200, 200), 0.999, TEMPLATE)


def main() -> None:
    """Read the arguments and print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked = parser.add_subparsers(dest="what", required=True)
    asked.add_parser("intervals")
    alarms_of = asked.add_parser("alarms")
    alarms_of.add_argument("run", type=Path)
    alarms_of.add_argument("pack", type=Path)
    asked.add_parser("tracks").add_argument("pack", type=Path)
    given = parser.parse_args()
    if given.what == "intervals":
        lines = coverage()
    elif given.what == "alarms":
        lines = alarms(given.run, given.pack)
    else:
        lines = shots(given.pack)
    for line in lines:
        sys.stdout.write(line + "\n")


# --- intervals -------------------------------------------------------------------------------------


def coverage(draws: int = 8000) -> Iterator[str]:
    """How often the interval of so many logits holds the mean of the process that they come from."""
    for count in (8, 16, 32):
        rng = np.random.default_rng(1)
        for skewed in (False, True):
            for rho in (0.0, 0.3, 0.6):
                curves = process(count, rho, skewed, draws, rng)
                found = [interval(curve.tolist()) for curve in curves]
                held = np.mean([one is not None and one.low <= 0 <= one.high for one in found])
                kind = "skewed" if skewed else "normal"
                yield f"{count} frames, {kind}, neighbours correlate at {rho}: {held:.1%}"


def process(
    count: int, rho: float, skewed: bool, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Logits around 0, one curve a row; a first-order autoregression."""
    lead = 60
    shape = (draws, lead + count)
    noise = rng.exponential(size=shape) - 1 if skewed else rng.normal(size=shape)
    for i in range(1, lead + count):
        noise[:, i] += rho * noise[:, i - 1]
    return noise[:, lead:]


# --- false alarms ----------------------------------------------------------------------------------


def alarms(run: Path, pack: Path, splits: int = 20, draws: int = 60) -> Iterator[str]:
    """How often 1, 5 and 20 real faces alarm: calibrated on half of the collections, judged on the others.

    Faces of one video are drawn from clips of at least four frames. A stretch is judged on the frames that
    chose it, which is stricter than a second look, and with as few other frames as there are.
    """
    entries = read_entries(zipfile.ZipFile(pack))
    scores = np.load(run / "scores.npz")
    found = [v for fold in FOLDS for v in videos(scores, entries, fold, DEFAULT.name)]
    groups = [v.person.split("/")[0] if v.fold.startswith("M") else v.person for v in found]
    rng = np.random.default_rng(0)
    counts: dict[tuple[str, int], list[tuple[bool, bool]]] = {}
    for _ in range(splits):
        names = np.array(sorted(set(groups)))
        chosen = set(rng.permutation(names)[: len(names) // 2])
        own = [v for v, g in zip(found, groups, strict=True) if g in chosen]
        rest = [
            v for v, g in zip(found, groups, strict=True) if g not in chosen and len(v.logits) >= 4
        ]
        calibration = fitted(own)
        for label, faces in ((0, (1, 5, 20)), (1, (1,))):
            able = [v for v in rest if v.label == label]
            for k in faces:
                trials = [[v] for v in able]
                if k > 1:
                    drawn = [rng.choice(len(able), k, replace=False) for _ in range(draws)]
                    trials = [[able[i] for i in picked] for picked in drawn]
                kind = "manipulated" if label else "real"
                counts.setdefault((kind, k), []).extend(alarmed(t, calibration) for t in trials)
    for (kind, k), both in counts.items():
        mean, stretch = np.mean(both, 0)
        yield (
            f"{k} {kind} face{'s' * (k > 1)}: {mean:.1%} by a face's mean, {stretch:.1%} with stretches"
            f" ({len(both)} trials)"
        )
    high = fitted(found).high
    for half in (0, 1):
        real = [v for v in found if not v.label and len(v.logits) >= 5]
        places = {name: i for i, name in enumerate(sorted({_collection(v) for v in real}))}
        part = [v for v in real if places[_collection(v)] % 2 == half]
        times = sorted((stands_out(v, high) for v in part), reverse=True)
        yield (
            f"half {half + 1} of the real clips: {len(part)}, the highest stretches stand out by"
            f" {', '.join(f'{t:.2f}' for t in times[:3])} times the scatter"
        )

    made = list(partly(found, entries))
    above = [stands_out(video, high) >= CLEAR for video in made]
    yield f"three frames of each clip of pairs manipulated: {np.mean(above):.1%} of {len(made)} reach it"


def partly(found: Sequence[Video], entries: Sequence[Entry]) -> Iterator[Video]:
    """The real clips of pairs, each time with three successive frames from their manipulation."""
    clips = {
        entries[v.crops[0]].video: v.logits for v in found if v.fold == "pairs"
    }  # "NAME/real" and "NAME/fake", the same frames of both
    for video in (v for v in found if v.fold == "pairs" and not v.label):
        name = entries[video.crops[0]].video.rpartition("/")[0]
        swapped = clips.get(f"{name}/fake", ())
        count = min(len(video.logits), len(swapped))
        for at in range(0, count - 2, 2):
            logits = (*video.logits[:at], *swapped[at : at + 3], *video.logits[at + 3 : count])
            yield replace(video, logits=logits)


def _collection(video: Video) -> str:
    return video.person if video.fold == "pairs" else video.person.split("/")[0]


def fitted(own: Sequence[Video]) -> Calibration:
    labels = np.array([v.label for v in own])
    values = [RATIO * np.array(v.logits) for v in own]
    means = np.array([v.mean() for v in values])
    found = calibrate.fit(labels, means, [[v.fold for v in own]], [], "half", values, unseen=True)
    assert found is not None
    return found


def alarmed(picked: Sequence[Video], calibration: Calibration) -> tuple[bool, bool]:
    """Whether one of these faces is indicated by its mean; and whether by that or a stretch."""
    base = thresholds_of(calibration)
    by_mean = any(
        judge_frames("it", frames(v), SOURCE, base, len(picked)).verdict.name
        is VerdictName.MANIPULATION_INDICATED
        for v in picked
    )
    needed = CLEAR + math.log(len(picked))
    stretch = any(stands_out(v, calibration.high) >= needed for v in picked)
    return by_mean, by_mean or stretch


def stands_out(video: Video, high: float) -> float:
    """By how many times the scatter of single frames the highest stretch stands out; 0: there is none."""
    own = frames(video)
    found = highest(own, range(len(own)), high)
    if found is None or found.frames > len(own) - 2:
        return 0.0
    inside, rest = (
        np.array([f.logit for f in own if (found.start <= f.time <= found.end) is within])
        for within in (True, False)
    )
    # Of few frames the pooled scatter is the better one.
    squares = ((inside - inside.mean()) ** 2).sum() + ((rest - rest.mean()) ** 2).sum()
    return float((inside.mean() - rest.mean()) / math.sqrt(squares / (len(own) - 2)))


def frames(video: Video) -> list[FrameEvidence]:
    return [
        FrameEvidence(1, i, Fraction(i), FACE, QUALITY, RATIO * logit)
        for i, logit in enumerate(video.logits)
    ]


SOURCE = Source(
    Path("clip.mp4"), "video", "", 10**9, "mp4", "h264", "yuv420p", 640, 480, 0, 250, Fraction(0),
    Fraction(10), Fraction(25), Fraction(25), False, True, None,
)  # fmt: skip


# --- tracks ----------------------------------------------------------------------------------------

PATTERNS = (
    ("ABAB, three instants a shot", "AAABBBAAABBB"),
    ("ABABABABAB, one instant a shot", "ABABABABAB"),
    ("AABB, six instants a shot", "AAAAAABBBBBB"),
    ("ABCABC, two instants a shot", "AABBCCAABBCC"),
    ("a cutaway: A, nobody, A", "AAA...AAA"),
    ("A alone", "AAAAAA"),
)


def shots(pack: Path, draws: int = 100) -> Iterator[str]:
    """Of made sequences of shots: tracks that mix persons, and persons in several tracks."""
    archive = zipfile.ZipFile(pack)
    people: dict[str, list[Pixels]] = {}
    for entry in read_entries(archive):
        if entry.label == 0 and "/" in entry.source:
            people.setdefault(entry.video, []).append(crop_of(archive, entry.name))
    names = sorted(name for name, crops in people.items() if len(crops) == 6)
    for title, pattern in PATTERNS:
        rng = np.random.default_rng(1)
        mixed = fragments = persons = 0
        for _ in range(draws):
            letters = sorted(set(pattern) - {"."})
            cast = dict(zip(letters, rng.choice(names, len(letters), replace=False), strict=True))
            who, ids = followed(pattern, {letter: people[name] for letter, name in cast.items()})
            mixed += sum(
                len({w for w, i in zip(who, ids, strict=True) if i == t}) > 1 for t in set(ids)
            )
            fragments += sum(
                len({i for w, i in zip(who, ids, strict=True) if w == p}) - 1 for p in set(who)
            )
            persons += len(letters)
        yield f"{title}: {mixed} tracks mix persons, {fragments} further tracks of {persons} persons"


def followed(pattern: str, cast: dict[str, list[Pixels]]) -> tuple[list[str], list[int]]:
    """Who is seen at each instant, half a second apart, and the track given; "." is a picture of nobody."""
    follower, scenes = Follower(), Scenes()
    who, ids, used = [], [], dict.fromkeys(cast, 0)
    nobody = (
        np.random.default_rng(5).integers(0, 255, (9, 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    )
    for i, letter in enumerate(pattern):
        pixels = nobody
        if letter != ".":
            pixels = cast[letter][used[letter] % 6]
            used[letter] += 1
        seen = [] if letter == "." else [FACE]
        cut = scenes.add(Frame(i, Fraction(i, 2), pixels))
        ids += follower.follow(seen, [look_of(pixels)] * len(seen), Fraction(i, 2), cut)
        who += [letter] * len(seen)
    joined = follower.same()
    return who, [joined.get(i, i) for i in ids]


if __name__ == "__main__":
    main()
