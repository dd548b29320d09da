"""Prepares data sets: cuts them into aligned crops in DeepfakeBench's form, on all cores, resumable.

A video's crops are written aside and renamed into place, then a line in OUT/.prepare/<set>.jsonl marks it as
finished; the JSONs are written from these lines at the end. So if a run is interrupted, the next one does
the rest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from deepscan.batches.pool import Death, Pool, cores
from deepscan.config import Faces
from deepscan.data.cutting import Cuts, cut_archive, cut_pair, cut_video, distorted
from deepscan.data.deepfakebench import sibling_folder, write_listing
from deepscan.data.distortions import Distortion
from deepscan.data.journal import Journal, PreparedVideo
from deepscan.data.layouts import ARCHIVE, Layout, VideoRow, read_layout
from deepscan.data.listings import SPLITS
from deepscan.errors import InputError, OutputError, SettingsError, UnreadableInput
from deepscan.faces.finder import FaceFinder
from deepscan.files import alone
from deepscan.flow import Progress
from deepscan.model.networks import limit_threads, threads

LEVELS = ("raw", "c23", "c40")

Task = tuple[VideoRow, ...]  # cut together: a video, or both halves of a pair


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """The settings that decide the crops, and the number of processes (`jobs`).

    `frames` are cut from each video; `compression` is FaceForensics++'s level.
    """

    frames: int = 32
    compression: str = "c23"
    jobs: int = field(default_factory=cores)
    distortion: Distortion | None = None  # of whole frames, before faces are searched

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise SettingsError(f"frames: {self.frames} is not a positive count")
        if self.compression not in LEVELS:
            raise SettingsError(
                f"compression: {self.compression!r} is not one of {', '.join(LEVELS)}"
            )
        if self.jobs < 1:
            raise SettingsError(f"jobs: {self.jobs} is not a positive count")
        if self.distortion and self.distortion.on_crops:
            raise SettingsError(f"distortion {self.distortion}: applies to crops, not to frames")


@dataclass(frozen=True, slots=True)
class Count:
    """Counts for one label and split; `videos` is the sum of ready, faceless and failed."""

    name: str  # DeepfakeBench's of the label
    split: str
    videos: int
    ready: int
    faceless: int
    failed: int
    crops: int

    def __post_init__(self) -> None:
        if self.videos != self.ready + self.faceless + self.failed:
            raise ValueError(f"counts do not add up: {self}")


@dataclass(frozen=True, slots=True)
class Summary:
    """What is prepared after a run, by this run or earlier ones."""

    out: Path
    listings: tuple[Path, ...]  # the JSONs written
    counts: tuple[Count, ...]  # by label and split
    failures: tuple[tuple[str, str], ...]  # relative path of the video's crops, and why
    damaged_frames: int  # sampled, but not decoded intact
    faceless_frames: int  # in videos that do have a face in other frames
    fresh: int  # videos cut by this run

    def total(self, what: str) -> int:
        """The sum of one of Count's numbers."""
        return sum(getattr(count, what) for count in self.counts)

    def __str__(self) -> str:
        words = ", ".join(f"{self.total(what)} {what}" for what in ("ready", "faceless", "failed"))
        return f"{self.total('videos')} videos: {words}; {self.total('crops')} crops in {self.out}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "out": str(self.out),
            "listings": [str(path) for path in self.listings],
            **{
                what: self.total(what)
                for what in ("videos", "ready", "faceless", "failed", "crops")
            },
            "damaged_frames": self.damaged_frames,
            "faceless_frames": self.faceless_frames,
            "fresh": self.fresh,
            "counts": [asdict(count) for count in self.counts],
            "failures": [{"video": video, "reason": reason} for video, reason in self.failures],
        }


