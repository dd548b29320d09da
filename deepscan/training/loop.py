"""Train a detector: one visible loop, and everything it must answer for.

Alone, or as one of several processes that torchrun started: the batch is then spread over them, and what
is learnt is the same.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from deepscan.data.crops import CropRow
from deepscan.errors import DataError, SettingsError
from deepscan.judgement import metrics
from deepscan.model import adapters
from deepscan.model.detector import Answer, Detector
from deepscan.records import Pixels
from deepscan.shapes import Bool, Float, Int, UInt8
from deepscan.training import losses
from deepscan.training.data import Order, Twins, batches, pictures
from deepscan.training.folder import Best, Row, RunFolder
from deepscan.training.settings import TrainSettings

# On a GPU, steps between two looks at the losses: each look waits for the GPU to finish.
GPU_LOG_EVERY = 10


@runtime_checkable
class Progress(Protocol):
    """Called with what is being done, how much of it is done, how much there is, and a note."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that share a run."""

    rank: int
    world: int
    device: str

    @property
    def leads(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did (its environment variables say so)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, device)
        return
    if device.startswith("cuda"):  # tell the processes' GPUs apart
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows to learn from, to select by, and to judge on at the end."""

    train: list[CropRow]
    val: list[CropRow]
    test: list[CropRow]


# --- the loop --------------------------------------------------------------------------------------


def fit(
    detector: Detector,
    splits: Splits,
    settings: TrainSettings,
    folder: RunFolder,
    ranks: Ranks,
    store: Callable[[Best], None],
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Best:
    """Train in place, from the newest state in `folder` on; `store` is called when validation finds a best.

    With a running average of the weights, that is what stands in `detector` while it is validated and
    stored.

    Raises:
        DataError: a loss is not finite; the last good state and the best checkpoint stay.
    """
    order = Order(
        splits.train,
        settings.pseudo,
        settings.seed,
        settings.blend.swap,
        settings.sampling == "natural",
    )
    units = settings.batch // order.size
    if units % (ranks.world * settings.accumulate):
        raise SettingsError(
            f"batch: {settings.batch} crops are not to be shared by {ranks.world} processes in"
            f" {settings.accumulate} part(s) of whole pairs"
        )
    per_epoch = max(1, len(splits.train) // settings.batch)
    steps = min(settings.steps or settings.epochs * per_epoch, settings.epochs * per_epoch)
    learner = Learner(detector, settings, ranks)
    average = [w.detach().clone() for w in learner.trained] if settings.average else []
    validate_every = settings.validate_every or per_epoch
    start, best = folder.restore(detector, learner.optimizer, average)
    if ranks.leads:
        folder.open_log(start)
    size = detector.tower.size
    patches = (size.image_size // size.patch_size) ** 2
    twins = Twins(
        order, settings.augment, size, settings.forged_share, settings.blend, settings.view
    )
    meter, epoch = Meter(settings.batch, start), list[Row]()
    pin = ranks.device != "cpu"
    shown = batches(twins, start, steps, units, ranks.rank, ranks.world, settings.workers, pin)
    for step, (crops, forged, known, labels) in enumerate(shown, start + 1):
        detector.train()
        lr = settings.rate(step - 1, steps)
        truth = Truth(forged, known, labels)
        norm, terms = learner.step(crops, truth, lr, _kept_patches(patches, settings, step))
        for part in terms:
            meter.add(part)
        if settings.average:
            _average(average, learner.trained, settings.average, step)

        judged = step % validate_every == 0 or step == steps
        saves = judged or step % settings.save_every == 0
        if not (ranks.device == "cpu" or saves or step % GPU_LOG_EVERY == 0):
            continue
        row = meter.read(step, -(-step // per_epoch), lr, norm, ranks)
        if judged:
            with _averaged(average, learner.trained) if settings.average else nullcontext():
                video_auc, frame_auc, loss_there = validate(detector, splits.val, settings, ranks)
                row = replace(
                    row,
                    validation_video_auc=video_auc,
                    validation_frame_auc=frame_auc,
                    validation_loss=loss_there,
                )
                here = Best(row.epoch, video_auc, loss_there)
                if best is None or here.rank > best.rank:
                    best = here
                    if ranks.leads:
                        store(best)
        epoch.append(row)
        if ranks.leads:
            folder.add(row)
            if saves:
                folder.save(detector, learner.optimizer, step, best, average)
            if judged:
                folder.draw()
                if say is not None:
                    say(_line(epoch, -(-steps // per_epoch)))
        if judged:
            epoch.clear()
        _tell(progress, "training", step, steps, _note(row, best))
        meter.pause()
    if best is None:
        raise DataError("nothing was trained: the run folder's state is already past the last step")
    return best


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a batch's crops, on the CPU: see `objective`."""

    forged: Bool[Tensor, "b p"]
    known: Bool[Tensor, " b"]
    labels: Float[Tensor, " b"]

    def chunk(self, parts: int) -> list[Truth]:
        """The same of the batch's parts."""
        every = (x.chunk(parts) for x in (self.forged, self.known, self.labels))
        return [Truth(*part) for part in zip(*every, strict=True)]


