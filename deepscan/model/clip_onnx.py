"""Converts the int8 ONNX export of CLIP ViT-B/16 into the canonical base file, with open_clip's names.

The export quantises 73 matrices to int8 with one scale for each output channel and no zero point, and keeps
everything else in float32. All values are copied as they are: nothing is rounded here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

from deepscan.errors import WeightsMismatch

LAYERS = 12


def convert(graph_bytes: bytes, target: Path, origin: str) -> None:
    """Write the canonical safetensors file.

    `NAME` (out, in) int8 goes with `NAME.scale` (out,) float32: weight = NAME * scale[:, None].
    The header holds one key only: safetensors writes several in no fixed order, and the file's hash would
    change from run to run.
    """
    graph = onnx.load_from_string(graph_bytes).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    matmuls = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    out: dict[str, np.ndarray] = {}

    def matrix(path: str) -> tuple[np.ndarray, np.ndarray]:
        """Codes (out, in) and scales (out,) of the only matrix product under `path`."""
        (name,) = (weight for node, weight in matmuls.items() if path in node)
        stem = name.removesuffix("_quantized")
        if stored[f"{stem}_zero_point"].any():
            raise WeightsMismatch(f"{origin}: {stem} is not quantised symmetrically")
        return stored[name].T, stored[f"{stem}_scale"].astype(np.float32)

    def put(name: str, *paths: str) -> None:
        codes, scales = zip(*(matrix(path) for path in paths), strict=True)
        out[name], out[f"{name}.scale"] = np.concatenate(codes), np.concatenate(scales)

    def carry(name: str, *sources: str) -> None:
        for part in ("weight", "bias"):
            out[f"{name}.{part}"] = np.concatenate(
                [stored[f"{source}.{part}"] for source in sources]
            )

    vision = "vision_model"
    out["class_embedding"] = stored[f"{vision}.embeddings.class_embedding"]
    out["positional_embedding"] = stored[f"{vision}.embeddings.position_embedding.weight"]
    out["conv1.weight"] = stored[f"{vision}.embeddings.patch_embedding.weight"]
    carry("ln_pre", f"{vision}.pre_layrnorm")
    carry("ln_post", f"{vision}.post_layernorm")
    codes, scales = matrix("/visual_projection/")
    out["proj"] = (codes.astype(np.float32) * scales[:, None]).T
    for i in range(LAYERS):
        ours = f"transformer.resblocks.{i}"
        theirs, node = f"{vision}.encoder.layers.{i}", f"/{vision}/encoder/layers.{i}"
        put(f"{ours}.attn.in_proj_weight", *(f"{node}/self_attn/{x}_proj/" for x in "qkv"))
        out[f"{ours}.attn.in_proj_bias"] = np.concatenate(
            [stored[f"{theirs}.self_attn.{x}_proj.bias"] for x in "qkv"]
        )
        for to, of in (
            ("attn.out_proj", "self_attn.out_proj"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
        ):
            put(f"{ours}.{to}.weight", f"{node}/{of.replace('.', '/')}/")
            out[f"{ours}.{to}.bias"] = stored[f"{theirs}.{of}.bias"]
        carry(f"{ours}.ln_1", f"{theirs}.layer_norm1")
        carry(f"{ours}.ln_2", f"{theirs}.layer_norm2")
    save_file(
        {name: np.ascontiguousarray(value) for name, value in out.items()},
        target,
        {"origin": origin},
    )
