"""A tiny base and tiny crops to train on, for this process or, run as a script, for one of its own.

python tests/builders/toy.py FOLDER train --data ...    deepscan's commands, knowing the toy base in FOLDER
KILLED_AT=5 python tests/builders/toy.py ...           the same, killed after the fifth step
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from deepscan.files import sha256
from deepscan.model import checkpoint, tower, weights
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings, Header
from deepscan.training.folder import Row, RunFolder

if TYPE_CHECKING:
    import pytest

KILLED_AT = "KILLED_AT"

SIZE = tower.TowerSize(32, 8, 32, 2, 16, head_width=8, quick_gelu=True)


def install(folder: Path) -> tuple[object, object]:
    """Make a base called "toy" known to this process, its file in `folder`; what stood there before."""
    before = tower.tower_size, weights.catalogue
    tower.tower_size = {"toy": SIZE}.__getitem__  # type: ignore[assignment]
    file = folder / "toy.safetensors"
    if not file.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = Detector(DetectorSettings(tower="toy"))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(made.tower.visual.state_dict(), file)
    entry = weights.BaseEntry(
        "toy", "toy", "tests", "none", "float32", str(file), sha256(file), file.stat().st_size, {}
    )
    known = weights.Catalogue("toy", {"toy": entry}, {})
    weights.catalogue = lambda: known  # type: ignore[assignment]
    return before


def knowing(folder: Path, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call `work`, in a process that has to be told of the toy base in `folder` first."""
    install(folder)
    return work(*arguments)


def detector(path: Path, logit: float) -> Path:
    """Write a checkpoint on the toy base, named as its file, that gives about this logit to any crop."""
    made = Detector(DetectorSettings(tower="toy"))
    with torch.no_grad():
        made.head.weight.zero_()
        made.head.bias.fill_(logit)
    base = weights.catalogue().bases["toy"]
    stands_on = {"name": base.name, "sha256": base.sha256}
    checkpoint.save(
        path, made, Header(path.stem, made.settings, stands_on, {"data": "nothing"}, "none")
    )
    return path


def add_tiny_tower(patch: pytest.MonkeyPatch) -> str:
    """Make a plain ViT of three small layers known by the name that is given back."""
    real, tiny = tower.tower_size, tower.TowerSize(32, 8, 32, 3, 16, head_width=8, quick_gelu=True)
    patch.setattr(tower, "tower_size", lambda n: tiny if n == "tiny-vit" else real(n))
    return "tiny-vit"


def crops(folder: Path, people: int = 6, frames: int = 3, signal: int = 60) -> Path:
    """Crops of made-up people, others in a folder of another name.

    In manipulated ones a square in the middle is brighter by `signal`.
    """
    rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
    for person in range(people):
        for frame in range(frames):
            real = rng.integers(60, 160, (32, 32, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            fake = real.copy()
            fake[64:192, 64:192] += np.uint8(signal)
            other = person ^ 1
            for path, pixels in (
                (f"real/{person:03d}_{frame}.jpg", real),
                (f"fake/{person:03d}_{other:03d}_{frame}.jpg", fake),
            ):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / path, quality=95)
    return folder


def prepared(folder: Path, people: int = 6, frames: int = 3, signal: int = 60) -> Path:
    """The same crops in DeepfakeBench's form, with masks: the square."""
    flat = crops(folder / "flat" / folder.name, people, frames, signal)
    mask = np.zeros((256, 256), np.uint8)
    mask[64:192, 64:192] = 255
    listed: dict[str, dict[str, object]] = {"toy_real": {}, "toy_fake": {}}
    for kind, videos in zip(("real", "fake"), listed.values(), strict=True):
        for path in sorted((flat / kind).glob("*.jpg")):
            person, frame = path.name[:3], int(path.stem.split("_")[-1])
            inner = f"{folder.name}/{kind}/frames/{person}/{frame:03d}.png"
            for name in (inner, inner.replace("frames", "masks")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).save(folder / inner)
            if kind == "fake":
                Image.fromarray(mask).save(folder / inner.replace("frames", "masks"))
            entry = videos.setdefault(
                person, {"label": f"toy_{kind}", "frames": [], "source": person, "group": person}
            )
            entry["frames"].append(inner)  # type: ignore[index]
    text = json.dumps({"toy": {label: {"train": videos} for label, videos in listed.items()}})
    (folder / "toy.json").write_text(text, "utf-8")
    shutil.rmtree(flat.parent)
    return folder


def killed_at(step: int) -> None:
    """Have this process killed, as by kill -9, once its log has the row of this step."""
    add = RunFolder.add

    def last(self: RunFolder, row: Row) -> None:
        add(self, row)
        if row.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.add = last  # type: ignore[method-assign]


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    if KILLED_AT in os.environ:
        killed_at(int(os.environ[KILLED_AT]))
    from deepscan.cli import run

    sys.exit(run(sys.argv[2:]))
