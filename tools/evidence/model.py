"""The tower opened at several layers, with adapters, and heads that say what each patch speaks for.

b: crops; P: patches, 196; D: width, 768. Matrices of the base are bfloat16 on a GPU, all else float32.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.evidence.recipes import HeadSettings, TowerSettings

D, P, GRID = 768, 196, 14
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def _block(
    x: Tensor,
    l1w: Tensor,
    l1b: Tensor,
    wi: Tensor,
    bi: Tensor,
    wo: Tensor,
    bo: Tensor,
    l2w: Tensor,
    l2b: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    lora: tuple[Tensor, ...],
    scale: float,
) -> Tensor:
    """One layer of x (b, tokens, D), float32.

    `lora` is () or pairs (a, b) of q, k, v, out, fc1 and fc2 in turn.
    """
    half = wi.dtype
    n, t, d = x.shape
    y = F.layer_norm(x, (d,), l1w, l1b, 1e-5).to(half)
    qkv = F.linear(y, wi, bi)
    if lora:
        qkv = qkv + scale * torch.cat(
            [
                F.linear(F.linear(y, lora[2 * i].to(half)), lora[2 * i + 1].to(half))
                for i in range(3)
            ],
            -1,
        )
    q, k, v = qkv.view(n, t, 3, d // 64, 64).permute(2, 0, 3, 1, 4)
    a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
    o = F.linear(a, wo, bo)
    if lora:
        o = o + scale * F.linear(F.linear(a, lora[6].to(half)), lora[7].to(half))
    x = x + o
    y = F.layer_norm(x, (d,), l2w, l2b, 1e-5).to(half)
    h = F.linear(y, w1, b1)
    if lora:
        h = h + 1.702 * scale * F.linear(F.linear(y, lora[8].to(half)), lora[9].to(half))
    h = F.silu(h)  # QuickGELU(v) = silu(1.702 v) / 1.702; fc1 and fc2 come with the factors in them
    o = F.linear(h, w2, b2)
    if lora:
        o = o + scale / 1.702 * F.linear(F.linear(h, lora[10].to(half)), lora[11].to(half))
    return x + o


class Tower(nn.Module):
    """base: open_clip's names -> float32 tensors; shared, never changed."""

    def __init__(
        self,
        cfg: TowerSettings,
        base: dict[str, Tensor],
        device: torch.device,
        half: torch.dtype,
        seed: int,
    ) -> None:
        super().__init__()
        self.cfg, self.half = cfg, half
        g = torch.Generator().manual_seed(seed)
        norm = cfg.adapter in ("norm", "both")
        first = cfg.depth - (cfg.adapted or cfg.depth)
        self.first = first
        self.fixed = dict(base.items())  # already on the device, matrices in `half`
        self.norms = nn.ParameterDict()
        for i in range(first, cfg.depth):
            if norm:
                for ln in ("ln_1", "ln_2"):
                    for p in ("weight", "bias"):
                        self.norms[f"b{i}_{ln}_{p}"] = nn.Parameter(
                            base[f"transformer.resblocks.{i}.{ln}.{p}"].clone()
                        )
        if norm and first == 0:
            for p in ("weight", "bias"):
                self.norms[f"pre_{p}"] = nn.Parameter(base[f"ln_pre.{p}"].clone())
        self.lora = nn.ParameterDict()
        if cfg.adapter in ("lora", "both"):
            for i in range(first, cfg.depth):
                for j, (rows, cols) in enumerate(
                    ((D, D), (D, D), (D, D), (D, D), (4 * D, D), (D, 4 * D))
                ):
                    a = (torch.rand(cfg.rank, cols, generator=g) * 2 - 1) * cols**-0.5
                    self.lora[f"b{i}_{2 * j}"] = nn.Parameter(a.to(device))
                    self.lora[f"b{i}_{2 * j + 1}"] = nn.Parameter(
                        torch.zeros(rows, cfg.rank, device=device)
                    )
        if cfg.registers:
            self.registers = nn.Parameter(
                (0.02 * torch.randn(cfg.registers, D, generator=g)).to(device)
            )
        self.mean = torch.tensor(MEAN, device=device).view(3, 1, 1) * 255
        self.std = torch.tensor(STD, device=device).view(3, 1, 1) * 255

    def _looks(self, x: Tensor, k: str, l1: list[Tensor]) -> Tensor:
        """Where [CLS] looks among the patches in a layer, mean of heads, without a gradient."""
        with torch.no_grad():
            y = F.layer_norm(x, (D,), l1[0], l1[1], 1e-5)
            w, b = (
                self.fixed[k + "attn.in_proj_weight"].float(),
                self.fixed[k + "attn.in_proj_bias"].float(),
            )
            q = F.linear(y[:, :1], w[:D], b[:D]).view(len(x), 1, 12, 64).transpose(1, 2)
            kk = F.linear(y, w[D : 2 * D], b[D : 2 * D]).view(len(x), -1, 12, 64).transpose(1, 2)
            a = (q @ kk.mT / 8).softmax(-1).mean(1)[:, 0, 1 + self.cfg.registers :]
            return a / a.sum(-1, keepdim=True)

    def forward(
        self, images: Tensor, wanted: list[int], looks: bool = False
    ) -> dict[int | str, Tensor]:
        """images (b, 3, 224, 224) in 0..255 -> {layer: (b, 1 + P, d) float32}; [CLS] first."""
        f, half = self.fixed, self.half
        x = ((images - self.mean) / self.std).to(half)
        x = F.conv2d(x, f["conv1.weight"], stride=16).flatten(2).mT.float()
        x = (
            torch.cat([f["class_embedding"].expand(len(x), 1, -1), x], 1)
            + f["positional_embedding"]
        )
        n = self.norms
        pre = (
            (n["pre_weight"], n["pre_bias"])
            if "pre_weight" in n
            else (f["ln_pre.weight"], f["ln_pre.bias"])
        )
        x = F.layer_norm(x, (D,), pre[0], pre[1], 1e-5)
        r = self.cfg.registers
        if r:
            x = torch.cat([x[:, :1], self.registers.expand(len(x), -1, -1), x[:, 1:]], 1)
        out: dict[int | str, Tensor] = {}
        for i in range(max(wanted)):
            k = f"transformer.resblocks.{i}."
            l1 = [
                n.get(f"b{i}_ln_1_{p}") if f"b{i}_ln_1_{p}" in n else f[f"{k}ln_1.{p}"]
                for p in ("weight", "bias")
            ]
            l2 = [
                n.get(f"b{i}_ln_2_{p}") if f"b{i}_ln_2_{p}" in n else f[f"{k}ln_2.{p}"]
                for p in ("weight", "bias")
            ]
            if looks and i + 1 == max(wanted):
                out["cls_attention"] = self._looks(x, k, l1)
            lora = (
                tuple(self.lora[f"b{i}_{j}"] for j in range(12)) if f"b{i}_0" in self.lora else ()
            )
            x = _block(
                x,
                l1[0],
                l1[1],
                f[k + "attn.in_proj_weight"],
                f[k + "attn.in_proj_bias"],
                f[k + "attn.out_proj.weight"],
                f[k + "attn.out_proj.bias"],
                l2[0],
                l2[1],
                f[k + "mlp.c_fc.weight"],
                f[k + "mlp.c_fc.bias"],
                f[k + "mlp.c_proj.weight"],
                f[k + "mlp.c_proj.bias"],
                lora,
                self.cfg.alpha / self.cfg.rank,
            )
            if i + 1 in wanted:
                out[i + 1] = torch.cat([x[:, :1], x[:, 1 + r :]], 1) if r else x
        return out