def prepare(
    source: Path,
    out: Path,
    settings: PrepareSettings | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Cut all videos of `source` (see layouts.py) into crops under `out`, except those already done.

    Videos whose file has changed in size, and those that failed, are tried again. A video that cannot be
    read does not stop the others.

    Raises:
        DataError: `source` has no known layout, or its listings are damaged.
        SettingsError: `out` was started with other settings.
        OutputError: nothing can be written there, as on a full disk (what is finished is kept), files of
            another tool would be overwritten, or another process is preparing the same set there.
    """
    settings = settings or PrepareSettings()
    layout = read_layout(source, settings.compression)
    state = out / ".prepare"
    decisive: dict[str, Any] = {"frames": settings.frames, "compression": settings.compression}
    if settings.distortion:
        decisive["distortion"] = str(settings.distortion)
    file = state / f"{layout.name}.jsonl"
    if not file.exists():
        _check_free(out, layout)
    with alone(file):
        journal = Journal(file, decisive)
        aside = state / f"{layout.name}.part"
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed run
        tasks = _tasks(layout.rows)
        todo = [task for task in tasks if not all(_done(row, journal.entries) for row in task)]
        finished = len(tasks) - len(todo)
        work = _pooled if settings.jobs > 1 and len(todo) > 1 else _here
        job = _Job(out, aside, settings.frames, settings.distortion)
        for entries in work(job, todo, settings.jobs):
            journal.append(entries)
            finished += 1
            if progress is not None:
                progress("cutting faces", finished, len(tasks))
        shutil.rmtree(aside, ignore_errors=True)
        listings = tuple(write_listing(out, name, layout, journal.entries) for name in layout.sets)
        return _summary(out, listings, layout.rows, journal.entries, sum(map(len, todo)))


def _check_free(out: Path, layout: Layout) -> None:
    """Raise OutputError if there are listings or crops that no journal of ours mentions."""
    places = [out / f"{name}.json" for name in layout.sets] + [
        out / r.relative for r in layout.rows
    ]
    for place in places:
        if place.exists():
            raise OutputError(
                f"{place}: already exists, and was not made by deepscan prepare; choose another --out"
            )


def _tasks(rows: Sequence[VideoRow]) -> list[Task]:
    """One task for each row, but one for both halves of a clip."""
    tasks: dict[tuple[Path, bool, PurePosixPath | None], list[VideoRow]] = {}
    for row in rows:
        paired = row.half is not None
        tasks.setdefault((row.path, paired, None if paired else row.relative), []).append(row)
    return [tuple(task) for task in tasks.values()]


def _done(row: VideoRow, entries: Mapping[str, PreparedVideo]) -> bool:
    entry = entries.get(str(row.relative))
    return entry is not None and entry.state != "failed" and entry.bytes == _bytes(row.path)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it will report what is wrong


# --- workers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    """The settings that all tasks of a run share."""

    out: Path
    aside: Path
    frames: int
    distortion: Distortion | None


_finder: FaceFinder | None = None  # one for each process


def _cut(job: _Job, task: Task) -> list[PreparedVideo]:
    """Cut one task's videos and put their crops in place."""
    global _finder
    if _finder is None:
        faces = Faces()
        _finder = FaceFinder(faces.min_size, faces.min_confidence, faces.working_side)
    row, size = task[0], _bytes(task[0].path)
    try:
        if row.half is not None:
            with distorted(row.path, job.distortion) as (path, change):
                halves = cut_pair(path, job.frames, _finder, change)
            cut = [{str(r.relative): halves[r.half or 0]} for r in task]
        elif row.path.name.endswith(ARCHIVE):
            if job.distortion is not None:
                raise UnreadableInput(f"{row.path}: holds crops, so its frames cannot be distorted")
            inner = row.relative
            found = cut_archive(row.path, job.frames)
            cut = [{str(inner.parent / f"{inner.name}_{s}"): cuts for s, cuts in found.items()}]
        else:
            with distorted(row.path, job.distortion) as (path, change):
                cuts = cut_video(path, row.mask, job.frames, _finder, change)
            cut = [{str(row.relative): cuts}]
    except InputError as error:
        return [PreparedVideo(str(r.relative), size, "failed", reason=str(error)) for r in task]
    return [_keep(job, r, size, folders) for r, folders in zip(task, cut, strict=True)]


def _keep(job: _Job, row: VideoRow, size: int, folders: dict[str, Cuts]) -> PreparedVideo:
    """Write a row's crops and return its journal entry."""
    crops: dict[str, list[str]] = {}
    seen: dict[str, list[list[float]]] = {}
    for folder, cuts in folders.items():
        if cuts.crops:
            _write(job, PurePosixPath(folder), cuts)
            crops[folder] = [f"{cut.index:03d}" for cut in cuts.crops]
            timed = [(c.time, c.face_size) for c in cuts.crops if c.time is not None]
            if timed:
                seen[folder] = [[round(t, 6), round(s, 1)] for t, s in timed if s is not None]
    damaged, faceless, unchanged = (
        sum(getattr(cuts, what) for cuts in folders.values())
        for what in ("damaged", "faceless", "unchanged")
    )
    state, reason = ("ok", "") if crops else ("faceless", "")
    if not crops and unchanged:
        why = (
            "its mask covers no face"
            if row.mask
            else "both halves show the same face; check that it is a pair"
        )
        state, reason = "failed", f"{row.path}: {why}"
    elif not crops and not faceless:
        state, reason = "failed", f"{row.path}: none of its sampled frames can be decoded"
    return PreparedVideo(str(row.relative), size, state, crops, damaged, faceless, reason, seen)


def _write(job: _Job, inner: PurePosixPath, cuts: Cuts) -> None:
    """Write one video's crops, landmarks and masks aside, then rename them over any earlier ones."""
    try:
        job.aside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=job.aside) as part:
            parts = {kind: Path(part) / kind for kind in ("masks", "landmarks", "frames")}
            for cut in cuts.crops:
                name = f"{cut.index:03d}"
                _save_png(parts["frames"] / f"{name}.png", cut.pixels)
                if cut.mask is not None:
                    _save_png(parts["masks"] / f"{name}.png", np.where(cut.mask, 255, 0))
                if cut.landmarks is not None:
                    parts["landmarks"].mkdir(exist_ok=True)
                    np.save(parts["landmarks"] / f"{name}.npy", cut.landmarks.astype(np.float32))
            for kind, folder in parts.items():
                named = inner if kind == "frames" else sibling_folder(inner, kind)
                assert named is not None  # a row's relative path contains frames/
                place = job.out / named
                if place.exists():
                    shutil.rmtree(place)
                if folder.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(folder, place)
    except OSError as error:
        raise OutputError(
            f"{job.out / inner}: cannot be written: {error.strerror or error}; finished results are"
            f" kept; make room and run the same command again"
        ) from error


