"""Finds faces, follows them through the video and cuts aligned crops.

`Frame`s come in. `Crop`s with track ids go out, each with the way back to its frame. Every package
above may import this one; `FaceFinder` is not exported here because `deepscan.faces.finder` loads
torch.
"""

from deepscan.faces.alignment import align
from deepscan.faces.tracks import Follower, look_of

__all__ = ["Follower", "align", "look_of"]
