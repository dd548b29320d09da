"""The test sets by short name: what each is, how many videos it should have, and which of them are here.

`data.deepfakebench` and `data.layouts` find listings and layouts; this file says which sets there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepscan.data.crops import Cropless, CropRow, read_cropless, read_crops
from deepscan.data.deepfakebench import ORIGINS, locate
from deepscan.data.layouts import read_layout
from deepscan.errors import DataError, SettingsError

REAL, MANIPULATED = 0, 1
Videos = Mapping[tuple[str, int], int]  # by split and label


@dataclass(frozen=True, slots=True)
class TestSet:
    """A test set. `listings`: DeepfakeBench's names for it; the first one found is read."""

    __test__ = False  # no test of pytest's

    short: str
    title: str
    listings: tuple[str, ...] = ()
    expected: Videos = field(default_factory=dict)
    total: int | None = None  # of test videos, where the classes' counts are not stated
    about: bool = False  # the counts are
    folder: Path | None = None  # of crops, where the user named it

    @property
    def layout(self) -> tuple[str, str]:
        """The folder of its official layout, and where to get the set."""
        names = self.listings or (self.title,)
        origins = (o for pattern, o in ORIGINS.items() if re.fullmatch(pattern, names[0]))
        return next(origins, (names[0], ""))


def _tests(real: int, manipulated: int) -> Videos:
    return {("test", REAL): real, ("test", MANIPULATED): manipulated}


def _ff(methods: int) -> Videos:
    sides = {"train": 720, "val": 140, "test": 140}
    return {
        (split, label): count * (methods if label else 1)
        for split, count in sides.items()
        for label in (REAL, MANIPULATED)
    }


# protocol.md's table; DF40's part on FaceForensics++ by generator.
SETS: dict[str, TestSet] = {
    s.short: s
    for s in (
        TestSet("ff++", "FaceForensics++", ("FaceForensics++",), _ff(4)),
        TestSet("cdf1", "Celeb-DF v1", ("Celeb-DF-v1",), _tests(38, 62)),
        TestSet("cdf2", "Celeb-DF v2", ("Celeb-DF-v2",), _tests(178, 340)),
        TestSet("fsh", "FaceShifter", ("FaceShifter",), _tests(140, 140)),
        TestSet("uadfv", "UADFV", ("UADFV",), _tests(49, 49)),
        TestSet("dfd", "DeepFakeDetection", ("DeepFakeDetection",), _tests(363, 3068)),
        TestSet("dfdc", "DFDC", ("DFDC",), total=5000),
        TestSet("dfdcp", "DFDC preview", ("DFDCP",), total=780, about=True),
        TestSet("dfo", "DeeperForensics-1.0", ("test_DFR", "DeeperForensics-1.0"), _tests(140, 140)),
        TestSet("wdf", "WildDeepfake", ("test_WDF",), total=806, about=True),
        TestSet("ffiw", "FFIW-10K", ("test_FFIW",), _tests(250, 250)),
        *(
            TestSet(name, f"DF40 {name}", (f"{name}_ff",))
            for name in (
                "uniface", "e4s", "fsgan", "simswap", "inswap", "blendface", "mobileswap", "facedancer",
            )
        ),
    )
}  # fmt: skip

# The ten that the paper averages over.
TEN = ("cdf1", "cdf2", "fsh", "uadfv", "dfd", "dfdc", "dfdcp", "dfo", "wdf", "ffiw")


def parse(text: str) -> list[TestSet]:
    """Read "cdf2,dfdc,mine=/data/mine": short names, "all" for the paper's ten, or a name and its crops.

    Raises:
        SettingsError: an unknown or doubled name.
    """
    found: dict[str, TestSet] = {}
    for word in text.split(","):
        name, named, folder = word.strip().partition("=")
        if named:
            if not re.fullmatch(r"[\w+.-]+", name) or name in SETS:
                raise SettingsError(
                    f"datasets: {name!r} cannot be used as a name; choose another one for {folder}"
                )
            new = [TestSet(name, name, folder=Path(folder))]
        elif name == "all":
            new = [SETS[short] for short in TEN]
        elif name in SETS:
            new = [SETS[name]]
        else:
            raise SettingsError(
                f"datasets: {name!r} is not one of {', '.join(SETS)}, all; or NAME=FOLDER names your"
                f" own crops"
            )
        for test_set in new:
            if test_set.short in found:
                raise SettingsError(f"datasets: {test_set.short} is named twice")
            found[test_set.short] = test_set
    return list(found.values())


# --- what is there ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crops:
    """The prepared crops of a set's test split."""

    test_set: TestSet
    folder: Path
    rows: list[CropRow]
    cropless: list[Cropless]

    @property
    def short(self) -> str:
        """The set's short name."""
        return self.test_set.short

    def __repr__(self) -> str:
        return (
            f"Crops({self.test_set.short}, {len(self.rows)} crops, {len(self.cropless)} cropless)"
        )