class Head(nn.Module):
    """Tokens of layers -> logit (b,), evidence (b, P) that with a constant adds up to it, and more."""

    def __init__(
        self,
        cfg: HeadSettings,
        face: Tensor,
        seed: int,
        post: tuple[Tensor, Tensor],
        stats: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.cfg = cfg
        g = torch.Generator().manual_seed(seed + 1)
        self.lnw = nn.Parameter(
            torch.stack([post[0] if k == 12 else torch.ones(D) for k in cfg.layers])
        )
        self.lnb = nn.Parameter(
            torch.stack([post[1] if k == 12 else torch.zeros(D) for k in cfg.layers])
        )
        if cfg.standard and stats:
            with torch.no_grad():
                for i, k in enumerate(cfg.layers):
                    mean, std = stats[k]
                    self.lnw[i] = 1 / std
                    self.lnb[i] = -mean / std
        bound = D**-0.5
        rnd = lambda *s: (torch.rand(*s, generator=g) * 2 - 1) * bound
        if cfg.token in ("global", "avg"):
            self.query = nn.Parameter(0.02 * torch.randn(cfg.queries, D, generator=g))
            self.inw = nn.Parameter(rnd(3 * D, D) * (6 / 4) ** 0.5)  # xavier of (3d, d)
            self.inb = nn.Parameter(torch.zeros(3 * D))
            self.outw = nn.Parameter(rnd(D, D))
            self.outb = nn.Parameter(torch.zeros(D))
        self.w = nn.Parameter(rnd(D))
        self.b = nn.Parameter(torch.zeros(()))
        if cfg.token == "avg":
            self.wc = nn.Parameter(rnd(D))
        self.log_tau = nn.Parameter(torch.tensor(math.log(40.0)))
        self.patch_bias = nn.Parameter(torch.tensor(-2.0))
        if cfg.prior == "learn":
            self.place = nn.Parameter(
                (3 * (face.float() - 1))[None]
                .expand(cfg.heads if cfg.token != "mean" else 1, -1)
                .clone()
            )
        elif cfg.prior == "fixed":
            self.register_buffer("place", torch.where(face, 0.0, -1e4)[None])
        else:
            self.place = None

    def forward(self, feats: dict[int | str, Tensor]) -> dict[str, Tensor | None]:
        c = self.cfg
        x = torch.stack(
            [
                F.layer_norm(feats[k].float(), (D,), self.lnw[i], self.lnb[i], 1e-5)
                for i, k in enumerate(c.layers)
            ]
        ).mean(0)
        cls, z = x[:, 0], x[:, 1:]
        if c.token == "cls":
            return {"logit": cls @ self.w + self.b, "evidence": None, "z": z, "cls": cls}
        if c.token == "mean":
            r = z @ self.w
            a = (
                torch.full_like(r, 1 / P)
                if self.place is None
                else self.place.softmax(-1).expand(len(r), -1)
            )
            e = a * r
            return {
                "logit": e.sum(1) + self.b,
                "evidence": e,
                "reading": r + self.b,
                "attention": a,
                "z": z,
                "cls": cls,
                "constant": self.b,
            }
        h = c.heads
        wq, wk, wv = self.inw.chunk(3)
        bq, _, bv = self.inb.chunk(3)
        q = F.linear(self.query, wq, bq).view(-1, h, D // h).transpose(0, 1)  # (h, k, dh)
        folded = torch.einsum("hkc,hcd->hkd", q, wk.view(h, D // h, D)) * (D // h) ** -0.5
        u = (self.w @ self.outw).view(
            h, 1, D // h
        )  # the head's row, read back through the output projection
        value = (u @ wv.view(h, D // h, D))[:, 0]  # (h, d)
        both = z @ torch.cat([folded.flatten(0, 1), value]).T
        s = both[..., :-h].mT.unflatten(1, (h, -1))  # (b, h, k, P)
        if self.place is not None:
            s = s + self.place[:, None]
        each = s.softmax(-1)
        a = each.mean(2)  # (b, h, P)
        r = both[..., -h:].mT
        e = (a * r).sum(1)
        const = self.w @ (self.outw @ bv + self.outb) + self.b
        if c.token == "avg":
            const = const + cls @ self.wc
        reading = h * e / a.sum(1).clamp_min(1e-9) + const.detach().mean()
        return {
            "cls_attention": feats.get("cls_attention"),
            "logit": e.sum(1) + const,
            "evidence": e,
            "reading": reading,
            "attention": a.mean(1),
            "each": each.mean(1),
            "z": z,
            "cls": cls,
            "constant": const,
        }


def load_base(path: Path, device: torch.device, half: torch.dtype) -> dict[str, Tensor]:
    """The int8 base's matrices in `half`, the rest float32, of all twelve layers."""
    from safetensors.torch import load_file

    raw, out = load_file(path), {}
    for k, v in raw.items():
        if k.endswith(".scale") or k == "proj":
            continue
        if k + ".scale" in raw:
            v = v.float() * raw[k + ".scale"][:, None]
        if ".c_fc." in k:
            v = v * 1.702
        if k.endswith("c_proj.weight"):
            v = v / 1.702
        out[k] = v.float().to(device)
        if re.search(r"(in_proj|out_proj|c_fc|c_proj)[._](weight|bias)$", k) or k == "conv1.weight":
            out[k] = out[k].to(half)
    return out
