"""Defines the settings: frozen records, one for each stage, and deepscan.toml.

Only `pipeline` and the commands see these records; all other modules take plain arguments.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import platformdirs

from deepscan.errors import SettingsError
from deepscan.plain import check_known, read, text_of


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames to look at.

    `rule`: "uniform" (`frames` of them, spread evenly over the stream's time), "keyframes", "all", or
    "every" (one every `seconds`). `second_look`: whether to look again at a stretch that stands out.
    """

    rule: str = "uniform"
    frames: int = 32
    seconds: Fraction | None = None
    stream: int | None = (
        None  # number of the video stream in the file; None: the one that players show
    )
    second_look: bool = True

    def __post_init__(self) -> None:
        if self.stream is not None and self.stream < 0:
            raise SettingsError(
                f"stream: {self.stream} is not the number of a stream; they count from 0"
            )
        if self.rule not in ("uniform", "keyframes", "all", "every"):
            raise SettingsError(
                f"sampling: {self.rule!r} is not one of uniform, keyframes, all, every:SECONDS"
            )
        if self.frames < 1:
            raise SettingsError(f"frames: {self.frames} is not a positive count")
        if (self.rule == "every") != (self.seconds is not None):
            raise SettingsError(
                "sampling: every needs seconds, as in every:0.5; the other rules take none"
            )
        if self.seconds is not None and self.seconds <= 0:
            raise SettingsError(f"sampling: every:{self.seconds} is not a positive time")

    @classmethod
    def parse(
        cls, text: str, frames: int = 32, stream: int | None = None, second_look: bool = True
    ) -> Sampling:
        """Read the command line's form: uniform, keyframes, all or every:SECONDS."""
        if match := re.fullmatch(r"every:(\d+(?:\.\d+)?)", text):
            return cls("every", frames, Fraction(match[1]), stream, second_look)
        return cls(text, frames, None, stream, second_look)


@dataclass(frozen=True, slots=True)
class Faces:
    """How faces are found. Sizes are pixels of the frame as displayed."""

    min_size: int = 40  # smaller faces are counted, not scored
    min_confidence: float = 0.9
    working_side: int = 960  # frames are shrunk to this longer side before detection

    def __post_init__(self) -> None:
        if self.min_size < 12:
            raise SettingsError(
                f"min-face: {self.min_size} px; the smallest face MTCNN can see is 12 px"
            )
        if not 0 < self.min_confidence < 1:
            raise SettingsError(f"min_confidence: {self.min_confidence} is not between 0 and 1")
        if self.working_side < 64:
            raise SettingsError(
                f"working_side: {self.working_side} px is too small to find faces in"
            )


@dataclass(frozen=True, slots=True)
class Scoring:
    """Which detector runs, and how."""

    weights: str = "default"  # a name in weights/catalogue.toml, or a checkpoint file; A,B for two
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    precision: str = "auto"  # auto | float32 | bfloat16
    batch: int = 16
    offline: bool = False  # never download the base

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise SettingsError(f"device: {self.device!r} is not one of auto, cpu, cuda, cuda:N")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise SettingsError(
                f"precision: {self.precision!r} is not one of auto, float32, bfloat16"
            )
        if self.batch < 1:
            raise SettingsError(f"batch: {self.batch} is not a positive count")


def detectors(weights: str, folder: Path = Path()) -> tuple[str, ...]:
    """The detectors that `weights` names: one, or two with a comma between.

    A comma may be part of a checkpoint's path, too; relative paths begin at `folder`.

    Raises:
        SettingsError: more than two, or one twice.
    """

    def is_one(name: str) -> bool:
        return "," not in name or (folder / name).is_file()

    if is_one(weights):
        return (weights,)
    commas = [place for place, character in enumerate(weights) if character == ","]
    pairs = [(weights[:place].strip(), weights[place + 1 :].strip()) for place in commas]
    pairs = [pair for pair in pairs if all(pair) and len(set(pair)) == 2 and all(map(is_one, pair))]
    if len(pairs) != 1:
        raise SettingsError(f"weights: {weights} is neither one detector nor two different ones")
    return pairs[0]


def seen_from(folder: Path, weights: str) -> str:
    """`weights` with the full path of each checkpoint that is there, seen from `folder`.

    Raises:
        SettingsError: as `detectors`.
    """
    there = {name: folder / name for name in detectors(weights, folder)}
    return ",".join(str(path) if path.is_file() else name for name, path in there.items())


MAPS = ("auto", "evidence", "attention", "likelihood")


