"""Finds the inputs of a batch: files, the media in folders, and the paths in lists."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from deepscan.errors import DeepscanError, SettingsError
from deepscan.files import is_part, short_name
from deepscan.media.recognise import HEAD, is_media, is_sound
from deepscan.plain import has_mark, text_of
from deepscan.report.provenance import NAME, read_manifest

# Files that are picked from a folder even if their content is not recognised, so that damage is reported.
VIDEO_SUFFIXES = """
.264 .265 .3g2 .3gp .apng .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2t .m2ts .m2v .m4v
.mjpeg .mjpg .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv
.wtv .y4m
"""
SOUND_SUFFIXES = ".aac .ac3 .aif .aiff .amr .flac .m4a .m4b .mka .mp3 .oga .opus .wav .wma"
STILL_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .avif .jp2 .heic .heif"
SUFFIXES = {*VIDEO_SUFFIXES.split(), *STILL_SUFFIXES.split()}

MOST_NAMED = 3  # files that were skipped, in one message

# Letters with bytes of 0 between, as no list of whole names has them.
_UTF16 = re.compile(rb"(?:[ -~]\0){3}|(?:\0[ -~]){3}")

WRITTEN = "written by an earlier run of deepscan"


@dataclass(frozen=True, slots=True)
class Input:
    """A file, and the place of its results under the batch's folder."""

    path: Path
    inner: PurePath

    def __post_init__(self) -> None:
        if self.inner.is_absolute() or ".." in self.inner.parts or not self.inner.parts:
            raise SettingsError(f"{self.path}: results at {self.inner} would lie outside of --out")


def found(
    paths: Iterable[Path], exclude: Path, tell: Callable[[str], None] | None = None
) -> Iterator[Input]:
    """The inputs in `paths`: files themselves, and the media files in folders, sorted.

    In folders a file is taken by its suffix or its first bytes. Each comes once. Links to folders are not
    followed, the folder `exclude` is skipped, and what an earlier run wrote is never an input, even if it
    is named. An empty folder becomes an input that fails, so that it does not go unnoticed. `tell` hears
    what was skipped, and why.
    """
    seen: set[str] = set()
    for given in paths:
        passed = _Passed()
        if given.is_dir():
            inside = sorted(_media(given, exclude, passed))
            ones = [Input(path, _inner(path, given)) for path in inside]
            if not ones and WRITTEN not in passed.reasons:
                ones = [itself(given)]
        elif is_result(given):
            passed.add(given, WRITTEN)
            ones = []
        else:
            ones = [itself(given)]
        if tell is not None:
            for message in passed.messages(given):
                tell(message)
        for one in ones:
            name = os.path.abspath(one.path)
            if name not in seen:
                seen.add(name)
                yield one


def is_result(path: Path) -> bool:
    """Whether a manifest in a folder above says that an earlier run of deepscan wrote this file."""
    return os.path.abspath(path) in _above(path)


def itself(path: Path) -> Input:
    """Return a file, or a folder without media, as an input."""
    return Input(path, PurePath(short_name(path.name) if path.name not in ("", "..") else "input"))


def _inner(path: Path, folder: Path) -> PurePath:
    inner = path.relative_to(folder)
    return inner.with_name(short_name(inner.name)) if inner.parts else PurePath("input")


def listed(content: bytes) -> list[Path]:
    """The paths in a list: one on each line, or separated by NUL bytes as `find -print0` writes them.

    Lines end as on Unix, Windows or old Macs. Without a byte order mark they are bytes, since a file's name
    need not be text.

    Raises:
        SettingsError: the list has a byte order mark and is not text, or is UTF-16 without one.
    """
    if has_mark(content):
        try:
            text = text_of(content)
        except UnicodeError as error:
            raise SettingsError(f"--from-file: {error}") from error
        content = os.fsencode(text)
    elif _UTF16.search(content):
        raise SettingsError(
            "--from-file: zero bytes between the letters, like UTF-16 without a byte order mark;"
            " save it as UTF-8"
        )
    end = next((one for one in (b"\0", b"\n") if one in content), b"\r")
    names = (name.removesuffix(b"\r" if end == b"\n" else b"") for name in content.split(end))
    return [Path(os.fsdecode(name)) for name in names if name]


class _Passed:
    """The skipped files of a folder: paths by reason."""

    def __init__(self) -> None:
        self._files: dict[str, list[Path]] = {}

    @property
    def reasons(self) -> Collection[str]:
        return self._files.keys()

    def add(self, path: Path, why: str) -> None:
        self._files.setdefault(why, []).append(path)

    def messages(self, given: Path) -> Iterator[str]:
        for why, paths in sorted(self._files.items()):
            if paths == [given]:
                yield f"{given}: skipped ({why})"
                continue
            names = [str(path.relative_to(given)) for path in sorted(paths)[:MOST_NAMED]]
            more = len(paths) - len(names)
            yield (
                f"{given}: {len(paths)} skipped ({why}): {', '.join(names)}"
                + (f" and {more} more" if more else "")
            )


def _media(folder: Path, exclude: Path, passed: _Passed) -> Iterator[Path]:
    left, skipped = [folder], exclude.resolve()
    results = _above(folder)
    while left:
        here = left.pop()
        if here.resolve() == skipped or is_part(here):  # a part is what a run that was killed left
            passed.add(here, WRITTEN)
            continue
        try:
            entries = list(os.scandir(here))
        except OSError:
            yield here  # its row will say that it cannot be listed
            continue
        if any(entry.name == NAME for entry in entries):
            results |= _written(here)
        for entry in entries:
            path = here / entry.name
            if entry.is_dir(follow_symlinks=False):
                left.append(path)
            elif os.path.abspath(path) in results or is_part(path):
                passed.add(path, WRITTEN)
            elif why := _unfit(path):
                passed.add(path, why)
            else:
                yield path


def _above(path: Path) -> set[str]:
    """Files written by earlier runs, by the manifests in the folders above a path."""
    folders = Path(os.path.abspath(path)).parents
    return set().union(*(_written(one) for one in folders if (one / NAME).is_file()))


def _written(folder: Path) -> set[str]:
    """A manifest of deepscan, and the files that it lists as written by an earlier run."""
    try:
        outputs = read_manifest(folder / NAME).outputs
    except DeepscanError:
        return set()
    return {os.path.abspath(folder / name) for name in (NAME, *outputs)}


def _unfit(path: Path) -> str:
    """Why a file is skipped; empty if it is an input."""
    # macOS leaves "._clip.mp4" beside a clip on disks that cannot store its attributes.
    if path.name.startswith("._"):
        return "attributes that macOS stores for other files"
    try:
        if not path.is_file():
            return "no regular file"
        if path.suffix.lower() in SUFFIXES:
            return ""
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if path.suffix.lower() in SOUND_SUFFIXES.split() or is_sound(head):
        return "sound only"
    return "" if is_media(head) else "neither video nor picture"
