"""Material on the device, training, and what detectors are judged by.

b: crops of a batch; P: patches. Pictures are (n, 3, side, side) in 0..255; rows are indices of crops.
"""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tools.evidence import model as M
from tools.evidence import views as A
from tools.evidence.decoders import Decoders

SETS = ("pairs", "ffpp", "dfdc", "faces")
Say = Callable[[str], None]
Base = dict[str, Tensor]  # as model.load_base gives it
Stats = dict[int, tuple[Tensor, Tensor]]  # of each layer: mean and deviation of each channel
Found = dict[str, Any]  # logit, copy, evidence and attention: arrays, or None


@dataclass(frozen=True)
class Cfg:
    """A recipe: steps are of `batch` crops, half of them real."""

    name: str = "base"
    tower: M.TowerCfg = field(default_factory=M.TowerCfg)
    heads: tuple[M.HeadCfg, ...] = (M.HeadCfg(),)
    steps: int = 120
    batch: int = 128
    lr_norm: float = 1e-3
    lr_lora: float = 4e-4
    lr_head: float = 1e-3
    decay: float = 0.01
    pseudo: float = 0.5  # share of the manipulated crops
    kinds: tuple[float, ...] = (
        0.45,
        0.15,
        0.3,
        0.1,
    )  # over itself, another's, redrawn in a region, redrawn whole
    regions: tuple[float, ...] = (0.3, 0.3, 0.15, 0.2, 0.05)
    real_background: float = 0.15  # reals whose surroundings are redrawn
    margin: float = 1.0
    strength: float = 1.0
    film: float = 0.3
    average: float = 0.98
    smooth: float = 0.0
    sources: tuple[float, ...] = (
        0.2,
        0.15,
        0.25,
        0.4,
    )  # of real manipulations: pairs, ffpp, dfdc, methods
    seed: int = 0