@dataclass(frozen=True, slots=True)
class Heatmaps:
    """What to draw."""

    draw: bool = False
    cls: bool = False  # also the attention of [CLS]
    explain: bool = False  # measure whether the score depends on the patches that the maps mark
    # What film and contact sheet show; auto: evidence, or attention of a detector that has no evidence.
    map: str = "auto"

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise SettingsError(f"map: {self.map!r} is not one of {', '.join(MAPS)}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one input may take; one that takes more is an error. No limit changes a result."""

    seconds: float | None = None  # of decoding, first to last sampled frame; None: unless it hangs
    memory: int = 4096  # MiB of address space for the process that decodes it

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise SettingsError(f"time-limit: {self.seconds} is not a positive number of seconds")
        if self.memory < 512:
            raise SettingsError(f"memory: {self.memory} MiB; no decoder starts in less than 512")


@dataclass(frozen=True, slots=True)
class Output:
    """What a folder of results contains."""

    private: bool = (
        False  # without folders, tags, the machine's details and all faces but the deciding one
    )
    pdf: bool = False  # also report.pdf
    sign: str = ""  # file of the private key (see report.signing) that signs manifest.json


@dataclass(frozen=True, slots=True)
class Settings:
    """All of `deepscan.scan`'s settings."""

    sampling: Sampling = field(default_factory=Sampling)
    faces: Faces = field(default_factory=Faces)
    scoring: Scoring = field(default_factory=Scoring)
    heatmaps: Heatmaps = field(default_factory=Heatmaps)
    limits: Limits = field(default_factory=Limits)
    output: Output = field(default_factory=Output)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as a report states them."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(inner) for key, inner in value.items()}
            return float(value) if isinstance(value, Fraction) else value

        return plain(asdict(self))

    def origins(self) -> dict[str, str]:
        """Where each setting ("sampling.frames") of a Python call comes from: "default" or "call"."""
        usual = Settings().to_dict()
        return {
            f"{stage}.{name}": "default" if value == usual[stage][name] else "call"
            for stage, values in self.to_dict().items()
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Settings:
        """The settings that `to_dict` gave.

        Raises:
            SettingsError: a stage or key is missing or unknown, or a value has no meaning.
        """
        try:
            # Which the first reports do not state.
            plain = {"limits": asdict(Limits()), "output": asdict(Output())} | plain
            if isinstance(plain.get("sampling"), dict):
                none = {"stream": None, "second_look": False}  # there was neither
                plain["sampling"] = none | plain["sampling"]
            if isinstance(plain.get("output"), dict):
                plain["output"] = {"pdf": False} | plain["output"]
            return read(cls, plain, "settings", whole=True)
        except SettingsError as error:
            raise SettingsError(
                f"settings from another version of deepscan, or changed ones: {error}"
            ) from error


# --- deepscan.toml ---------------------------------------------------------------------------------

STAGES = tuple(stage.name for stage in fields(Settings))  # read, and checked, by preferences.py
TABLES = ("data", "train", *STAGES)  # [train] is read, and checked, by what trains


def data_root(flag: Path | None) -> Path:
    """The folder of the user's data sets: --root, else DEEPSCAN_DATA, else [data] root in a file.

    The user's own file wins over the nearest deepscan.toml. A relative root is relative to its file.

    Raises:
        SettingsError: none of them names a root, or the root is not a folder.
    """
    if flag is not None:
        root, origin = flag, "--root"
    elif named := os.environ.get("DEEPSCAN_DATA"):
        root, origin = Path(named), "DEEPSCAN_DATA"
    else:
        named_roots = [
            (file, table["data"]["root"]) for file, table in files() if table.get("data")
        ]
        if not named_roots:
            file = project()[0]
            raise SettingsError(
                "no data root: name the folder of your data sets with --root, with the variable"
                ' DEEPSCAN_DATA, or in deepscan.toml as root = "..." under [data]'
                + (f" ({file} does not)" if file else "")
            )
        file, named = named_roots[-1]
        root, origin = file.parent / named, str(file)
    if not root.is_dir():
        raise SettingsError(f"data root {root}, from {origin}: no such folder; correct it there")
    return root


def project() -> tuple[Path | None, dict[str, dict[str, Any]]]:
    """The nearest deepscan.toml, in the working folder or above it, and its tables; None without one.

    Raises:
        SettingsError: it is unreadable or not TOML, or has an unknown table or an unknown key in [data].
    """
    here = Path.cwd()
    places = (folder / "deepscan.toml" for folder in (here, *here.parents))
    path = next((place for place in places if place.is_file()), None)
    return (None, {}) if path is None else (path, _tables(path))


def user_file() -> Path:
    """Path of the user's own settings, whether or not the file exists."""
    return platformdirs.user_config_path("deepscan") / "deepscan.toml"


def files() -> list[tuple[Path, dict[str, dict[str, Any]]]]:
    """The settings files that exist, the winning one last: the nearest deepscan.toml, the user's own."""
    path, tables = project()
    found = [] if path is None else [(path, tables)]
    own = user_file()
    return [*found, (own, _tables(own))] if own.is_file() and own != path else found


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    tables = load_toml(path)
    for name, table in tables.items():
        check_known(name, TABLES, f"{path}")
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {name} is a table; write [{name}] above its keys")
    for key, value in tables.get("data", {}).items():
        check_known(key, ("root",), f"{path}: [data]")
        if not isinstance(value, str):
            raise SettingsError(f"{path}: [data] {key}: {value!r} is not a path in quotes")
    return tables


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return tomllib.loads(text_of(path.read_bytes()))
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # neither TOML nor text, or nested endlessly
        raise SettingsError(f"{path}: not readable TOML: {error}") from error
