"""Random views of a crop: geometry moves picture and mask, appearance changes the picture alone.

The only module that knows torchvision.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from deepscan.data.distortions import h264
from deepscan.errors import SettingsError
from deepscan.shapes import Bool, Float, UInt8


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How views differ from their crop. Plain names are probabilities, the others are ranges.

    method.md's recipe (flip, blur, JPEG, mild colour), with resizing, with the light's own colour, and
    with zooming in: face finders and data sets frame a face differently, and the detector should not care.
    """

    flip: float = 0.5
    zoom: float = 0.5
    zoom_keeps: tuple[float, float] = (0.6, 1.0)  # share of the side, if the face fits
    colour: float = 0.5
    colour_factor: tuple[float, float] = (0.85, 1.15)  # brightness, contrast and saturation, each
    cast: float = 0.0
    cast_gain: tuple[float, float] = (0.8, 1.25)  # of red, green and blue, each
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.5, 2.0)  # pixels of the crop
    resize: float = 0.2
    resize_to: tuple[float, float] = (0.3, 0.9)  # share of the side, before it is brought back
    noise: float = 0.0
    noise_sigma: tuple[float, float] = (1.0, 8.0)  # grey levels
    h264: float = 0.0
    h264_crf: tuple[int, int] = (20, 42)  # a key frame's, from hardly to heavily compressed
    jpeg: float = 0.5
    jpeg_quality: tuple[int, int] = (40, 100)

    def __post_init__(self) -> None:
        highest = {"zoom_keeps": 1, "resize_to": 1, "h264_crf": 51, "jpeg_quality": 100}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, tuple):
                top = highest.get(entry.name, math.inf)
                if not 0 < value[0] <= value[1] <= top:
                    bounds = "above 0" if top == math.inf else f"above 0 and up to {top}"
                    raise SettingsError(f"augment {entry.name}: {value} is not a range {bounds}")
            elif not 0 <= value <= 1:
                raise SettingsError(f"augment {entry.name}: {value} is not a probability")


def augmentation(settings: AugmentSettings) -> v2.Transform:
    """The changes, in the order a picture undergoes them: framing, light, lens, scaling, sensor, compression.

    Social media pass on compressed films, and stills of them that are compressed again.

    Takes a uint8 tv_tensors.Image (3, h, w), with or without a tv_tensors.Mask (1, h, w) and
    tv_tensors.BoundingBoxes (1, 4) of what must stay in view, and returns the same of the same size.
    """
    s = settings
    factor = s.colour_factor
    kernel = 2 * math.ceil(3 * s.blur_sigma[1]) + 1  # beyond three deviations nothing is left
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(s.flip),
            v2.RandomApply([_Zoom(s.zoom_keeps)], s.zoom),
            v2.RandomApply([v2.ColorJitter(factor, factor, factor)], s.colour),
            v2.RandomApply([_Cast(s.cast_gain)], s.cast),
            v2.RandomApply([v2.GaussianBlur(kernel, s.blur_sigma)], s.blur),
            v2.RandomApply([_Resample(s.resize_to)], s.resize),
            v2.RandomApply([_Noise(s.noise_sigma)], s.noise),
            v2.RandomApply([_H264(s.h264_crf)], s.h264),
            v2.RandomApply([_Jpeg(s.jpeg_quality)], s.jpeg),
        ]
    )


