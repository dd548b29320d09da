"""Names for array shapes in annotations, as in Float[np.ndarray, "height width"].

Where annotations are checked, by mypy and under pytest, these are jaxtyping's. Elsewhere they are
placeholders, so that the decoder process started for each input need not import jaxtyping.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Float32 as Float32
    from jaxtyping import Int as Int
    from jaxtyping import Real as Real
    from jaxtyping import UInt8 as UInt8
else:

    class _Unchecked:
        def __class_getitem__(cls, _: Any) -> Any:
            return Any

    Bool = Float = Float32 = Int = Real = UInt8 = _Unchecked
