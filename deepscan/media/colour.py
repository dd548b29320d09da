"""Turns HDR and wide-gamut RGB into the SDR RGB of BT.709 that a player shows on an ordinary screen.

The code values become the light that a display emits, in units of HDR reference white (203 cd/m2, ITU-R
BT.2408): PQ by SMPTE ST 2084; HLG by ITU-R BT.2100 for a display of 1000 cd/m2; others by BT.1886's power
of 2.4. A matrix takes the light to the primaries of BT.709. The brightest of the channels is tone-mapped
by the curve "mobius" of FFmpeg's filter `tonemap`: unchanged up to 0.8 of reference white, then rolled off so
that 1000 cd/m2 become white; all channels are scaled alike. Channels outside of BT.709 are clipped, and the
power of 1/2.4 makes code values again. So a clip graded for SDR and shown as HDR at reference white comes
back unchanged, except for its brightest tones.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from deepscan.records import Pixels

WHITE, PEAK = 203.0, 1000.0  # cd/m2
KNEE = 0.8  # of reference white; the tone map changes nothing below

UNSPECIFIED = 2  # ITU-T H.273, of any property
PQ, HLG = 16, 18  # transfer characteristics
BT2020, DCI_P3, DISPLAY_P3 = 9, 11, 12  # colour primaries
HDR, WIDE = (PQ, HLG), (BT2020, DCI_P3, DISPLAY_P3)

STRIP = 2**18  # pixels converted at a time

# xy of red, green, blue and white (ITU-T H.273, table 2).
PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
}
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def to_sdr(rgb: np.ndarray, white: int, transfer: int, primaries: int) -> Pixels:
    """BT.709 pixels of RGB code values (height, width, 3), uint16, from 0 to `white`.

    `transfer` and `primaries` are numbers of ITU-T H.273; HDR whose primaries are not stated has BT.2020's.
    """
    if primaries not in PRIMARIES:
        primaries = BT2020 if transfer in HDR else 1
    matrix = _between(1, primaries).astype(np.float32)
    light_of = _light(transfer, white)
    out = np.empty(rgb.shape, np.uint8)
    rows = max(1, STRIP // rgb.shape[1])
    for top in range(0, len(rgb), rows):
        light = light_of[rgb[top : top + rows]]
        if transfer == HLG:  # the display's gamma of 1.2 works on luminance
            light *= np.maximum(light @ LUMA_2020, 1e-9)[..., None] ** np.float32(0.2)
            light *= np.float32(PEAK / WHITE)
        light = np.maximum(light @ matrix.T, 0)
        if transfer in HDR:
            light *= _tone(light.max(2))[..., None]
        np.minimum(light, 1, out=light)
        out[top : top + rows] = np.rint(light ** np.float32(1 / 2.4) * 255).astype(np.uint8)
    return out


def _tone(brightest: np.ndarray) -> np.ndarray:
    """The factor for pixels whose brightest channel has this light, in units of reference white."""
    j, peak = KNEE, PEAK / WHITE
    a = -j * j * (peak - 1) / (j * j - 2 * j + peak)
    b = (j * j - 2 * j * peak + peak) / (peak - 1)
    light = np.clip(brightest, j, peak)
    mapped = (b * b + 2 * b * j + j * j) / (b - a) * (light + a) / (light + b)
    return np.where(brightest > j, mapped / np.maximum(brightest, j), 1).astype(np.float32)


@cache
def _light(transfer: int, white: int) -> np.ndarray:
    """The light of each 16-bit code value: of the display, or for HLG of the scene."""
    code = np.minimum(np.arange(65536) / white, 1)
    if transfer == PQ:
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        power = code ** (1 / m2)
        light = 10000 / WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        light = code**2.4
    return light.astype(np.float32)


@cache
def _between(to: int, given: int) -> np.ndarray:
    """The matrix (3, 3) from light in primaries `given` to light in `to`, each one's white staying white."""

    def xyz(primaries: int) -> np.ndarray:
        *rgb, _ = columns = [np.array([x, y, 1 - x - y]) / y for x, y in PRIMARIES[primaries]]
        return np.stack(rgb, 1) * np.linalg.solve(np.stack(rgb, 1), columns[3])

    return np.linalg.solve(xyz(to), xyz(given))