def augment(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None,
    transform: v2.Transform,
    seed: int,
    face: Float[np.ndarray, "_points 2"] | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """The view of a crop for this `seed`: the same in any process, whatever was drawn before.

    Points of a `face`, x and y, stay in view: a manipulated crop without its face would be labelled
    wrongly. A crop and its manipulated twin of the same size, given one seed, change alike. torchvision's
    transforms draw from torch's global CPU generator and from nothing else; it is left as found.
    """
    shown: list[torch.Tensor] = [_picture(image)]
    if mask is not None:
        shown.append(tv_tensors.Mask(torch.from_numpy(mask[None].copy())))
    if face is not None:
        corners = np.concatenate([face.min(0), face.max(0)])
        box = torch.from_numpy(corners).clamp(min=0)
        shown.append(
            tv_tensors.BoundingBoxes(box[None], format="XYXY", canvas_size=image.shape[:2])
        )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the accelerators as well, for good.
        torch.default_generator.manual_seed(seed)
        seen = transform(shown)
    if mask is None:
        return _pixels(seen[0]), None
    return _pixels(seen[0]), np.ascontiguousarray(seen[1][0].numpy())


def _picture(image: UInt8[np.ndarray, "h w 3"]) -> tv_tensors.Image:
    # Channels last in memory, as pictures come and go: nothing is copied on the way.
    return tv_tensors.Image(torch.from_numpy(image.copy()).permute(2, 0, 1))


def _pixels(picture: torch.Tensor) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


class _Zoom(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Cut out a share of both sides, anywhere that shows all of what must be seen, and bring it back to size.

    v2.RandomResizedCrop draws areas, bends proportions and wants the size beforehand.
    """

    def __init__(self, keeps: tuple[float, float]) -> None:
        super().__init__()
        self.keeps = keeps

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        seen = [x for x in flat_inputs if isinstance(x, tv_tensors.BoundingBoxes)]
        left, top, right, bottom = (
            seen[0][0].tolist() if seen else (width, height, 0.0, 0.0)  # nothing must be
        )
        drawn = self.keeps[0] + float(torch.rand(())) * (self.keeps[1] - self.keeps[0])
        kept = min(1.0, max(drawn, (right - left) / width, (bottom - top) / height))
        h, w = max(1, round(kept * height)), max(1, round(kept * width))
        return {
            "top": _place(h, height, top, bottom),
            "left": _place(w, width, left, right),
            "height": h,
            "width": w,
            "size": [height, width],
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.resized_crop(inpt, **params)


def _place(length: int, of: int, low: float, high: float) -> int:
    """Where a cut of `length` begins that lies in [0, of] and, if it can, holds all from `low` to `high`."""
    first = min(max(0.0, high - length), of - length)
    last = max(first, min(low, of - length))
    return round(first + float(torch.rand(())) * (last - first))


class _Cast(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Scale red, green and blue by a factor each, as another light or white balance would."""

    def __init__(self, gain: tuple[float, float]) -> None:
        super().__init__()
        self.gain = gain

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = map(math.log, self.gain)
        return {"gains": (low + torch.rand(3, 1, 1) * (high - low)).exp()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        changed = (inpt * params["gains"]).round().clamp(0, 255).to(torch.uint8)
        return tv_tensors.Image(changed)


class _Resample(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Shrink the picture and bring it back to size: the detail is lost, the mask stays."""

    def __init__(self, to: tuple[float, float]) -> None:
        super().__init__()
        self.to = to

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        share = self.to[0] + float(torch.rand(())) * (self.to[1] - self.to[0])
        return {
            "small": [max(1, round(share * height)), max(1, round(share * width))],
            "size": [height, width],
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return F.resize(F.resize(inpt, params["small"]), params["size"])


class _Noise(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Add normal noise, apart for each pixel and channel; v2.GaussianNoise takes floats and one deviation."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = self.sigma
        return {"sigma": low + float(torch.rand(())) * (high - low)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        noise = torch.randn(inpt.shape) * params["sigma"]
        return tv_tensors.Image((inpt + noise).round().clamp(0, 255).to(torch.uint8))


class _H264(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Compress the picture as a film's key frame."""

    def __init__(self, crf: tuple[int, int]) -> None:
        super().__init__()
        self.crf = crf

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"crf": int(torch.randint(self.crf[0], self.crf[1] + 1, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return _picture(h264(_pixels(inpt), params["crf"]))


class _Jpeg(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Compress the picture with a quality in a range, both ends included.

    By Pillow: v2.JPEG stands on torchvision's codecs, deprecated in 0.29 and to be removed.
    """

    def __init__(self, quality: tuple[int, int]) -> None:
        super().__init__()
        self.quality = quality

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"quality": int(torch.randint(self.quality[0], self.quality[1] + 1, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        buffer = io.BytesIO()
        Image.fromarray(_pixels(inpt)).save(buffer, "JPEG", quality=params["quality"])
        return _picture(np.array(Image.open(buffer)))
