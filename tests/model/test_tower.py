"""CLIP's image tower on random weights: its tokens and attention are open_clip's, on any processor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import QuickGELU, VisionTransformer

from deepscan.errors import SettingsError
from deepscan.model import adapters, packed, processor
from deepscan.model.tower import QuickGELU as OwnQuickGELU
from deepscan.model.tower import Tower, TowerSize


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def open_clips(size: TowerSize) -> Any:
    """The same tower as open_clip makes it: the oracle."""
    return VisionTransformer(
        image_size=size.image_size,
        patch_size=size.patch_size,
        width=size.width,
        layers=size.layers,
        heads=size.width // size.head_width,
        mlp_ratio=size.mlp_ratio,
        output_dim=size.embed_dim,
        act_layer=QuickGELU if size.quick_gelu else torch.nn.GELU,
        output_tokens=True,
    ).eval()


def test_tokens_are_open_clips(tiny_tower: str, images: torch.Tensor) -> None:
    tower = Tower(tiny_tower).eval()
    theirs = open_clips(tower.size)
    theirs.load_state_dict(tower.visual.state_dict())
    pooled, patches = theirs(images)
    ours = tower(images)
    torch.testing.assert_close(ours.cls @ tower.visual.proj, pooled)
    torch.testing.assert_close(ours.patches, patches)


def test_patches_may_skip_the_final_norm(tiny_tower: str, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    tower = Tower(tiny_tower, patch_norm=False).eval()
    plain = tower(images)
    tower.patch_norm = True
    torch.testing.assert_close(tower(images).patches, tower.visual.ln_post(plain.patches))
    torch.testing.assert_close(tower(images).cls, plain.cls)


def test_cls_attention_is_the_last_blocks_first_row(tiny_tower: str, images: torch.Tensor) -> None:
    """Held against the whole map that nn.MultiheadAttention gives when asked for it."""
    tower = Tower(tiny_tower).eval()
    found = tower(images).cls_attention
    theirs = open_clips(tower.size)
    theirs.load_state_dict(tower.visual.state_dict())
    block = theirs.transformer.resblocks[-1]
    entering: list[torch.Tensor] = []
    block.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    theirs(images)
    normed = block.ln_1(entering[0])
    _, whole = block.attn(normed, normed, normed, need_weights=True)
    row = whole[:, 0, 1:]
    torch.testing.assert_close(found, row / row.sum(-1, keepdim=True))


def test_a_shallow_tower_is_the_deep_ones_first_layers(
    tiny_tower: str, images: torch.Tensor
) -> None:
    deep, shallow = Tower(tiny_tower).eval(), Tower(tiny_tower, depth=1).eval()
    adapters.load_base(shallow, deep.visual.state_dict())
    entering: list[torch.Tensor] = []
    deep.visual.blocks()[1].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    deep(images)
    found = shallow(images)
    torch.testing.assert_close(found.cls, deep.visual.ln_post(entering[0][:, 0]))
    torch.testing.assert_close(found.patches, deep.visual.ln_post(entering[0][:, 1:]))
    with pytest.raises(SettingsError, match="depth: 4 is more than the 3 layers"):
        Tower(tiny_tower, depth=4)


def test_without_patches_the_last_layer_answers_for_cls_alone(
    tiny_tower: str, images: torch.Tensor
) -> None:
    tower = Tower(tiny_tower).eval()
    whole, alone = tower(images), tower(images, patches=False)
    torch.testing.assert_close(alone.cls, whole.cls)
    torch.testing.assert_close(alone.cls_attention, whole.cls_attention)
    assert alone.patches.shape == (2, 0, tower.width)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 0.0), (torch.float32, 1e-5)])
def test_packed_matrices_give_the_same(
    tiny_tower: str, images: torch.Tensor, dtype: torch.dtype, apart: float
) -> None:
    """To the bit in bfloat16, which oneDNN multiplies either way."""
    tower = Tower(tiny_tower).to(dtype).eval()
    if not packed.packable(tower):
        pytest.skip(f"torch does not pack {dtype} on this processor")
    with torch.inference_mode():
        images = images.to(dtype)
        plain = [tower(images, patches=wanted) for wanted in (True, False)]
        packed.pack(tower)
        again = [tower(images, patches=wanted) for wanted in (True, False)]
    assert any(isinstance(module, packed.Packed) for module in tower.modules())
    for before, after in zip(plain, again, strict=True):
        for name in ("cls", "patches", "cls_attention"):
            pair = getattr(after, name), getattr(before, name)
            torch.testing.assert_close(*pair, atol=apart, rtol=apart)


def test_quick_gelu_is_the_same_with_gradients_and_without() -> None:
    """x sigmoid(1.702 x), as CLIP was trained; at 1: 1 / (1 + e^-1.702) = 0.8458."""
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    kept = x.detach().clone()
    trained = OwnQuickGELU()(x)
    with torch.no_grad():
        scored = OwnQuickGELU()(x)
    torch.testing.assert_close(trained, torch.tensor([-0.1542, 0.0, 0.8458]), atol=1e-4, rtol=0)
    assert torch.equal(trained, scored)
    assert torch.equal(x, kept)


def test_where_the_processor_cannot_pack_bfloat16_stays_as_it_was(
    tiny_tower: str, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with AVX2 alone, where oneDNN refuses the matrix."""

    def refuse(*_: object) -> None:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(packed.Packed, "__init__", refuse)
    tower = Tower(tiny_tower).to(torch.bfloat16).eval()
    packed.pack(tower)
    assert not any(isinstance(module, packed.Packed) for module in tower.modules())
    assert tower(images.to(torch.bfloat16)).cls.isfinite().all()


@pytest.mark.parametrize(
    ("able", "allowed", "native"),
    [
        ({"avx2": True}, True, False),
        ({"avx512_bf16": True}, True, True),
        ({"amx_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),  # ONEDNN_MAX_CPU_ISA=AVX2
    ],
)
def test_bfloat16_needs_the_processor_and_onednn(
    able: dict[str, bool], allowed: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    onednn = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: allowed)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", onednn)
    assert processor.computes_bfloat16() is native


def test_patches_that_are_not_kept_are_not_looked_at(tiny_tower: str, images: torch.Tensor) -> None:
    tower = Tower(tiny_tower).eval()
    whole, every = tower(images), tower(images, torch.arange(16))
    torch.testing.assert_close(every.patches, whole.patches)
    keep = torch.tensor([0, 3, 9])
    found = tower(images, keep)
    assert found.patches.shape[1] == found.cls_attention.shape[1] == 3
    changed = images.clone()
    changed[:, :, :8, 8:16] += 1  # patch 1 of 4 x 4
    torch.testing.assert_close(tower(changed, keep).patches, found.patches)
    assert not torch.allclose(tower(changed).cls, whole.cls)


@pytest.mark.parametrize("name", ["no-such-tower", "RN50", "coca_ViT-B-32"])
def test_only_plain_vits_are_towers(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Tower(name)


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-L-14-336", "ViT-H-14"]
)
def test_the_towers_people_use_can_be_built(name: str) -> None:
    """Same parameters, by name and shape, as open_clip's own model of that name."""
    with torch.device("meta"):
        tower = Tower(name)
        config = open_clip.get_model_config(name)
        theirs = _build_vision_tower(
            config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
        )
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in tower.visual.state_dict().items()} == shapes
