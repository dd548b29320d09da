"""Gathers settings: defaults < deepscan.toml < the user's file < DEEPSCAN_* < flags.

    [scoring]                           in deepscan.toml or the user's file
    device = "cuda"
    DEEPSCAN_SCORING_DEVICE=cuda        in the environment

A key is named by its stage and name in `Settings`. Only `sampling.rule` differs: it includes the seconds,
as in "every:0.5". Each key takes its value from the last source that sets it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from deepscan.config import Sampling, Settings, files, seen_from, user_file
from deepscan.errors import SettingsError
from deepscan.plain import check_known, hints, in_words, read_value

PREFIX = "DEEPSCAN_"
OTHER_VARIABLES = ("DEEPSCAN_CACHE", "DEEPSCAN_DATA")

# What each key means, in the order of the file that `config init` writes, which states these meanings.
MEANING = {
    "sampling.rule": "which frames: uniform, keyframes, all, or every:SECONDS",
    "sampling.frames": "frames to look at, spread evenly over a video, for uniform",
    "sampling.stream": "number of the video stream in the file; without it, the one that players show",
    "sampling.second_look": "look closely at a stretch that stands out",
    "faces.min_size": "smallest face judged, in pixels",
    "faces.min_confidence": "drop faces that the finder is less sure of",
    "faces.working_side": "find faces in frames shrunk to this longer side",
    "scoring.weights": "a detector's name (deepscan weights list), or a checkpoint file; two with a comma",
    "scoring.device": "auto, cpu, cuda or cuda:N",
    "scoring.precision": "auto, float32 or bfloat16",
    "scoring.batch": "crops scored at once",
    "scoring.offline": "never download weights",
    "heatmaps.draw": "draw heatmaps and an overlay film",
    "heatmaps.cls": "also draw the attention of [CLS]",
    "heatmaps.map": "the map that film and contact sheet show",
    "heatmaps.explain": "measure whether the score depends on what the maps mark",
    "limits.seconds": "give up on an input after this many seconds; without it, only if it hangs",
    "limits.memory": "MiB of address space for the process that decodes an input",
    "output.private": "leave folders, tags and all faces but the deciding one out of the results",
    "output.pdf": "also write report.pdf",
    "output.sign": "file of the private key that signs manifest.json (deepscan keygen)",
}


@dataclass(frozen=True, slots=True)
class Preference:
    """A key's value and where it was set.

    `origin` is "default", "file", "environment" or "flag"; `place` the file or variable.
    """

    key: str
    value: Any
    origin: str = "default"
    place: str = ""

    @property
    def set_by(self) -> str:
        """The origin in words."""
        return self.place or self.origin


@dataclass(frozen=True, slots=True)
class Preferences:
    """All keys, and the settings they make."""

    settings: Settings
    keys: dict[str, Preference] = field(default_factory=dict)

    def origins(self) -> dict[str, str]:
        """Where each setting was set, as a report names it; "sampling.seconds" has the origin of its rule."""
        origins = {key: preference.origin for key, preference in self.keys.items()}
        return origins | {"sampling.seconds": origins["sampling.rule"]}

    def foreign_detector(self) -> str:
        """A note, if a deepscan.toml other than the user's own chooses the detector; else ""."""
        chosen = self.keys["scoring.weights"]
        if chosen.origin != "file" or chosen.place == str(user_file()):
            return ""
        return (
            f"note: {chosen.place} chooses the detector, {chosen.value}; --weights chooses another"
        )


def defaults() -> dict[str, Any]:
    """Every key with its default."""
    return {
        f"{stage}.{name}": value
        for stage, values in Settings().to_dict().items()
        for name, value in values.items()
        if (stage, name) != ("sampling", "seconds")
    }


def gather(flags: Mapping[str, Any] | None = None) -> Preferences:
    """Settings from files, environment and the given flags (by key).

    Raises:
        SettingsError: an unknown key (the nearest known one is named), a wrong type, or out of range.
    """
    found = {key: Preference(key, value) for key, value in defaults().items()}
    found |= {one.key: one for one in (*_from_files(), *_from_environment())}
    found |= {key: Preference(key, value, "flag") for key, value in (flags or {}).items()}
    return Preferences(_settings(found), found)


def _from_files() -> Iterator[Preference]:
    types = _types()
    for path, tables in files():
        for stage, table in tables.items():
            if stage in ("data", "train"):
                continue
            names = [key.split(".")[1] for key in types if key.startswith(f"{stage}.")]
            for name, value in table.items():
                check_known(name, names, f"{path}: [{stage}]")
                key = f"{stage}.{name}"
                value = read_value(types[key], value, f"{path}: [{stage}] {name}")
                yield Preference(key, _resolved(path, key, value), "file", str(path))


def _resolved(path: Path, key: str, value: Any) -> Any:
    """Make the paths of checkpoints relative to the settings file that names them."""
    if key != "scoring.weights":
        return value
    try:
        return seen_from(path.parent, value)
    except SettingsError as error:
        raise SettingsError(f"{error} (set by {path})") from error


def _from_environment() -> Iterator[Preference]:
    types = _types()
    variables = {PREFIX + key.replace(".", "_").upper(): key for key in types}
    for name, text in sorted(os.environ.items()):
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            check_known(name, [*variables, *OTHER_VARIABLES], "environment")
            key = variables[name]
            yield Preference(key, _parsed(name, text, types[key]), "environment", name)


def _types() -> dict[str, Any]:
    """Each key's type."""
    types = {
        f"{s}.{name}": t for s, kind in hints(Settings).items() for name, t in hints(kind).items()
    }
    return {key: types[key] for key in defaults()}


def _parsed(name: str, text: str, hint: Any) -> Any:
    """A variable's text as its key's type."""
    kind = (get_args(hint) or (hint,))[0]
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{name}: {text!r} is not {in_words(kind)}") from error


def _settings(found: Mapping[str, Preference]) -> Settings:
    """The settings from these keys; an error about a value names where it was set."""
    stages: dict[str, Any] = {}
    for stage in fields(Settings):
        own = {k.split(".")[1]: p for k, p in found.items() if k.startswith(f"{stage.name}.")}
        values = {name: preference.value for name, preference in own.items()}
        try:
            if stage.name == "sampling":
                stages[stage.name] = _sampling(values)
            else:
                stages[stage.name] = type(getattr(Settings(), stage.name))(**values)
        except SettingsError as error:
            places = {preference.place for preference in own.values() if preference.place}
            where = f" (set by {', '.join(sorted(places))})" if places else ""
            raise SettingsError(f"{error}{where}") from error
    return Settings(**stages)


def _sampling(values: dict[str, Any]) -> Sampling:
    return Sampling.parse(values["rule"], values["frames"], values["stream"], values["second_look"])


def example() -> str:
    """A deepscan.toml with every key at its default, all of them commented out."""
    lines = [
        "# Settings of deepscan. The defaults are shown; remove the # from each line that you change.",
        "# deepscan.toml < the user's file < DEEPSCAN_STAGE_KEY variables < flags;",
        "# `deepscan config show` shows where each value was set.",
        "",
        "[data]",
        '# root = "/data"  # the folder of your data sets',
    ]
    stage = ""
    for key, value in defaults().items():
        table, name = key.split(".")
        if table != stage:
            stage = table
            lines += ["", f"[{table}]"]
        line = f"# {name} = {_toml(value)}  # " if value is not None else f"# {name}: "
        lines.append(line + MEANING[key])
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