class Material:
    """All crops, aligned, as uint8 on the device, and what is known of each."""

    def __init__(
        self,
        pack: Path,
        device: torch.device,
        decoders: Decoders | None,
        log: Say,
        limit: int | None = None,
    ) -> None:
        t = time.time()
        self.device = device
        z = zipfile.ZipFile(pack)
        rows = json.loads(z.read("index.json"))
        masks = np.load(io.BytesIO(z.read("masks.npy")))
        if limit:
            keep = np.random.default_rng(0).permutation(len(rows))[:limit]
            rows = [rows[i] for i in sorted(keep)]
        data = [z.read(r["name"]) for r in rows]
        with ThreadPoolExecutor(16) as pool:
            pictures = list(
                pool.map(lambda b: np.asarray(Image.open(io.BytesIO(b)).convert("RGB")), data)
            )
        log(f"decoded {len(rows)} in {time.time() - t:.1f} s")
        n = len(rows)
        self.rows = rows
        col = lambda k: np.array([r[k] for r in rows])
        self.label, self.source, self.kind = col("label"), col("source"), col("kind")
        self.video, self.person, self.fold, self.method = (
            col("video"),
            col("person"),
            col("fold"),
            col("method"),
        )
        self.group = np.where(np.isin(self.source, SETS), self.source, "methods")
        points = torch.tensor([r["points"] for r in rows], dtype=torch.float32, device=device)
        self.bank = torch.zeros(n, 3, 256, 256, dtype=torch.uint8, device=device)
        raw = torch.zeros(n, 64, 64, dtype=torch.bool)
        known = torch.zeros(n, dtype=torch.bool)
        for i, r in enumerate(rows):
            if r["mask"] >= 0:
                raw[i] = torch.from_numpy(np.unpackbits(masks[r["mask"]]).reshape(64, 64) > 0)
                known[i] = True
        raw = raw.to(device)
        template = A.TEMPLATE.to(device)
        self.points = torch.zeros_like(points)
        sides = np.array([p.shape[0] for p in pictures])
        as_is = (sides == 256) & (self.source != "ffpp")
        self.truth = torch.zeros(n, 64, 64, dtype=torch.uint8, device=device)
        for part in np.array_split(np.flatnonzero(as_is), max(1, as_is.sum() // 512)):
            if len(part):
                x = torch.from_numpy(np.stack([pictures[i] for i in part])).to(device)
                idx = torch.from_numpy(part).to(device)
                self.bank[idx] = x.permute(0, 3, 1, 2).contiguous()
                self.points[idx] = points[idx]
                self.truth[idx] = raw[idx].byte() * 255
        for side in sorted(set(sides[~as_is])):
            these = np.flatnonzero(~as_is & (sides == side))
            for part in np.array_split(these, max(1, len(these) // 256)):
                x = (
                    torch.from_numpy(np.stack([pictures[i] for i in part]))
                    .to(device)
                    .permute(0, 3, 1, 2)
                    .float()
                )
                idx = torch.from_numpy(part).to(device)
                p = points[idx] * (256 / int(side))
                back = _similarity(
                    template.expand(len(part), -1, -1), p
                )  # crop -> picture, in 256ths of the picture
                y = A.sampled(x, back, 256, mode="bicubic")
                self.bank[idx] = y.round().clamp(0, 255).byte()
                forth = _similarity(p, template.expand(len(part), -1, -1))
                self.points[idx] = torch.cat([p, torch.ones_like(p[..., :1])], -1) @ forth
                self.truth[idx] = (
                    A.sampled(raw[idx][:, None].float(), back, 64)[:, 0].mul(255).round().byte()
                )
        self.known = known.to(device)
        ones = torch.ones(n, dtype=torch.long, device=device)
        hull = lambda region: torch.cat(
            [
                A.inside(
                    A.outlines_of(
                        self.points[s : s + 256], ones[s : s + 256] * A.REGIONS.index(region)
                    ),
                    64,
                )
                .mul(255)
                .byte()
                for s in range(0, n, 256)
            ]
        )
        self.hull, inner, lower = hull("face"), hull("inner"), hull("lower")
        lips = torch.from_numpy(self.kind == "lip_sync").to(device)
        self.core = torch.where(
            lips.view(-1, 1, 1), lower, inner
        )  # manipulated for sure, if the crop is
        self.colours = torch.stack(
            [self.bank[i : i + 1, :, 96:200, 80:176].float().mean((2, 3))[0] for i in range(n)]
        )
        self.redrawn: Tensor | None = None
        self.redrawn_kind = self.redrawn_index = np.zeros(0, int)
        self.stats: Stats = {}
        log(
            f"{n} crops on {device} after {time.time() - t:.1f} s: "
            f"{dict(zip(*np.unique(self.group, return_counts=True), strict=True))}"
        )
        if decoders is not None:
            self.redraw_bank(decoders, log)

    def redraw_bank(self, decoders: Decoders, log: Say, count: int = 3000, size: int = 64) -> None:
        """Real crops redrawn, `count` of each sort taken in turn, as uint8."""
        t = time.time()
        reals = np.flatnonzero(self.label == 0)
        rng = np.random.default_rng(0)
        reals = rng.permutation(reals)
        per = max(1, count // len(decoders.KINDS))
        out, of, which = [], [], []
        at = 0
        for k, kind in enumerate(decoders.KINDS):
            these = np.take(reals, np.arange(at, at + per), mode="wrap")
            at += per
            for s in range(0, per, size):
                idx = torch.from_numpy(these[s : s + size]).to(self.device)
                y = decoders.redraw(self.bank[idx].float() / 255, kind)
                out.append((y.float().clamp(0, 1) * 255).round().byte())
                of.append(idx)
                which += [k] * len(idx)
        self.redrawn = torch.cat(out)
        self.redrawn_kind = np.array(which)
        self.redrawn_index = np.concatenate([o.cpu().numpy() for o in of])
        log(f"{len(self.redrawn)} redrawn in {time.time() - t:.1f} s")


def _similarity(source: Tensor, target: Tensor) -> Tensor:
    """(n, 3, 2) least-squares similarity."""
    ms, mt = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - ms, target - mt
    q = (s**2).sum((1, 2))
    a = (s * t).sum((1, 2)) / q
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / q
    linear = torch.stack([torch.stack([a, b], -1), torch.stack([-b, a], -1)], 1)
    return torch.cat([linear, mt - ms @ linear], 1)


class Sampler:
    """Which crops a step shows; numpy alone."""

    def __init__(self, mat: Material, keep: np.ndarray, cfg: Cfg, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 7])
        self.cfg, self.mat = cfg, mat
        usable = np.flatnonzero(keep)
        fakes = usable[mat.label[usable] == 1]
        reals = usable[mat.label[usable] == 0]
        share = dict(zip(("pairs", "ffpp", "dfdc", "methods"), cfg.sources, strict=False))
        self.fakes, self.fake_p = fakes, self._weights(fakes, share)
        self.reals, self.real_p = (
            reals,
            self._weights(
                reals, {"pairs": 0.12, "ffpp": 0.12, "dfdc": 0.3, "faces": 0.2, "methods": 0.26}
            ),
        )
        self.by_source = {s: reals[mat.source[reals] == s] for s in np.unique(mat.source[reals])}
        self.method_reals = reals[mat.group[reals] == "methods"]
        allowed = (
            np.isin(mat.redrawn_index, reals) if mat.redrawn is not None else np.zeros(0, bool)
        )
        self.redrawn = np.flatnonzero(allowed)
        if len(self.redrawn):
            p = np.ones(len(self.redrawn))
            w = dict(zip(reals, self.real_p, strict=False))
            p = np.array([w[mat.redrawn_index[i]] for i in self.redrawn])
            self.redrawn_p = p / p.sum()
            whole = np.char.startswith(
                np.array([("taef2" if k < 3 else "other") for k in mat.redrawn_kind[self.redrawn]]),
                "taef2",
            )
            self.whole_p = np.where(whole, self.redrawn_p, 0)
            self.whole_p = (
                self.whole_p / self.whole_p.sum() if self.whole_p.sum() else self.redrawn_p
            )

    def _weights(self, which: np.ndarray, share: dict[str, float]) -> np.ndarray:
        p = np.zeros(len(which))
        for group, s in share.items():
            inside = self.mat.group[which] == group
            if not inside.any():
                continue
            if group == "methods":
                src = self.mat.source[which]
                for name in np.unique(src[inside]):
                    here = inside & (src == name)
                    meth = self.mat.method[which]
                    for m in np.unique(meth[here]):
                        h = here & (meth == m)
                        p[h] = math.sqrt(h.sum()) / h.sum()
                p[inside] *= s / p[inside].sum()
            else:
                p[inside] = s / inside.sum()
        return p / p.sum() if p.sum() else p

    def draw(self, half: int) -> tuple[np.ndarray, ...]:
        """Rows of a batch: true fakes, their reals, pseudo-fakes' reals, donors, kinds and redrawn ones, then
        which reals get redrawn surroundings, and whose.
        """
        r, c, m = self.rng, self.cfg, self.mat
        n_pseudo = round(half * c.pseudo)
        n_true = half - n_pseudo
        fakes = r.choice(self.fakes, n_true, p=self.fake_p) if n_true else np.zeros(0, int)
        pairs = []
        for f in fakes:
            same = self.by_source.get(m.source[f])
            if same is not None and (len(same) >= 6 or r.random() < 0.5):
                own = same[m.person[same] == m.person[f]] if r.random() < 0.6 else same
                pairs.append(r.choice(own if len(own) else same))
            elif m.group[f] == "methods" and len(self.method_reals) and r.random() < 0.6:
                pairs.append(r.choice(self.method_reals))
            else:
                pairs.append(r.choice(self.reals, p=self.real_p))
        kinds = r.choice(4, n_pseudo, p=c.kinds)
        if not len(self.redrawn):
            kinds = np.minimum(kinds, 1)
        bases = r.choice(self.reals, n_pseudo, p=self.real_p) if n_pseudo else np.zeros(0, int)
        redrawn = np.zeros(n_pseudo, int)
        for i in np.flatnonzero(kinds >= 2):
            redrawn[i] = r.choice(self.redrawn, p=self.whole_p if kinds[i] == 3 else self.redrawn_p)
            bases[i] = m.redrawn_index[redrawn[i]]
        donors = r.choice(self.reals, n_pseudo, p=self.real_p) if n_pseudo else np.zeros(0, int)
        surround = (
            np.flatnonzero(r.random(n_true) < c.real_background)
            if len(self.redrawn)
            else np.zeros(0, int)
        )
        other = (
            r.choice(self.redrawn, len(surround), p=self.redrawn_p)
            if len(surround)
            else np.zeros(0, int)
        )
        reals = np.array(pairs, int)
        if len(surround):
            reals[surround] = m.redrawn_index[other]
        return fakes, reals, bases, donors, kinds, redrawn, surround, other


def make_batch(mat: Material, sampler: Sampler, half: int, cfg: Cfg) -> tuple[Tensor, ...]:
    """images (b, 3, 224, 224), labels, target (b, P), weight (b, P), core, hull, ok (b,)."""
    dev = mat.device
    fakes, reals, bases, _donors, kinds, redrawn, surround, other = sampler.draw(half)
    t = lambda a: torch.from_numpy(np.asarray(a)).to(dev, non_blocking=True)
    up = lambda m: F.interpolate(m[:, None].float() / 255, (256, 256), mode="bilinear")
    idx = t(np.concatenate([fakes, reals, bases]))
    x = mat.bank[idx].float()
    n, m, p = len(fakes), len(reals), len(bases)
    hull = up(mat.hull[idx])
    corem = up(mat.core[idx])
    tr = up(mat.truth[idx[:n]]) if n else torch.zeros(0, 1, 256, 256, device=dev)
    xf, xr, xb = x[:n], x[n : n + m], x[n + m :]
    if len(surround):
        s = t(surround)
        again = mat.redrawn[t(other)].float()
        w = A.gaussian(1 - hull[n : n + m][s], torch.full((len(s),), 5.0, device=dev))
        xr = xr.clone()
        xr[s] = xr[s] + w * (again - xr[s])
    if p:
        pts = mat.points[idx[n + m :]]
        # of another's faces the nearest in colour of a few
        cand = t(
            np.random.default_rng(int(sampler.rng.integers(2**31))).choice(sampler.reals, (p, 24))
        )
        far = (mat.colours[cand] - mat.colours[idx[n + m :]][:, None]).norm(dim=2)
        d = cand[torch.arange(p, device=dev), far.argmin(1)]
        drawn = mat.redrawn[t(redrawn)].float() if mat.redrawn is not None else xb
        fake, twin, weight, seen = A.pseudo(
            xb, pts, mat.bank[d].float(), mat.points[d], drawn, t(kinds), cfg.regions
        )
        same = A.chance(p, 0.5, dev)
        twin = A.pick(same, xb, twin)
        images = torch.cat([xf, fake, xr, twin])
        whole = t(kinds) == 3
        zero = torch.zeros(m + p, 1, 256, 256, device=dev)
        truth = torch.cat([tr, weight, zero])
        known = torch.cat(
            [mat.known[idx[:n]], ~whole, torch.ones(m + p, dtype=torch.bool, device=dev)]
        )
        core = torch.cat([corem[:n], corem[n + m :], zero])
        hull = torch.cat([hull[:n], hull[n + m :], hull[n:]])
        ok = torch.cat(
            [
                torch.ones(n, dtype=torch.bool, device=dev),
                seen,
                torch.ones(m + p, dtype=torch.bool, device=dev),
            ]
        )
    else:
        images = torch.cat([xf, xr])
        zero = torch.zeros(m, 1, 256, 256, device=dev)
        truth = torch.cat([tr, zero])
        known = torch.cat([mat.known[idx[:n]], torch.ones(m, dtype=torch.bool, device=dev)])
        core = torch.cat([corem[:n], zero])
        hull = torch.cat([hull[:n], hull[n:]])
        ok = torch.ones(n + m, dtype=torch.bool, device=dev)
    labels = torch.cat([torch.ones(n + p, device=dev), torch.zeros(m + p, device=dev)])
    masks = torch.cat([truth, core, hull], 1)
    images, masks = A.viewed(images, masks, cfg.margin, strength=cfg.strength, film=cfg.film)
    share = F.avg_pool2d(masks, 16).flatten(2)  # (b, 3, P)
    return images, labels, share[:, 0], known, share[:, 1], share[:, 2], ok


def losses(
    out: dict[str, Any],
    cfg: M.HeadCfg,
    labels: Tensor,
    target: Tensor,
    known: Tensor,
    core: Tensor,
    hull: Tensor,
    ok: Tensor,
    smooth: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The crop's, the patches' and the others' terms of one head."""
    want = labels * (1 - 2 * smooth) + smooth
    okf = ok.float()
    crop = (
        F.binary_cross_entropy_with_logits(out["logit"], want, reduction="none") * okf
    ).sum() / okf.sum()
    total, parts = crop, {"crop": crop.detach()}
    if out["evidence"] is not None and cfg.patch != "none":
        if cfg.patch == "evidence":
            logit = out["evidence"] * out["log_tau"].exp() + out["patch_bias"]
        else:
            logit = out["reading"]
        assumed = (~known[:, None] & (core > 0.6)).float() * cfg.assumed
        t = torch.where(known[:, None], target, torch.ones_like(target))
        w = torch.where(known[:, None], torch.ones_like(target), assumed) * okf[:, None]
        patch = (
            F.binary_cross_entropy_with_logits(logit, t, reduction="none") * w
        ).sum() / w.sum().clamp_min(1)
        total = total + cfg.patch_weight * patch
        parts["patch"] = patch.detach()
        if cfg.mil:
            some = ~known & (labels > 0) & ok
            inside = logit.masked_fill(hull < 0.5, -30.0)
            top = inside.topk(10, 1).values.mean(1)
            mil = (F.softplus(-top) * some.float()).sum() / some.float().sum().clamp_min(1)
            total = total + cfg.mil * mil
    if cfg.flcl or cfg.macl:
        z = F.normalize(out["z"].float(), dim=-1)
        pick = torch.randint(0, z.shape[1], (len(z), 24), device=z.device)
        zs = torch.gather(z, 1, pick[..., None].expand(-1, -1, z.shape[-1]))
        if cfg.flcl:
            raw = out["z"].float()
            f, r = labels > 0, labels == 0
            mf, mr = raw[f].mean((0, 1)), raw[r].mean((0, 1))
            delta = zs @ (F.normalize(mf, dim=0) - F.normalize(mr, dim=0))
            w = torch.sigmoid(delta / 0.1).detach() * f[:, None]
            forged = f[:, None].expand(-1, 24)
        else:
            forged = (torch.gather(target, 1, pick) > 0.5) & known[:, None]
            w = forged.float()
        flat, fl, wl = zs.flatten(0, 1), forged.flatten(), w.flatten()
        s = flat @ flat.T / 0.1
        s = s.masked_fill(torch.eye(len(s), dtype=torch.bool, device=s.device), -1e4)
        pos = s.masked_fill(~fl[None], -1e4).logsumexp(1)
        con = -(wl * (pos - s.logsumexp(1))).sum() / fl.sum().clamp_min(1)
        total = total + (cfg.flcl or cfg.macl) * con
        parts["contrast"] = con.detach()
    if cfg.raal and "attention" in out:
        real = labels == 0
        q = out["attention"][real]
        c = out["cls_attention"][real]
        kl = (q * (q.clamp_min(1e-12).log() - c.clamp_min(1e-12).log())).sum(-1).mean()
        total = total + cfg.raal * kl
    return total, parts


def face_patches(mat: Material, margin: float) -> Tensor:
    """(P,) whether a patch lies on the template's face, for priors."""
    pts = A.TEMPLATE.to(mat.device)[None]
    ring = A.outlines_of(pts, torch.zeros(1, dtype=torch.long, device=mat.device))
    m = A.inside(ring, 256)[:, None]
    return (F.avg_pool2d(A.plain(m, margin), 16).flatten() > 0.2).cpu()


@torch.no_grad()
def measure(base: Base, mat: Material, half: torch.dtype, count: int = 256) -> None:
    """Of each layer: mean and deviation of each channel of its normalised patches, over crops of all sets."""
    tower = M.Tower(M.TowerCfg("none", depth=12), base, mat.device, half, 0)
    idx = torch.from_numpy(
        np.random.default_rng(3).choice(len(mat.rows), min(count, len(mat.rows)), replace=False)
    ).to(mat.device)
    seen: dict[int, list[Tensor]] = {k: [] for k in range(1, 13)}
    for part in idx.split(64):
        for k, x in tower(A.plain(mat.bank[part].float(), 1.0), list(seen)).items():
            seen[k].append(F.layer_norm(x[:, 1:].float(), (M.D,)).flatten(0, 1))
    mat.stats = {}
    for k, parts in seen.items():
        x = torch.cat(parts)
        mat.stats[k] = (x.mean(0).cpu(), x.std(0).clamp_min(0.05).cpu())


def build(
    cfg: Cfg, base: Base, mat: Material, half: torch.dtype
) -> tuple[M.Tower, torch.nn.ModuleList]:
    """Tower and heads as training finds them."""
    post = (base["ln_post.weight"].float().cpu(), base["ln_post.bias"].float().cpu())
    tower = M.Tower(cfg.tower, base, mat.device, half, cfg.seed).to(mat.device)
    face = face_patches(mat, cfg.margin)
    heads = torch.nn.ModuleList(
        M.Head(h, face, cfg.seed * 1000 + i, post, mat.stats) for i, h in enumerate(cfg.heads)
    ).to(mat.device)
    return tower, heads


def train(
    cfg: Cfg,
    base: Base,
    mat: Material,
    keep: np.ndarray,
    half: torch.dtype,
    log: Say,
    deadline: float | None = None,
) -> tuple[M.Tower, torch.nn.ModuleList, dict[str, Any]]:
    """Train on the crops to keep.

    Returns:
        Tower and heads with averaged weights, and what was seen on the way.
    """
    torch.manual_seed(cfg.seed)
    dev = mat.device
    tower, heads = build(cfg, base, mat, half)
    sampler = Sampler(mat, keep, cfg, cfg.seed)
    groups: list[dict[str, Any]] = [
        {
            "params": [p for k, p in tower.named_parameters() if not k.startswith("lora")],
            "lr": cfg.lr_norm,
            "weight_decay": 0.0,
        },
        {
            "params": [p for k, p in tower.named_parameters() if k.startswith("lora")],
            "lr": cfg.lr_lora,
            "weight_decay": cfg.decay,
        },
        {"params": list(heads.parameters()), "lr": cfg.lr_head, "weight_decay": cfg.decay},
    ]
    groups = [g for g in groups if g["params"]]
    opt = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=dev.type == "cuda")
    rates = [g["lr"] for g in groups]
    params = [p for g in groups for p in g["params"]]
    mean = [p.detach().clone() for p in params]
    wanted = sorted({k for h in cfg.heads for k in h.layers})
    frozen = not list(tower.parameters())
    history, t = [], time.time()
    warm = max(5, cfg.steps // 12)
    for step in range(cfg.steps):
        with torch.no_grad():
            images, labels, target, known, core, hull, ok = make_batch(
                mat, sampler, cfg.batch // 2, cfg
            )
        f = (
            (step + 1) / warm
            if step < warm
            else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, cfg.steps - warm)))
        )
        for g, r in zip(groups, rates, strict=False):
            g["lr"] = r * f
        with torch.set_grad_enabled(not frozen):
            feats = tower(images, wanted, any(h.raal for h in cfg.heads))
        total, seen = torch.zeros((), device=dev), []
        for h, head in zip(cfg.heads, heads, strict=False):
            out = head(feats)
            out["cls_attention"] = feats.get("cls_attention")
            out["log_tau"], out["patch_bias"] = head.log_tau, head.patch_bias
            loss, parts = losses(out, h, labels, target, known, core, hull, ok, cfg.smooth)
            total = total + loss
            seen.append(parts)
        opt.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0 * len(heads) ** 0.5, foreach=True)
        opt.step()
        a = min(cfg.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(mean, [p.detach() for p in params], 1 - a)
        if step % max(1, cfg.steps // 8) == 0 or step == cfg.steps - 1:
            history.append(
                [step, float(norm)]
                + [{k: round(float(v), 4) for k, v in s.items()} for s in seen[:1]]
            )
        if deadline and time.time() > deadline:
            log(f"{cfg.name}: stopped at step {step} by the clock")
            break
    with torch.no_grad():
        for p, m in zip(params, mean, strict=False):
            p.copy_(m)
    if dev.type == "cuda":
        torch.cuda.synchronize()
    took = time.time() - t
    return (
        tower,
        heads,
        {
            "history": history,
            "seconds": round(took, 2),
            "crops_per_s": round(cfg.batch * (step + 1) / took),
        },
    )


@torch.no_grad()
def score(
    cfg: Cfg,
    tower: M.Tower,
    heads: torch.nn.ModuleList,
    mat: Material,
    rows: np.ndarray,
    reference: bool = True,
    blank: bool = False,
    size: int = 256,
) -> list[Found]:
    """Per head: logits, logits of copies without detail, evidence and attention of the rows' crops."""
    wanted = sorted({k for h in cfg.heads for k in h.layers})
    found: list[Found] = [
        {k: [] for k in ("logit", "copy", "evidence", "attention")} for _ in heads
    ]
    for s in range(0, len(rows), size):
        idx = torch.from_numpy(rows[s : s + size]).to(mat.device)
        x = mat.bank[idx].float()
        if blank:
            m = F.interpolate(mat.hull[idx][:, None].float() / 255, (256, 256), mode="bilinear")
            m = A.gaussian(m, torch.full((len(idx),), 6.0, device=mat.device)).clamp_max(0.5) * 2
            x = x + m * (128 - x)
        x = A.plain(x, cfg.margin)
        x = x.clamp(0, 255)
        feats = tower(x, wanted)
        small = None
        if reference:
            small = tower(F.interpolate(F.avg_pool2d(x, 4), (224, 224), mode="bilinear"), wanted)
        for f, head in zip(found, heads, strict=False):
            out = head(feats)
            f["logit"].append(out["logit"].float())
            if out["evidence"] is not None:
                f["evidence"].append(out["evidence"].float())
                f["attention"].append(out["attention"].float())
            if small is not None:
                f["copy"].append(head(small)["logit"].float())
    return [{k: torch.cat(v).cpu().numpy() if v else None for k, v in f.items()} for f in found]


def auc(label: np.ndarray, value: np.ndarray) -> float:
    """Area under the ROC curve; ties count half; nan where a class is missing."""
    order = np.argsort(value, kind="mergesort")
    v, truth = value[order], label[order]
    ranks = np.arange(1, len(v) + 1, dtype=float)
    _, inv, cnt = np.unique(v, return_inverse=True, return_counts=True)
    sums = np.zeros(len(cnt))
    np.add.at(sums, inv, ranks)
    ranks = (sums / cnt)[inv]
    p, n = truth.sum(), (1 - truth).sum()
    return float((ranks[truth == 1].sum() - p * (p + 1) / 2) / (p * n)) if p and n else float("nan")


def by_video(
    mat: Material, rows: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the rows' videos, the mean value of each, and a row of each."""
    names = np.array([f"{a}|{b}" for a, b in zip(mat.source[rows], mat.video[rows], strict=False)])
    u, inv = np.unique(names, return_inverse=True)
    v = np.bincount(inv, value) / np.bincount(inv)
    first = np.array([np.flatnonzero(inv == i)[0] for i in range(len(u))])
    return u, v, rows[first]


def judged(mat: Material, rows: np.ndarray, found: Found, margin: float) -> dict[str, Any]:
    """What a head's scores of these rows are worth: AUC by kind, and where its maps lie."""
    said = {}
    for name, value in (
        ("auc", found["logit"]),
        ("auc_ref", None if found["copy"] is None else found["logit"] - 0.5 * found["copy"]),
    ):
        if value is None:
            continue
        _, v, first = by_video(mat, rows, value)
        lab, k = mat.label[first], mat.kind[first]
        said[name] = round(auc(lab, v), 4)
        if name == "auc":
            said["videos"] = [int((lab == 0).sum()), int(lab.sum())]
        said[name + "_kinds"] = {
            str(kind): [
                round(auc(lab[(lab == 0) | (k == kind)], v[(lab == 0) | (k == kind)]), 3),
                int((k == kind).sum()),
            ]
            for kind in np.unique(k[lab == 1])
        }
    e = found["evidence"]
    if e is not None:
        idx = torch.from_numpy(rows).to(mat.device)
        shares = []
        for source in (mat.hull, mat.truth):
            m = torch.cat(
                [
                    F.interpolate(
                        source[idx[s : s + 256]][:, None].float() / 255, (256, 256), mode="bilinear"
                    )
                    for s in range(0, len(idx), 256)
                ]
            )
            shares.append(F.avg_pool2d(A.plain(m, margin), 16).flatten(1).cpu().numpy())
        hull, truth = shares
        label = mat.label[rows]
        top = hull[np.arange(len(rows)), e.argmax(1)] > 0.25
        said["peak_fake"] = round(float(top[label == 1].mean()), 4)
        some = (label == 0) & (e.max(1) > 0)
        said["peak_real"] = round(float(top[some].mean()), 4) if some.any() else None
        pos = np.clip(e, 0, None)
        said["positive_on_face"] = round(
            float((pos * (hull > 0.25))[label == 1].sum() / max(1e-9, pos[label == 1].sum())), 4
        )
        a = found["attention"]
        said["attention_peak_fake"] = round(
            float((hull[np.arange(len(rows)), a.argmax(1)] > 0.25)[label == 1].mean()), 4
        )
        said["attention_on_face"] = round(float((a * (hull > 0.25)).sum(1)[label == 1].mean()), 4)
        known = mat.known[idx].cpu().numpy() & (label == 1)
        if known.any():
            t, ee = (truth[known] > 0.5), e[known]
            said["pixel_auc"] = round(auc(t.ravel().astype(int), ee.ravel()), 4)
            said["pixel_auc_each"] = round(
                float(np.nanmean([auc(tt.astype(int), x) for tt, x in zip(t, ee, strict=False)])), 4
            )
    return said