class Learner:
    """A detector, and what it takes a training step with: `fit` and the benches take the same ones."""

    def __init__(self, detector: Detector, settings: TrainSettings, ranks: Ranks) -> None:
        self._detector, self._settings, self._ranks = detector, settings, ranks
        self.trained = [p for p in detector.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        pretrained = settings.yardstick == "pretrained"
        self._yardstick = copy.deepcopy(detector.tower) if pretrained else None
        self._model = _wrapped(detector, settings, ranks)

    def step(
        self,
        crops: UInt8[Tensor, "b 256 256 3"],
        truth: Truth,
        lr: float,
        keep: Int[Tensor, " p"] | None = None,
    ) -> tuple[Float[Tensor, ""], list[dict[str, Tensor]]]:
        """One step at the rate `lr` on this process's crops, of whose patches those to `keep` are looked at.

        Returns:
            The gradient's norm before it is clipped, and of each part of the batch the objective's terms.
        """
        settings, ranks = self._settings, self._ranks
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        if keep is not None:
            truth = replace(truth, forged=truth.forged[:, keep])
            keep = keep.to(ranks.device)
        parts, terms = settings.accumulate, list[dict[str, Tensor]]()
        for part, known in zip(crops.chunk(parts), truth.chunk(parts), strict=True):
            waits = ranks.world > 1 and len(terms) < parts - 1
            with cast(DistributedDataParallel, self._model).no_sync() if waits else nullcontext():
                part = part.to(ranks.device, non_blocking=True)
                with _autocast(settings, ranks):
                    answer = self._model(part, keep)
                    if self._yardstick is not None:
                        answer = self._detector.held_to(answer, self._yardstick, part, keep)
                loss, found = objective(
                    self._detector, answer, known.forged, known.known, known.labels, settings, ranks
                )
                torch.autograd.backward(loss / parts)
            terms.append(found)
        norm = nn.utils.clip_grad_norm_(self.trained, settings.max_norm)
        self.optimizer.step()
        return norm, terms


def _kept_patches(count: int, settings: TrainSettings, step: int) -> Int[Tensor, " p"] | None:
    """Which of `count` patches a step looks at, a pure function of seed and step; None: all.

    One choice for the whole batch, so that the losses compare like with like.
    Source: Y. Li et al., "Scaling Language-Image Pre-training via Masking", CVPR 2023.
    """
    if settings.patches == 1:
        return None
    kept = max(1, round(settings.patches * count))
    rng = np.random.default_rng([settings.seed, 4, step])
    return torch.from_numpy(np.sort(rng.permutation(count)[:kept]))


@torch.no_grad()
def _average(average: list[Tensor], trained: Sequence[Tensor], decay: float, step: int) -> None:
    """Move the running average of the weights towards them; its first value is the weights' after a step.

    Early on it moves faster, so that the start, which nothing has learnt, is soon forgotten.
    """
    share = 1.0 if step == 1 else 1 - min(decay, step / (step + 9))
    torch._foreach_lerp_(average, list(trained), share)


@contextmanager
def _averaged(average: Sequence[Tensor], trained: Sequence[Tensor]) -> Iterator[None]:
    """The running average in the weights' place, for a while."""
    current = [weight.detach().clone() for weight in trained]
    with torch.no_grad():
        for weight, value in zip(trained, average, strict=True):
            weight.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(trained, current, strict=True):
                weight.copy_(value)


def objective(
    detector: Detector,
    answer: Answer,
    forged: Bool[Tensor, "b p"],
    known: Bool[Tensor, " b"],
    labels: Float[Tensor, " b"],
    settings: TrainSettings,
    ranks: Ranks,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The weighted sum of LossSettings' terms, and each term unweighted.

    What is known of the crops stays on the CPU: there it is counted, and no GPU is waited for. Terms that
    need the whole batch gather it from all ranks, and each rank answers for its own crops' share; DDP
    divides gradients by their number, hence the factor. Crops whose forged patches are not `known` take no
    part in MACL and localisation.
    """
    chosen, b = settings.losses(), len(answer.logit)
    whole = _gathered(labels, ranks)
    reals, own = int((whole == 0).sum()), slice(ranks.rank * b, (ranks.rank + 1) * b)
    value = binary_cross_entropy_with_logits(
        answer.logit, labels.to(ranks.device, non_blocking=True)
    )
    weighted = {"classification": (1.0, value)}
    terms: dict[str, Tensor] = {}
    if chosen.contrast != "none":
        patches = losses.gather(answer.patches)
        if chosen.contrast == "flcl":
            likely = losses.fake_likelihood(patches, whole, chosen.temperature)
            terms["snr"] = likely.snr
            value = losses.flcl(patches, whole, likely.weights, chosen.tau, own)
        else:
            masked = _gathered(known, ranks)
            before, until = int(masked[: own.start].sum()), int(masked[: own.stop].sum())
            forged = _gathered(forged, ranks)[masked]
            places = masked.nonzero().squeeze(1).to(ranks.device, non_blocking=True)
            value = losses.macl(patches[places], forged, chosen.tau, slice(before, until))
        weighted["contrast"] = chosen.flcl, ranks.world * value
    if chosen.alignment == "token-l2":
        assert answer.global_token is not None
        value = losses.token_l2(answer.cls, answer.global_token, labels, reals, chosen.squared)
        weighted["alignment"] = chosen.raal, ranks.world * value
    elif chosen.alignment != "none":
        assert answer.query_attention is not None
        value = losses.raal(
            answer.query_attention, answer.cls_attention, labels, chosen.alignment, reals
        )
        weighted["alignment"] = chosen.raal, ranks.world * value
    if chosen.localisation:
        assert answer.evidence is not None
        value = losses.localisation(detector.located(answer.evidence), forged, known)
        weighted["localisation"] = chosen.localisation, value
    if settings.orthogonality or settings.keeping:
        orthogonality, keeping = adapters.penalties(detector.tower)
        value = settings.orthogonality * orthogonality + settings.keeping * keeping
        weighted["penalty"] = 1.0, value
    loss = torch.stack([weight * term for weight, term in weighted.values()]).sum()
    terms |= {name: term.detach() for name, (_, term) in weighted.items()}
    return loss, terms | {"loss": loss.detach()}


def _gathered(x: Tensor, ranks: Ranks) -> Tensor:
    """All ranks' tensors of the CPU one after another; alone, the tensor."""
    return x if ranks.world == 1 else losses.gather(x.to(ranks.device)).cpu()


def validate(
    detector: Detector, rows: Sequence[CropRow], settings: TrainSettings, ranks: Ranks
) -> tuple[float, float, float]:
    """Video AUC, frame AUC and mean cross-entropy on all rows, which are shared out over the ranks."""
    mine = score(detector, rows[ranks.rank :: ranks.world], settings)
    gathered: list[Any] = [mine]
    if ranks.world > 1:
        gathered = [None] * ranks.world
        distributed.all_gather_object(gathered, mine)
    logits = np.empty(len(rows))
    for rank, part in enumerate(gathered):
        logits[rank :: ranks.world] = part
    labels = np.array([row.label for row in rows])
    _, of_video, scores = metrics.video_scores([row.video for row in rows], labels, logits)
    cross_entropy = np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean()
    return metrics.auc(of_video, scores), metrics.auc(labels, logits), float(cross_entropy)


@torch.no_grad()
def score(
    detector: Detector,
    rows: Sequence[CropRow],
    settings: TrainSettings,
    progress: Progress | None = None,
    stage: str = "validating",
    change: Callable[[Pixels], Pixels] | None = None,
) -> Float[np.ndarray, " n"]:
    """Logits of all rows' crops in their order, unaugmented, or as `change` leaves them."""
    detector.eval()
    device = detector.mean.device.type
    found: list[Tensor] = []
    for crops in pictures(rows, settings.batch, settings.workers, change, settings.blend):
        with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            found.append(detector(crops, patches=False).logit.float().cpu())
        _tell(progress, stage, sum(map(len, found)), len(rows))
    return torch.cat(found).numpy().astype(float) if found else np.empty(0)


def _wrapped(detector: Detector, settings: TrainSettings, ranks: Ranks) -> nn.Module:
    """The detector as it is called in training: compiled and spread, where asked for."""
    if ranks.device != "cpu" and settings.precision == "bfloat16":
        # What is left in float32, the losses foremost, may use TF32: ten bits where the tower has eight.
        torch.set_float32_matmul_precision("high")
    model: nn.Module = detector
    if settings.compile:
        model = cast(nn.Module, torch.compile(detector))
    if ranks.world > 1:
        # Not every parameter has a part in every score: CLIP's projection to text has none.
        model = DistributedDataParallel(model, find_unused_parameters=True)
    return model


def _autocast(settings: TrainSettings, ranks: Ranks) -> torch.autocast:
    kind = ranks.device.split(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=settings.precision == "bfloat16")


class Meter:
    """Means of the terms since the last reading, and how fast it went."""

    def __init__(self, batch: int, step: int) -> None:
        self._batch, self._step = batch, step
        self._sums: dict[str, Tensor] = {}
        self._parts = 0
        self._since = time.perf_counter()

    def add(self, terms: dict[str, Tensor]) -> None:
        """Note one part's terms; nothing is waited for."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._parts += 1

    def read(self, step: int, epoch: int, lr: float, norm: Tensor, ranks: Ranks) -> Row:
        """The row of the log for the steps since the last one, averaged over ranks.

        Raises:
            DataError: a term is not finite (the SNR may be: it has no value without spread).
        """
        values = torch.stack([*self._sums.values(), norm]).double() / self._parts
        values[-1] *= self._parts
        if ranks.world > 1:
            distributed.all_reduce(values)
            values /= ranks.world
        means = dict(zip([*self._sums, "gradient"], values.tolist(), strict=True))
        snr = means.pop("snr", None)
        if not all(np.isfinite(value) for value in means.values()):
            found = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise DataError(
                f"training diverged at step {step} ({found}); the last good state and the best checkpoint are"
                " kept; begin anew with a lower --lr, and look for damaged pictures in the data"
            )
        now = time.perf_counter()
        row = Row(
            step=step,
            epoch=epoch,
            lr=lr,
            loss=means["loss"],
            classification=means["classification"],
            contrast=means.get("contrast"),
            alignment=means.get("alignment"),
            localisation=means.get("localisation"),
            penalty=means.get("penalty"),
            snr=snr if snr is not None and np.isfinite(snr) else None,
            gradient=means["gradient"],
            images_per_second=self._batch * (step - self._step) / (now - self._since),
            memory_mb=_memory(ranks.device),
        )
        self._sums, self._parts, self._step = {}, 0, step
        return row

    def pause(self) -> None:
        """Leave out what was done since the reading: it was no training."""
        self._since = time.perf_counter()


def _memory(device: str) -> float | None:
    """Most memory this process has held, MB; None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _line(rows: Sequence[Row], epochs: int) -> str:
    """What was done since the last validation in one line: means over its rows of what each measured."""
    names: tuple[str, ...] = ("loss", "classification", "contrast", "alignment", "localisation")
    names += ("penalty", "snr", "validation_video_auc", "validation_loss")
    words = []
    for name in names:
        measured = [value for row in rows if (value := getattr(row, name)) is not None]
        if measured:
            words.append(f"{name} {np.mean(measured):.3f}")
    return f"epoch {rows[-1].epoch}/{epochs}: {', '.join(words)}, {_speed(rows[-1])}"


def _note(row: Row, best: Best | None) -> str:
    """A step in a few words, beside the progress bar."""
    words = [f"loss {row.loss:.3f}", _speed(row)]
    if row.snr is not None:
        words.append(f"SNR {row.snr:.2f}")
    if best is not None:
        words.append(f"best AUC {best.video_auc:.3f}")
    return ", ".join(words)


def _speed(row: Row) -> str:
    memory = "" if row.memory_mb is None else f", {row.memory_mb:.0f} MB"
    return f"{row.images_per_second:.1f} images/s{memory}"


def _tell(progress: Progress | None, stage: str, done: int, total: int, note: str = "") -> None:
    if progress is not None:
        progress(stage, done, total, note)