def read_test(test_set: TestSet, root: Path | None, compression: str = "c23") -> Crops:
    """Read the crops of a set's test split.

    Raises:
        DataError: it is not there, or not whole (see manifest), or has no test side.
    """
    folder, rows, cropless = _everything(test_set, root, compression)
    # A set of the user's own may state no split; its crops are for testing, then.
    sides = ("test",) if any(row.split for row in rows) else ("",)
    tested = [row for row in rows if row.split in sides]
    if not tested:
        raise DataError(f"{folder}: {test_set.short} lists no videos of the test split")
    return Crops(test_set, folder, tested, [c for c in cropless if c.split in sides])


def _everything(
    test_set: TestSet, root: Path | None, compression: str
) -> tuple[Path, list[CropRow], list[Cropless]]:
    if test_set.folder is not None:
        folder, name = test_set.folder, None
    else:
        folder, listing = _found(test_set, root)
        name = [listing]
    rows = read_crops(folder, name, compression)
    return folder, rows, read_cropless(folder, name, compression)


def _found(test_set: TestSet, root: Path | None) -> tuple[Path, str]:
    """Folder and name of the listing found; if there is none, `locate`'s error for the first name."""
    assert root is not None
    missing: DataError | None = None
    for name in test_set.listings:
        try:
            return locate(root, name), name
        except DataError as error:
            missing = missing or error
    assert missing is not None
    raise missing


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found of a set: prepared crops, and its official layout.

    `problem` is why the crops cannot be used, empty when they can; `differs` where the counts are others
    than expected.
    """

    test_set: TestSet
    crops: Path | None
    videos: Videos
    cropless: int
    layout: Path | None
    layout_videos: Videos
    layout_missing: tuple[Path, ...]
    problem: str

    @property
    def differs(self) -> list[str]:
        """Unexpected counts, in words."""
        lines = []
        for (split, label), wanted in self.test_set.expected.items():
            have = self.videos.get((split, label), 0)
            if have != wanted and (split == "test" or have):
                kind = "manipulated" if label else "real"
                lines.append(f"{split}: {have} {kind}, {self._wanted(wanted)} expected")
        if (total := self.test_set.total) is not None:
            have = sum(count for (split, _), count in self.videos.items() if split == "test")
            if abs(have - total) > (0.05 * total if self.test_set.about else 0):
                lines.append(f"test: {have} videos, {self._wanted(total)} expected")
        return lines

    def _wanted(self, count: int) -> str:
        return f"about {count}" if self.test_set.about else str(count)


def inventory(test_set: TestSet, root: Path, compression: str = "c23") -> Inventory:
    """Look for a set under the data root; a missing set is not an error here."""
    crops, videos, cropless, problem = None, Counter[tuple[str, int]](), 0, ""
    try:
        crops, rows, without = _everything(test_set, root, compression)
        cropless = len(without)
        named = {(r.split, r.label, r.video) for r in rows}
        named |= {(v.split, v.label, v.video) for v in without}
        videos = Counter((split, label) for split, label, _ in named)
    except DataError as error:
        problem = str(error)
    layout, listed, missing = _layout(test_set, root, compression)
    return Inventory(test_set, crops, videos, cropless, layout, listed, missing, problem)


def _layout(
    test_set: TestSet, root: Path, compression: str
) -> tuple[Path | None, Videos, tuple[Path, ...]]:
    """The official layout's folder, the videos it lists of this set, and which of their files are missing."""
    place = root / test_set.layout[0]
    try:
        layout = read_layout(place, compression) if place.is_dir() else None
    except DataError:
        layout = None  # prepared crops alone may lie in a folder of this name
    if layout is None:
        return None, {}, ()
    labels = next((layout.sets[n] for n in test_set.listings if n in layout.sets), ())
    rows = [row for row in layout.rows if row.name in labels]
    missing = tuple(row.path for row in rows if not row.path.is_file())
    return (
        (place, Counter((row.split, row.label) for row in rows), missing)
        if rows
        else (None, {}, ())
    )


def official(test_set: TestSet, root: Path | None) -> Path:
    """The folder of a set's videos, for what crops cannot answer.

    Raises:
        DataError: there is none.
    """
    if root is None:
        raise DataError(
            f"{test_set.short}: distortions need videos, and only sets under the data root have them"
        )
    place, _, _ = _layout(test_set, root, "c23")
    if place is None:
        folder, page = test_set.layout
        raise DataError(
            f"{root / folder}: no videos of {test_set.title} in its official layout"
            + (f"; get it from {page}" if page else "")
        )
    return place


def present(
    sets: Sequence[TestSet | Crops], root: Path | None, skip_missing: bool
) -> tuple[list[Crops], dict[str, str]]:
    """The sets that were found or already read, and with `skip_missing` why the others were not.

    Raises:
        DataError: one is not there, without `skip_missing`; or none is.
    """
    found, skipped = [], {}
    for one in sets:
        try:
            found.append(one if isinstance(one, Crops) else read_test(one, root))
        except DataError as error:
            if not skip_missing:
                raise DataError(f"{error}. --skip-missing continues without it") from error
            skipped[one.short] = str(error)
    if not found:
        raise DataError("none of the data sets was found: " + "; ".join(skipped.values()))
    return found, skipped
