"""The names that shapes in annotations are written with, as in Float[np.ndarray, "height width"].

They are jaxtyping's where annotations are checked: by mypy, and under pytest, whose hook has imported it.
Nowhere else is anything checked, and a decoder's process, of which each input starts one, need not import it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Float32 as Float32
    from jaxtyping import Int as Int
    from jaxtyping import UInt8 as UInt8
else:

    class _Unchecked:
        def __class_getitem__(cls, _: Any) -> Any:
            return Any

    Bool = Float = Float32 = Int = UInt8 = _Unchecked
