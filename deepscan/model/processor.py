"""The number formats in which the processor computes."""

from __future__ import annotations

import torch


def computes_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16 itself, and oneDNN lets it.

    Elsewhere torch emulates bfloat16: the results differ by rounding alone, in several times float32's time.
    """
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16")):
        return False
    # torch reports the processor; oneDNN may be held to less of it, as by ONEDNN_MAX_CPU_ISA.
    allowed = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return allowed is not None and bool(allowed())
