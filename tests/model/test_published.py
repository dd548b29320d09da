"""Detectors of others, converted: the logits of their own plain forward, and only from the right file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from deepscan.cli import run
from deepscan.errors import WeightsMismatch
from deepscan.files import sha256
from deepscan.model import checkpoint, tower, weights
from deepscan.model.header import MEAN, STD, read_header
from deepscan.model.tower import TowerSize

GEND, EFFORT = "gend-clip-l14", "effort-clip-l14"
VIT_L_14 = TowerSize(224, 14, 1024, 24, 768, head_width=64, quick_gelu=True)


def tiny() -> TowerSize:
    return tower.tower_size("tiny-vit")


# --- files as they are published --------------------------------------------------------------------


def gend_shapes(size: TowerSize) -> dict[str, tuple[int, ...]]:
    """The tensors of yermandy/GenD_CLIP_L_14's model.safetensors."""
    d, vit = size.width, "feature_extractor.vision_model."
    shapes: dict[str, tuple[int, ...]] = {
        f"{vit}embeddings.class_embedding": (d,),
        f"{vit}embeddings.patch_embedding.weight": (d, 3, size.patch_size, size.patch_size),
        f"{vit}embeddings.position_embedding.weight": (
            (size.image_size // size.patch_size) ** 2 + 1,
            d,
        ),
        "feature_extractor.visual_projection.weight": (size.embed_dim, d),
        "model.linear.weight": (2, d),
        "model.linear.bias": (2,),
    }
    linear = {f"self_attn.{x}_proj": (d, d) for x in ("q", "k", "v", "out")}
    linear |= {"mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
    norms = [f"{vit}pre_layrnorm", f"{vit}post_layernorm"]
    for layer in range(size.layers):
        inside = f"{vit}encoder.layers.{layer}."
        norms += [f"{inside}layer_norm1", f"{inside}layer_norm2"]
        for name, shape in linear.items():
            shapes |= {f"{inside}{name}.weight": shape, f"{inside}{name}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (d,), f"{norm}.bias": (d,)}
    return shapes


def effort_shapes(size: TowerSize, kept: bool) -> dict[str, tuple[int, ...]]:
    """The state of DeepfakeBench's Effort detector; `kept`: with the frozen singular vectors as well."""
    d = size.width
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in gend_shapes(size).items():
        ours = name.replace("feature_extractor.vision_model", "backbone")
        ours = ours.replace("model.linear", "head")
        if "visual_projection" in name:
            continue
        if "self_attn" in name and name.endswith("weight"):
            matrix = ours.removesuffix("weight")
            shapes[f"{matrix}weight_main"] = shape
            parts = {"U_residual": (d, 1), "S_residual": (1,), "V_residual": (1, d)}
            if kept:
                parts |= {"U_r": (d, d - 1), "S_r": (d - 1,), "V_r": (d - 1, d)}
            shapes |= {matrix + part: rest for part, rest in parts.items()}
        else:
            shapes[ours] = shape
    return shapes


def made(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Values at which every part of the network has a say; pieces of one pool, since drawing takes long."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(2 * max(prod(shape) for shape in shapes.values()), generator=generator)
    tensors = {}
    for name, shape in shapes.items():
        start = int(torch.randint(len(pool) - prod(shape), (1,), generator=generator))
        values = pool[start : start + prod(shape)].view(shape)
        if "norm" in name and name.endswith("weight"):
            tensors[name] = 1 + 0.2 * values
        elif name.endswith(("class_embedding", "S_residual", "linear.weight")):
            tensors[name] = 1 * values
        elif len(shape) > 1:  # of rows about as long as 1, but singular vectors are columns
            tensors[name] = values / (shape[0] if "U_residual" in name else prod(shape[1:])) ** 0.5
        else:
            tensors[name] = 0.1 * values
    return tensors


def write(form: str, size: TowerSize, path: Path, kept: bool = False) -> Path:
    if form == GEND:
        save_file(made(gend_shapes(size)), path, {"format": "pt"})
    else:  # trained on several GPUs, hence "module."
        state = {f"module.{name}": value for name, value in made(effort_shapes(size, kept)).items()}
        torch.save(state, path)
    return path


# --- a plain forward --------------------------------------------------------------------------------


def plain_forward(
    get: Callable[[str], Tensor], images: Tensor, size: TowerSize, form: str
) -> Tensor:
    """logit(fake) - logit(real), written out from the two papers' public code, a layer at a time."""
    gend = form == GEND
    vit = "feature_extractor.vision_model." if gend else "backbone."
    d, heads = size.width, size.width // size.head_width

    def linear(x: Tensor, name: str) -> Tensor:
        if not gend and "self_attn" in name:
            u, s, v = (get(f"{vit}{name}.{part}_residual") for part in "USV")
            weight = get(f"{vit}{name}.weight_main") + u @ torch.diag(s) @ v
        else:
            weight = get(f"{vit}{name}.weight")
        return x @ weight.T + get(f"{vit}{name}.bias")

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = get(f"{vit}{name}.weight"), get(f"{vit}{name}.bias")
        return functional.layer_norm(x, (d,), weight, bias, 1e-5)

    x = functional.conv2d(
        images, get(f"{vit}embeddings.patch_embedding.weight"), stride=size.patch_size
    )
    x = x.flatten(2).transpose(1, 2)
    cls = get(f"{vit}embeddings.class_embedding").expand(len(x), 1, d)
    x = torch.cat([cls, x], 1) + get(f"{vit}embeddings.position_embedding.weight")
    x = norm(x, "pre_layrnorm")
    for layer in range(size.layers):
        inside = f"encoder.layers.{layer}."
        y = norm(x, f"{inside}layer_norm1")
        q, k, v = (
            linear(y, f"{inside}self_attn.{n}_proj").unflatten(-1, (heads, -1)).transpose(1, 2)
            for n in "qkv"
        )
        attention = (q @ k.transpose(-1, -2) / size.head_width**0.5).softmax(-1)
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), f"{inside}self_attn.out_proj")
        y = linear(norm(x, f"{inside}layer_norm2"), f"{inside}mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{inside}mlp.fc2")
    feature = norm(x[:, 0], "post_layernorm")
    if gend:
        feature = feature / feature.norm(dim=1, keepdim=True)
    head = "model.linear" if gend else "head"
    logits = feature @ get(f"{head}.weight").T + get(f"{head}.bias")
    return logits[:, 1] - logits[:, 0]


def reader(path: Path) -> Callable[[str], Tensor]:
    """One tensor at a time: a whole ViT-L/14 is never held here."""
    if path.suffix == ".safetensors":
        file = safe_open(path, "pt")
        return file.get_tensor
    state = torch.load(path, mmap=True, weights_only=True)
    return lambda name: state[f"module.{name}"]


# --- fixtures ---------------------------------------------------------------------------------------


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tower: str) -> Callable[[str], None]:
    """Tells the catalogue which tower the published detectors stand on here; no hash is stated for them."""
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path / "cache"))
    real = weights.catalogue()

    def on(vit: str) -> None:
        published = {
            name: replace(entry, tower=vit, source=replace(entry.source, sha256="", hub=""))
            for name, entry in real.published.items()
        }
        known = replace(real, published=published)
        monkeypatch.setattr(weights, "catalogue", lambda: known)

    on(tiny_tower)
    return on


