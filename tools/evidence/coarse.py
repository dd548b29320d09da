"""Teach a shipped detector to read a crop's copy without detail by a quarter of the tokens.

    python -m tools.evidence.coarse PACK OUT --weights weights/b16-evidence.safetensors

The detector, which reads copies at full size, tells what it finds in those of training crops: PLAIN views of
each, as they are, CHANGED ones, coloured, blurred, compressed, cut a little differently, and MIXTURES of two
of those, which stand for people whom nobody filmed. From that its coarse tower (deepscan/model/coarse.py)
learns to say the same of the small copies, each patch as much as the four it stands for. Nothing else
changes, and no label is looked at. The fifth of people that the detector did not see is left out here, too,
and shows what was learnt.

OUT receives the views with what was told of them, log.csv, and coarse.safetensors, for `tools.evidence.ship`.
Views are kept for later runs. With --start learning goes on from what an earlier run wrote.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from deepscan.files import part_file, weights_sha256
from deepscan.model import adapters, checkpoint, weights
from deepscan.model.coarse import ACROSS, shrunk
from deepscan.model.detector import Detector
from deepscan.model.header import read_header
from deepscan.shapes import Float
from tools.evidence import material
from tools.evidence.decoders import Decoders
from tools.evidence.geometry import GRID, VIEW_SIDE, plain_view
from tools.evidence.material import Material, Rows
from tools.evidence.train import autocast, in_bfloat16, rate_share
from tools.evidence.views import viewed

PLAIN, CHANGED = 1, 1  # views of each training crop
MIXTURES = 6000  # of two views; in all
STRENGTH, FILM = 0.5, 0.3  # of changes, see views.viewed
HELD = 800  # crops that show what was learnt
FRACTION = 16  # pixels of a copy are means of sixteen whole numbers

BATCH = 64
RATE = 1e-3  # of LayerNorms and places
RATE_EMBEDDED = (
    1e-4  # of embedding and positions, whose values are small: at half of RATE nothing was learnt
)
AVERAGE = 0.98
TOLD_EVERY = 100  # steps


@dataclass(frozen=True, slots=True)
class Told:
    """Copies of n views, and what the detector finds in them at full size."""

    copies: Float[Tensor, "n 3 56 56"]
    """RGB in 0..255, in sixteenths."""
    logit: Float[Tensor, " n"]
    evidence: Float[Tensor, "n 49"]
    """Of two by two patches together."""

    def __len__(self) -> int:
        return len(self.logit)

    def of(self, rows: Tensor) -> Told:
        """Some of them."""
        return Told(self.copies[rows], self.logit[rows], self.evidence[rows])


def main(arguments: list[str] | None = None) -> None:
    """Have the views told, and learn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("weights/b16-evidence.safetensors"))
    parser.add_argument("--steps", type=int, default=640)
    parser.add_argument("--start", type=Path, help="coarse.safetensors of an earlier run")
    parser.add_argument("--decoders", type=Path, default=Path("../shared/tools/decoders.py"))
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = coarse_of(asked.weights, device)
    if asked.start:
        detector.coarse.load_state_dict(load_file(asked.start))
    views = asked.out / "views.npz"
    if not views.exists():
        decoders = Decoders(asked.decoders, device)
        crops = material.load(asked.pack, device, decoders, say, copies=0)
        write(views, *told_of(detector, crops))
    learnt, held = read(views)
    say(f"{len(learnt)} views to learn from, {len(held)} of people held out")
    with (asked.out / "log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "held_correlation", "held_difference", "seconds"])
        for row in teach(detector, learnt, held, asked.steps):
            writer.writerow(row)
            file.flush()
            say(f"{row}")
    with part_file(asked.out / "coarse.safetensors") as part:
        state = detector.coarse.state_dict()
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, part)


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def coarse_of(path: Path, device: torch.device) -> Detector:
    """A shipped detector with a coarse tower at its start, the only part of it that trains."""
    header = read_header(path)
    base = weights.base_file(weights.base_by_hash(header.base["sha256"]))
    assert weights_sha256(base) == header.base["sha256"]
    detector = Detector(replace(header.settings, coarse=True))
    adapters.load_base(detector.tower, checkpoint.read_base(base))
    own = {name: value.float() for name, value in checkpoint.read_tensors(path).items()}
    detector.load_state_dict(own, strict=False)
    adapters.merge(detector.tower)
    place = detector.aggregation.place if detector.settings.prior else None
    detector.coarse.start(detector.tower, detector.readers, place)
    detector.requires_grad_(False).to(device)
    if in_bfloat16(device):
        adapters.cast_frozen(detector.tower, torch.bfloat16)
    detector.coarse.requires_grad_(True)
    return detector.eval()