def _save_png(path: Path, pixels: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _here(job: _Job, tasks: Sequence[Task], _: int) -> Iterator[list[PreparedVideo]]:
    """Do one task after the other in this process."""
    with threads(1):  # as in the workers, so that the same crops come out
        for task in tasks:
            yield _cut(job, task)


def _pooled(job: _Job, tasks: Sequence[Task], jobs: int) -> Iterator[list[PreparedVideo]]:
    """Do tasks in `jobs` processes, in the order they finish; a task that kills two of them has failed."""
    left = deque(tasks)
    pool: Pool[Task, list[PreparedVideo] | OutputError] = Pool(
        partial(_tried, _cut, job),
        min(jobs, len(tasks)),
        partial(limit_threads, 1),
        tries=2,
    )
    try:
        for task, result in pool.run(lambda: left.popleft() if left else None):
            if isinstance(result, OutputError):
                raise result
            if isinstance(result, Death):
                reason = f"{task[0].path}: the process that read it was killed; memory may be short"
                yield [PreparedVideo(str(row.relative), 0, "failed", reason=reason) for row in task]
            else:
                yield result
    finally:
        pool.close()


def _tried(
    cut: Callable[[_Job, Task], list[PreparedVideo]], job: _Job, task: Task
) -> list[PreparedVideo] | OutputError:
    """`_cut` in a worker process; an OutputError is returned to the parent instead of raised."""
    try:
        return cut(job, task)
    except OutputError as error:
        return error


# --- results ---------------------------------------------------------------------------------------


def _summary(
    out: Path,
    listings: tuple[Path, ...],
    rows: Sequence[VideoRow],
    entries: Mapping[str, PreparedVideo],
    fresh: int,
) -> Summary:
    counts: dict[tuple[str, str], Counter[str]] = {}
    failures = []
    for row in sorted(
        rows, key=lambda row: (SPLITS.index(row.split) if row.split else 3, row.label)
    ):
        entry = entries[str(row.relative)]
        count = counts.setdefault((row.name, row.split), Counter())
        videos = max(1, len(entry.crops))
        count["videos"] += videos
        count["ready" if entry.state == "ok" else entry.state] += videos
        count["crops"] += sum(map(len, entry.crops.values()))
        if entry.state == "failed":
            failures.append((entry.video, entry.reason))
    names = ("videos", "ready", "faceless", "failed", "crops")
    finished = [entries[str(row.relative)] for row in rows]
    return Summary(
        out,
        listings,
        tuple(
            Count(name, split, **{what: count[what] for what in names})
            for (name, split), count in counts.items()
        ),
        tuple(failures),
        damaged_frames=sum(entry.damaged for entry in finished),
        faceless_frames=sum(entry.faceless for entry in finished),
        fresh=fresh,
    )
