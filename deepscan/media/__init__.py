"""Opens a file and decodes the frames to look at.

A path and a `Sampling` come in. A `Source` (what the file is) and `Frame`s at exact times go out; the
file is decoded in a confined process of its own. Every package above may import this one, which knows
only records, settings and errors.
"""

from deepscan.media.isolation import Decoder, Opened, decoder, open_source

__all__ = ["Decoder", "Opened", "decoder", "open_source"]