def file_of(form: str, folder: Path) -> Path:
    return folder / ("model.safetensors" if form == GEND else "effort.pth")


# --- what is converted ------------------------------------------------------------------------------


def test_the_names_are_those_of_the_file_on_the_hub() -> None:
    """Its size is published; a safetensors file of these names and shapes has it to the byte."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sorted(gend_shapes(VIT_L_14).items()):
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    padded = length + -length % 8
    assert 8 + padded + end == weights.catalogue().published[GEND].source.bytes


@pytest.mark.parametrize("form", [GEND, EFFORT])
@pytest.mark.parametrize(
    "name", ["tiny-vit", pytest.param("ViT-L-14-quickgelu", marks=pytest.mark.slow)]
)
def test_a_converted_detector_has_its_own_logits(
    zoo: Callable[[str], None], tmp_path: Path, form: str, name: str
) -> None:
    zoo(name)
    size = tiny() if name == "tiny-vit" else VIT_L_14
    path = write(form, size, file_of(form, tmp_path))
    side = size.image_size
    crops = torch.randint(0, 256, (1, side, side, 3), generator=torch.Generator().manual_seed(1))
    images = (crops.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    with torch.inference_mode():
        expected = plain_forward(reader(path), images, size, form)
    assert weights.import_file(path) == weights.detector_file(form)
    path.unlink()  # nothing leans on it; a ViT-L/14 is 1.2 GB
    header = read_header(weights.detector_file(form))
    base = weights.base_file(weights.base_by_hash(header.base["sha256"]), offline=True)
    detector, _ = checkpoint.load(weights.detector_file(form), base)
    base.unlink()
    found = detector.score(crops.numpy().astype(np.uint8)).logit
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)
    assert abs(float(expected)) > 0.01  # not two zeros
    assert header.settings.token == "cls"
    assert header.settings.adapter == {GEND: "norm", EFFORT: "effort"}[form]


def test_effort_with_its_frozen_vectors_is_read_too(
    zoo: Callable[[str], None], tmp_path: Path
) -> None:
    size = tiny()
    path = write(EFFORT, size, tmp_path / "kept.pth", kept=True)
    torch.save({"state_dict": torch.load(path), "epoch": 3}, path)  # as a training saves it
    weights.import_file(path)
    assert weights.describe()[-1]["state"] == "ready"


def test_what_the_checkpoint_says_of_its_origin(zoo: Callable[[str], None], tmp_path: Path) -> None:
    path = write(GEND, tiny(), tmp_path / "model.safetensors")
    weights.import_file(path)
    header = read_header(weights.detector_file(GEND))
    assert header.licence == "MIT"
    assert header.training["data"].startswith("FaceForensics++")
    assert header.training["published"]["sha256"] == sha256(path) == header.base["sha256"]
    assert header.calibration is None


@pytest.mark.parametrize("form", [GEND, EFFORT])
def test_a_converted_detector_runs_through_the_pipeline(
    zoo: Callable[[str], None],
    sample: Path,
    tmp_path: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(form, tiny(), file_of(form, tmp_path))
    assert run(["weights", "import", str(path)]) == 0
    out = str(tmp_path / "out")
    capsys.readouterr()
    command = ["detect", str(sample), "--weights", form, "--frames", "4", "--offline", "--heatmap"]
    assert run([*command, "--json", "--out", out]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tool"]["detector"]["name"] == form
    assert report["scores"]["video"] is not None
    assert run(["verify", f"{out}/sample.mp4", "--rerun"]) == 0


# --- towers -----------------------------------------------------------------------------------------


def test_a_tower_by_three_peoples_names_is_one(tiny_tower: str, tmp_path: Path) -> None:
    """Ours, open_clip's file of the whole CLIP, transformers' file of it: the texts' half is left alone."""
    theirs = made(gend_shapes(tiny()))
    hf = {n.removeprefix("feature_extractor."): v for n, v in theirs.items() if "linear" not in n}
    hf |= {
        "text_model.final_layer_norm.bias": torch.zeros(3),
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    save_file(hf, tmp_path / "transformers.safetensors")
    ours = checkpoint.read_base(tmp_path / "transformers.safetensors")
    save_file(ours, tmp_path / "ours.safetensors")
    whole = {f"visual.{name}": value for name, value in ours.items()}
    whole |= {"transformer.resblocks.0.ln_1.bias": torch.zeros(3), "logit_scale": torch.zeros(1)}
    save_file(whole, tmp_path / "open-clip.safetensors")
    for name in ("ours", "open-clip"):
        again = checkpoint.read_base(tmp_path / f"{name}.safetensors")
        assert again.keys() == ours.keys()
        assert all(torch.equal(again[key], ours[key]) for key in ours)
    with torch.device("meta"):
        expected = {k: v.shape for k, v in tower.Tower(tiny_tower).visual.state_dict().items()}
    assert {key: value.shape for key, value in ours.items()} == expected
    q = hf["vision_model.encoder.layers.1.self_attn.q_proj.weight"]
    torch.testing.assert_close(ours["transformer.resblocks.1.attn.in_proj_weight"][:32], q)
    torch.testing.assert_close(ours["proj"].T, hf["visual_projection.weight"])


# --- what is refused --------------------------------------------------------------------------------


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


LAST = "feature_extractor.vision_model.post_layernorm.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: without(t, LAST), f"{LAST} is missing"),
        (lambda t: t | {"model.other": torch.zeros(1)}, "model.other is unknown"),
        (
            lambda t: t | {"model.linear.weight": torch.zeros(3, 32)},
            r"model.linear.weight has shape \(3, 32\), not \(2, 32\)",
        ),
    ],
)
def test_a_gend_file_that_differs_is_refused_saying_how(
    zoo: Callable[[str], None],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    words: str,
) -> None:
    path = write(GEND, tiny(), tmp_path / "model.safetensors")
    save_file(change(load_file(path)), path)
    with pytest.raises(WeightsMismatch, match=words):
        weights.import_file(path)
    assert not weights.cache_folder().exists()


