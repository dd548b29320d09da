"""Reads data sets and prepares them for training and tests.

Folders in the official layouts, or a CSV, come in. Aligned crops with landmarks and masks go out as
files, and `CropRow`s for their readers. Training, verification, the benchmark, the server and the
command line may import this package; `prepare` and `cutting` load torch and are imported by their own
names.
"""

from deepscan.data.crops import CropRow, read_crops
from deepscan.data.deepfakebench import locate
from deepscan.data.layouts import VideoRow, read_layout

__all__ = ["CropRow", "VideoRow", "locate", "read_crops", "read_layout"]
