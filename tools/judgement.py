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
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from deepscan.faces.alignment import TEMPLATE
from deepscan.faces.tracks import Follower, look_of
from deepscan.judgement.findings import judge_frames
from deepscan.judgement.stretches import CLEAR, contrast, highest
from deepscan.judgement.timeline import Scenes, interval
from deepscan.judgement.verdict import thresholds_of
from deepscan.records import (
    FEWEST_FRAMES,
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
    rng, lot = np.random.default_rng(0), np.random.default_rng(1)
    counts: dict[tuple[str, int], list[tuple[bool, bool]]] = {}
    few: dict[int, list[bool]] = {1: [], 2: [], 4: []}
    for _ in range(splits):
        names = np.array(sorted(set(groups)))
        chosen = set(rng.permutation(names)[: len(names) // 2])
        own = [v for v, g in zip(found, groups, strict=True) if g in chosen]
        others = [v for v, g in zip(found, groups, strict=True) if g not in chosen]
        rest = [v for v in others if len(v.logits) >= 4]
        calibration = fitted(own)
        for count, reached in few.items():
            for video in (v for v in others if not v.label and len(v.logits) >= count):
                logits = tuple(lot.choice(video.logits, count, replace=False))
                seen = frames(replace(video, logits=logits))
                judged = judge_frames("it", seen, SOURCE, thresholds_of(calibration))
                reached.append(judged.score >= judged.thresholds.high)
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
    for count, reached in few.items():
        share = f"{np.mean(reached):.1%} of {len(reached)}"
        yield f"{count} of a real clip's frames reach the threshold in {share}"
    whole = fitted(found)
    high = whole.high
    yield from single_frames(found, entries, whole)
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


def single_frames(
    found: Sequence[Video], entries: Sequence[Entry], calibration: Calibration
) -> Iterator[str]:
    """How often the highest tenth of frames reaches the threshold, and how often it also stands out."""
    real = [v for v in found if not v.label and len(v.logits) > FEWEST_FRAMES]
    made = [v for v in partly(found, entries, 1) if len(v.logits) > FEWEST_FRAMES]
    for what, clips in (("real clips", real), ("clips with one frame manipulated", made)):
        high = apart = 0
        for video in clips:
            ranked = sorted(RATIO * np.array(video.logits), reverse=True)
            count = math.ceil(len(ranked) / 10)
            if np.mean(ranked) < calibration.high <= np.mean(ranked[:count]):
                far = contrast(ranked[:count], ranked[count:], calibration.fall, 1)
                high += 1
                apart += far is not None and far.times >= far.needed
        yield (
            f"highest tenth of {len(clips)} {what}: {high / len(clips):.1%} reach the threshold where the"
            f" mean does not, {apart / len(clips):.1%} also stand out"
        )


def partly(found: Sequence[Video], entries: Sequence[Entry], swaps: int = 3) -> Iterator[Video]:
    """The real clips of pairs, each time with so many successive frames from their manipulation."""
    clips = {
        entries[v.crops[0]].video: v.logits for v in found if v.fold == "pairs"
    }  # "NAME/real" and "NAME/fake", the same frames of both
    for video in (v for v in found if v.fold == "pairs" and not v.label):
        name = entries[video.crops[0]].video.rpartition("/")[0]
        swapped = clips.get(f"{name}/fake", ())
        count = min(len(video.logits), len(swapped))
        for at in range(0, count - swaps + 1, 2):
            end = at + swaps
            logits = (*video.logits[:at], *swapped[at:end], *video.logits[end:count])
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

# What is seen at each instant, half a second apart: people in their places from left to right, a small letter
# for one in a mirror, two with ~ between them while one shot dissolves into the next, a dot for nobody.
PATTERNS = (
    ("ABAB, three instants a shot", "A A A B B B A A A B B B"),
    ("ABABABABAB, one instant a shot", "A B A B A B A B A B"),
    ("AABB, six instants a shot", "A A A A A A B B B B B B"),
    ("ABCABC, two instants a shot", "A A B B C C A A B B C C"),
    ("a dissolve from A to B", "A A A A~B B B B"),
    ("a cutaway to nobody: A, nobody, A", "A A A . . . A A A"),
    ("a cutaway to B: A, B, A", "A A A B B A A A"),
    ("two look-alikes in turn", "A A A B B B A A A B B B"),
    ("A beside a mirror", "Aa Aa Aa Aa Aa Aa"),
    ("a crowd of six, then from behind", "ABCDEF " * 6 + "FEDCBA " * 6),
    ("A alone", "A A A A A A"),
)
LOOK_ALIKES = (
    "two look-alikes in turn"  # of 1 in 100 pairs of people, whose looks are the most alike
)
WIDTH = 256  # pixels of a crop, and of a place


def shots(pack: Path, draws: int = 100) -> Iterator[str]:
    """Of made sequences of shots: tracks that mix persons, switches of tracks, and persons in several."""
    archive = zipfile.ZipFile(pack)
    people: dict[str, list[Pixels]] = {}
    for entry in read_entries(archive):
        if entry.label == 0 and "/" in entry.source:
            people.setdefault(entry.video, []).append(crop_of(archive, entry.name))
    names = sorted(name for name, crops in people.items() if len(crops) == 6)
    looks = {name: np.stack([look_of(crop) for crop in people[name]]) for name in names}
    pairs = sorted(
        combinations(names, 2), key=lambda p: -float((looks[p[0]] @ looks[p[1]].T).max())
    )
    pairs = pairs[: len(pairs) // 100]
    for title, pattern in PATTERNS:
        rng = np.random.default_rng(1)
        mixed = switches = fragments = persons = found = 0
        for _ in range(draws):
            letters = sorted({letter for letter in pattern.upper() if letter.isalpha()})
            chosen = tuple(rng.choice(names, len(letters), replace=False).tolist())
            if title == LOOK_ALIKES:
                chosen = pairs[rng.integers(len(pairs))]
            cast = {one: people[name] for one, name in zip(letters, chosen, strict=True)}
            who, ids = followed(pattern.split(), cast)
            own = [(w.upper(), i) for w, i in zip(who, ids, strict=True) if w != "~"]
            mixed += sum(
                len({w for w, i in own if i == track}) > 1 for track in {i for _, i in own}
            )
            fragments += len(set(own)) - len(letters)
            for one in set(who) - {"~"}:
                line = [i for w, i in zip(who, ids, strict=True) if w == one]
                switches += sum(a != b for a, b in pairwise(line))
            persons += len(letters)
            found += len({i for _, i in own})
        yield (
            f"{title}: {mixed} tracks mix persons, {switches} switches, {fragments} further tracks,"
            f" {found} tracks of {persons} persons"
        )


def followed(instants: Sequence[str], cast: dict[str, list[Pixels]]) -> tuple[list[str], list[int]]:
    """Who is seen, instant by instant from left to right, and the track given."""
    follower, scenes = Follower(), Scenes()
    who, ids, used = [], [], dict.fromkeys(cast, 0)
    nobody = np.random.default_rng(5).integers(0, 255, (16, 16, 3), np.uint8)
    nobody = nobody.repeat(WIDTH // 16, 0).repeat(WIDTH // 16, 1)
    for i, instant in enumerate(instants):
        turn = {letter: cast[letter][used[letter] % 6] for letter in cast}
        if "~" in instant:
            one, other = (turn[letter].astype(int) for letter in instant.split("~"))
            seen, crops = ["~"], [((one + other) // 2).astype(np.uint8)]
        else:
            seen = [letter for letter in instant if letter != "."]
            crops = [turn[x] if x.isupper() else turn[x.upper()][:, ::-1] for x in seen]
        for letter in set(instant.upper()) & set(cast):
            used[letter] += 1
        boxes = [
            replace(FACE, box=Box(WIDTH * x, 0, WIDTH * x + 200, 200)) for x in range(len(seen))
        ]
        places = [
            replace(face, landmarks=TEMPLATE + np.array([WIDTH * x, 0]))
            for x, face in enumerate(boxes)
        ]
        time = Fraction(i, 2)
        cut = scenes.add(Frame(i, time, np.concatenate(crops or [nobody], 1)))
        ids += follower.follow(places, [look_of(crop) for crop in crops], time, cut)
        who += seen
    joined = follower.same()
    return who, [joined.get(i, i) for i in ids]


if __name__ == "__main__":
    main()