def test_effort_on_another_tower_is_refused_saying_how(
    zoo: Callable[[str], None], tmp_path: Path
) -> None:
    path = write(EFFORT, TowerSize(32, 8, 64, 3, 16, head_width=8), tmp_path / "effort.pth")
    with pytest.raises(WeightsMismatch, match=r"class_embedding has shape \(64,\), not \(32,\)"):
        weights.import_file(path)


def test_the_published_hash_decides_where_there_is_one(
    zoo: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(GEND, tiny(), tmp_path / "model.safetensors")
    known = weights.catalogue()
    stated = replace(known.published[GEND].source, sha256="0" * 64)
    entry = replace(known.published[GEND], source=stated)
    changed = replace(known, published={**known.published, GEND: entry})
    monkeypatch.setattr(weights, "catalogue", lambda: changed)
    with pytest.raises(WeightsMismatch, match=f"its SHA-256 is {sha256(path)}, not 0000"):
        weights.import_file(path)


def test_a_pickle_that_would_run_something_is_not_run(
    zoo: Callable[[str], None], tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "effort.pth"
    torch.save({"backbone.U_residual": Bomb()}, path)
    with pytest.raises(WeightsMismatch, match="not a torch file of plain tensors"):
        weights.import_file(path)
    assert not (tmp_path / "exploded").exists()


def test_damage_after_the_import_is_found(
    zoo: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.import_file(write(GEND, tiny(), tmp_path / "model.safetensors"))
    assert run(["weights", "verify", GEND]) == 0
    whole = weights.detector_file(GEND).read_bytes()
    weights.detector_file(GEND).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run(["weights", "verify", GEND]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("damaged")
    with pytest.raises(WeightsMismatch, match="detector gend-clip-l14"):
        weights.detector_file(GEND)


def test_a_damaged_detector_is_made_anew_from_its_base_and_troubles_no_other(
    zoo: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(GEND, tiny(), tmp_path / "model.safetensors")
    known = weights.catalogue()
    source = replace(known.published[GEND].source, sha256=sha256(path), url="http://127.0.0.1:9/f")
    entry = replace(known.published[GEND], source=source)
    changed = replace(known, published={GEND: entry})
    monkeypatch.setattr(weights, "catalogue", lambda: changed)
    weights.import_file(path)
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    assert weights.base_by_hash(known.bases["clip-vit-b16"].sha256).name == "clip-vit-b16"
    assert run(["weights", "fetch", GEND, "--offline"]) == 0  # nothing need be fetched
    assert weights.state(entry) == "ready"
