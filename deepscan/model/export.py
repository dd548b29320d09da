"""Exports a detector as one ONNX file with the adapter merged, for programs without torch.

    crops            uint8 (batch, 256, 256, 3): faces cut and aligned by deepscan.faces.alignment, RGB
    logit            float32 (batch): above 0 leans to manipulated
    query_attention  float32 (batch, queries, patches); [CLS]'s, where there are no queries
    cls_attention    float32 (batch, patches)
    evidence         float32 (batch, patches): what each patch adds to the logit; (batch, 0) without queries
    constant         float32 (batch): what none of them adds; the logit is the sum of both
    likelihood       float32 (batch, patches): that a patch is manipulated; (batch, 0) if it was not taught

Scaling to the tower's input size and normalisation are part of the graph. Its metadata hold the checkpoint's
header and SHA-256.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deepscan.errors import SettingsError, WeightsMismatch
from deepscan.faces.alignment import CROP_SIDE
from deepscan.files import part_file
from deepscan.model.detector import Detector
from deepscan.model.header import PREPROCESSING, Header

OUTPUTS = ("logit", "query_attention", "cls_attention", "evidence", "constant", "likelihood")
LARGEST = 2**31 - 2**24  # bytes of weights: the format ends at 2 GiB
TOLERANCE = 1e-4  # of each output, against torch's in float32


class _Graph(nn.Module):
    """The detector, returning its outputs as a tuple."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return self.detector.outputs(crops)


def write(path: Path, detector: Detector, header: Header, digest: str) -> float:
    """Write a merged float32 detector, and keep it if onnxruntime computes the same with it as torch.

    Args:
        digest: the checkpoint's SHA-256.

    Returns:
        The largest difference of the outputs on random crops.

    Raises:
        SettingsError: packages are missing, or the tower is too large for the format.
        WeightsMismatch: the written file computes something different; it is not kept.
        OutputError: `path` cannot be written.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter wants it)
    except ImportError as error:
        raise SettingsError(
            f"export needs a package that is not installed ({error.name});"
            " pip install 'deepscan-forensics[onnx]'"
        ) from error
    if (size := sum(p.numel() * p.element_size() for p in detector.parameters())) > LARGEST:
        raise SettingsError(f"{size / 1e9:.1f} GB of weights, but an ONNX file can hold only 2")
    crops = np.random.default_rng(0).integers(0, 256, (3, CROP_SIDE, CROP_SIDE, 3), np.uint8)
    # Two crops stand for any number: from one, the exporter would derive a constant.
    for noisy in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    program = torch.onnx.export(
        _Graph(detector).eval(),
        (torch.from_numpy(crops[:2]),),
        input_names=["crops"],
        output_names=list(OUTPUTS),
        dynamic_shapes={"crops": {0: torch.export.Dim("batch", min=1, max=4096)}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    properties = {"preprocessing": PREPROCESSING, "checkpoint_sha256": digest, **asdict(header)}
    onnx.helper.set_model_props(model, {"deepscan": json.dumps(properties, allow_nan=False)})
    with part_file(path) as part:
        onnx.save(model, part)
        del model, program
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        found = session.run(list(OUTPUTS), {"crops": crops})
        expected = detector.score(crops)
        apart = max(
            float(np.abs(a - getattr(expected, name)).max(initial=0.0))
            for name, a in zip(OUTPUTS, found, strict=True)
        )
        if not apart <= TOLERANCE:
            raise WeightsMismatch(
                f"{path}: onnxruntime's outputs are {apart:.2g} from torch's, more than {TOLERANCE},"
                f" so no file is written; try other versions of torch, onnxscript and onnxruntime"
            )
    return apart