def told_of(detector: Detector, crops: Material) -> tuple[Told, Told]:
    """Views of training crops and of some held out, with what the detector finds in their copies.

    The detector is at its start: as it ships, but for the coarse tower, which isn't asked.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    held = rng.permutation(np.flatnonzero(crops.fold == 0))[:HELD]
    rest = np.flatnonzero(crops.fold != 0)
    parts = [_views(detector, crops, rng.permutation(rest), False) for _ in range(PLAIN)]
    parts += [_views(detector, crops, rng.permutation(rest), True) for _ in range(CHANGED)]
    views = joined(parts)
    of_two = _told(detector, mixtures(views.copies, MIXTURES))
    return joined([views, of_two]), _views(detector, crops, held, False)


def mixtures(copies: Float[Tensor, "n 3 56 56"], count: int) -> Float[Tensor, "count 3 56 56"]:
    """Random copies with up to half of another in each, half of them mirrored, in sixteenths of a value.

    What one network says another can learn wherever the first can be asked, on faces of nobody, too (Beyer et
    al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022).
    """
    one, other = (torch.randint(len(copies), (count,)) for _ in range(2))
    share = torch.rand(count, 1, 1, 1) / 2
    mixed = torch.lerp(copies[one], copies[other], share)
    mirrored = torch.rand(count, 1, 1, 1) < 0.5
    return (torch.where(mirrored, mixed.flip(-1), mixed) * FRACTION).round() / FRACTION


def _views(detector: Detector, crops: Material, rows: Rows, changed: bool) -> Told:
    copies = []
    margin = detector.settings.view
    for part in torch.from_numpy(rows).to(crops.device).split(BATCH):
        images = crops.crops[part].float()
        if changed:
            seen, _ = viewed(images, torch.zeros_like(images[:, :1]), margin, STRENGTH, FILM)
        else:
            seen = plain_view(images, margin).round().clamp(0, 255)
        copies.append(shrunk(seen).cpu())
    return _told(detector, torch.cat(copies))


@torch.no_grad()
def _told(detector: Detector, copies: Float[Tensor, "n 3 56 56"]) -> Told:
    """What the detector finds in copies that are brought back to full size."""
    found = []
    for part in copies.split(BATCH):
        small = part.to(detector.mean.device) / 255
        whole = functional.interpolate(small, (VIEW_SIDE, VIEW_SIDE), mode="bilinear")
        with autocast(detector.mean.device):
            answer = detector.answer(whole, None, False)
        assert answer.evidence is not None
        squares = answer.evidence.float().view(-1, 1, GRID, GRID)
        evidence = functional.avg_pool2d(squares, ACROSS).flatten(1) * ACROSS**2
        found.append(Told(part, answer.logit.float().cpu(), evidence.cpu()))
    return joined(found)


def joined(parts: list[Told]) -> Told:
    """One after the other."""
    names = Told.__dataclass_fields__
    return Told(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def write(path: Path, learnt: Told, held: Told) -> None:
    """Keep views for later runs."""
    arrays = {}
    for kind, told in (("learnt", learnt), ("held", held)):
        for name in Told.__dataclass_fields__:
            values = getattr(told, name)
            if name == "copies":
                values = (values * FRACTION).round().short()
            arrays[f"{kind}/{name}"] = values.numpy()
    with part_file(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def read(path: Path) -> tuple[Told, Told]:
    """What `write` kept."""
    with np.load(path) as file:
        values = {name: torch.from_numpy(file[name]).float() for name in file.files}

    def told(kind: str) -> Told:
        own = {name: values[f"{kind}/{name}"] for name in Told.__dataclass_fields__}
        return Told(**own | {"copies": own["copies"] / FRACTION})

    return told("learnt"), told("held")


def teach(
    detector: Detector, learnt: Told, held: Told, steps: int
) -> Iterator[tuple[int, float, float, float, float]]:
    """Train the coarse tower; of some steps the mean loss since the last, and what `against` says of `held`.

    In the end it has the averaged weights.
    """
    generator = torch.Generator().manual_seed(0)
    embedded: list[Tensor] = [detector.coarse.embedding.weight, detector.coarse.positions]
    others = [p for p in detector.coarse.parameters() if all(p is not own for own in embedded)]
    params = [*embedded, *others]
    optimizer = torch.optim.Adam(
        [{"params": embedded, "rate": RATE_EMBEDDED}, {"params": others, "rate": RATE}],
        betas=(0.9, 0.99),
    )
    mean = [p.detach().clone() for p in params]
    start, losses = time.time(), list[float]()
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(learnt), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * rate_share(step, steps)
        value = loss(detector, learnt.of(rows))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
        kept = min(AVERAGE, (1 + step) / (10 + step))
        torch._foreach_lerp_(mean, [p.detach() for p in params], 1 - kept)
        if step % TOLD_EVERY == 0 or step == steps - 1:
            now = [p.detach().clone() for p in params]
            _put(params, mean)
            correlation, difference = against(detector, held)
            if step != steps - 1:
                _put(params, now)
            yield step, float(np.mean(losses)), correlation, difference, time.time() - start
            losses.clear()


@torch.no_grad()
def _put(params: list[Tensor], values: list[Tensor]) -> None:
    for parameter, value in zip(params, values, strict=True):
        parameter.copy_(value)


def loss(detector: Detector, told: Told) -> Float[Tensor, ""]:
    """How far logits are apart, squared up to 1 and by their length beyond, and squares of the evidence's."""
    device = detector.mean.device
    with autocast(detector.mean.device):
        answer = detector.of_small_copy(told.copies.to(device) / 255)
    assert answer.evidence is not None
    of_logits = functional.smooth_l1_loss(answer.logit, told.logit.to(device))
    return of_logits + (answer.evidence - told.evidence.to(device)).square().sum(1).mean()


@torch.no_grad()
def against(detector: Detector, told: Told) -> tuple[float, float]:
    """Correlation of logits with those that were told, and the root of their mean squared difference."""
    found = []
    for rows in torch.arange(len(told)).split(BATCH):
        with autocast(detector.mean.device):
            copies = told.copies[rows].to(detector.mean.device)
            found.append(detector.of_small_copy(copies / 255).logit.float().cpu())
    logit = torch.cat(found)
    correlation = torch.corrcoef(torch.stack([logit, told.logit]))[0, 1]
    return float(correlation), float((logit - told.logit).square().mean().sqrt())


if __name__ == "__main__":
    main()
