"""open_clip's image tower, opened up: all tokens of the last layer, and where [CLS] looked."""

from __future__ import annotations

from dataclasses import dataclass

import open_clip
import torch
from jaxtyping import Float
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from deepscan.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Tokens:
    """The last layer of a tower for a batch of crops."""

    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b p d"]
    cls_attention: Float[Tensor, "b p"]  # averaged over heads, renormalised over patches


class Tower(nn.Module):
    """A CLIP image tower that returns its last-layer tokens.

    Args:
        name: an open_clip model name of a plain ViT, as "ViT-B-16-quickgelu".
        patch_norm: whether patches, like [CLS], pass the tower's final LayerNorm.
    """

    def __init__(self, name: str, patch_norm: bool = True) -> None:
        super().__init__()
        self.visual = _build(name)
        self.patch_norm = patch_norm

    @property
    def width(self) -> int:
        """Token width d."""
        return self.visual.conv1.out_channels

    @property
    def input_side(self) -> int:
        """Side of the square input in pixels."""
        return int(self.visual.image_size[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, hence of the arithmetic."""
        return self.visual.conv1.weight.dtype

    def forward(self, images: Float[Tensor, "b 3 side side"]) -> Tokens:
        """Tokens of normalised images; the forward of open_clip's tower with the last block opened.

        [CLS]'s attention is computed from the last block's own projections for that one row: open_clip
        does not return attention, and the whole p x p map is not needed.
        """
        visual = self.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = visual.ln_pre(x + visual.positional_embedding)
        *earlier, last = visual.transformer.resblocks
        for block in earlier:
            x = block(x)
        attention = _cls_row(last, x)
        x = last(x)
        cls = visual.ln_post(x[:, 0])
        patches = visual.ln_post(x[:, 1:]) if self.patch_norm else x[:, 1:]
        return Tokens(cls, patches, attention)


def _cls_row(block: ResidualAttentionBlock, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b p"]:
    """[CLS]-to-patch attention of one residual block, given the block's input."""
    attention: nn.MultiheadAttention = block.attn
    b, n, d = x.shape
    heads = attention.num_heads
    normed = block.ln_1(x)
    w_q, w_k, _ = attention.in_proj_weight.chunk(3)
    b_q, b_k, _ = attention.in_proj_bias.chunk(3)
    q = nn.functional.linear(normed[:, 0], w_q, b_q).view(b, heads, 1, d // heads)
    k = nn.functional.linear(normed, w_k, b_k).view(b, n, heads, d // heads).permute(0, 2, 3, 1)
    scores = (q @ k).squeeze(2).float() / (d // heads) ** 0.5
    row = scores.softmax(-1).mean(1)[:, 1:]
    return row / row.sum(-1, keepdim=True)


def _build(name: str) -> VisionTransformer:
    """The image half of an open_clip model, without building its text half.

    open_clip.create_model would also make (and initialise) a text tower of 60 million parameters.
    """
    config = open_clip.get_model_config(name)
    if config is None:
        raise SettingsError(f"tower {name!r} is unknown to open_clip; see open_clip.list_models()")
    vision = dict(config["vision_cfg"])
    sizes = ("image_size", "layers", "width", "patch_size")
    if set(vision) - {*sizes, "head_width", "mlp_ratio"} or not isinstance(vision["layers"], int):
        raise SettingsError(
            f"tower {name!r} is not a plain ViT; deepscan works with ViT-B, -L and -H towers"
        )
    return VisionTransformer(
        **{size: vision[size] for size in sizes},
        heads=vision["width"] // vision.get("head_width", 64),
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        output_dim=config["embed_dim"],
        act_layer=QuickGELU if config.get("quick_gelu", False) else nn.GELU,
    )
