"""Tells which H.264 packets are fields, from their headers alone (ITU-T H.264, 7.3.2.1, 7.3.2.2, 7.3.3).

Interlaced H.264 may code a picture as two fields, each in a packet of its own, and FFmpeg gives one frame for
both. Nothing in the container tells a field from a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SLICES = (1, 2, 5)  # nal_unit_type of slices that begin with a whole header
SPS, PPS = 7, 8

# Profiles whose sequence parameter set states a chroma format.
HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)

HEADER = 64  # bytes of a slice that hold what is read of its header, whatever the numbers in it


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a picture: its parity and the frame number that both fields share."""

    bottom: bool
    frame_number: int


@dataclass(frozen=True, slots=True)
class _Sequence:
    frames_only: bool
    separate_planes: bool
    number_bits: int


class Fields:
    """Reads a stream's packets in decoding order.

    Args:
        extradata: the codec's, which holds the parameter sets if the container is MP4 or Matroska.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of: dict[int, int] = {}  # by picture parameter set
        self._length = 0  # bytes of the length before each NAL unit; 0: start codes
        if extradata and extradata[0] == 1 and len(extradata) > 6:
            self._length = (extradata[4] & 3) + 1
            for unit in _configured(extradata):
                self._learn(unit)
        elif extradata:
            for unit in _after_start_codes(extradata):
                self._learn(unit)

    @property
    def possible(self) -> bool:
        """Whether pictures may be coded as fields, as far as is known yet."""
        return any(not sequence.frames_only for sequence in self._sequences.values())

    def read(self, packet: bytes) -> Field | None:
        """The field in this packet; None if it holds a frame, or nothing that can be read."""
        units = _after_lengths(packet, self._length) if self._length else _after_start_codes(packet)
        for unit in units:
            if not unit:
                continue
            if unit[0] & 31 in SLICES:
                try:
                    return self._field(_Bits(unit[1:HEADER]))
                except (IndexError, KeyError):
                    return None
            self._learn(unit)
        return None

    def _learn(self, unit: bytes) -> None:
        kind = unit[0] & 31 if unit else 0
        try:
            if kind == SPS:
                self._learn_sequence(_Bits(unit[1:]))
            elif kind == PPS:
                bits = _Bits(unit[1:])
                self._sequence_of[bits.unsigned()] = bits.unsigned()
        except IndexError:  # cut short
            return

    def _learn_sequence(self, bits: _Bits) -> None:
        profile = bits.take(8)
        bits.take(16)  # constraints and level
        identity = bits.unsigned()
        separate = False
        if profile in HIGH:
            chroma = bits.unsigned()
            separate = chroma == 3 and bool(bits.take(1))
            bits.unsigned(), bits.unsigned(), bits.take(1)  # depths, lossless
            if bits.take(1):
                for n in range(12 if chroma == 3 else 8):
                    if bits.take(1):
                        _skip_scaling(bits, 16 if n < 6 else 64)
        number_bits = bits.unsigned() + 4
        order = bits.unsigned()
        if order == 0:
            bits.unsigned()
        elif order == 1:
            bits.take(1), bits.unsigned(), bits.unsigned()
            for _ in range(min(bits.unsigned(), 255)):
                bits.unsigned()
        bits.unsigned(), bits.take(1), bits.unsigned(), bits.unsigned()  # references, gaps, size
        self._sequences[identity] = _Sequence(bool(bits.take(1)), separate, number_bits)

    def _field(self, bits: _Bits) -> Field | None:
        bits.unsigned(), bits.unsigned()  # first macroblock, slice type
        sequence = self._sequences[self._sequence_of[bits.unsigned()]]
        if sequence.frames_only:
            return None
        if sequence.separate_planes:
            bits.take(2)
        number = bits.take(sequence.number_bits)
        return Field(bool(bits.take(1)), number) if bits.take(1) else None


class _Bits:
    """Reads bits from a NAL unit, without the bytes that keep start codes out of it."""

    def __init__(self, unit: bytes) -> None:
        self._data = unit.replace(b"\0\0\3", b"\0\0")
        self._at = 0

    def take(self, count: int) -> int:
        """An unsigned number of `count` bits. Raises IndexError past the end."""
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def unsigned(self) -> int:
        """An Exp-Golomb number, ue(v); for se(v), which is only ever skipped, too."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _skip_scaling(bits: _Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.unsigned()
            delta = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + delta) % 256
        last = following or last


def _configured(extradata: bytes) -> Iterator[bytes]:
    """The parameter sets of an avcC box (ISO/IEC 14496-15, 5.3.3.1)."""
    at = 5
    for mask in (31, 255):
        if at >= len(extradata):
            return
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            yield extradata[at + 2 : at + 2 + size]
            at += 2 + size


def _after_lengths(packet: bytes, length: int) -> Iterator[bytes]:
    at = 0
    while at + length < len(packet):
        size = int.from_bytes(packet[at : at + length], "big")
        yield packet[at + length : at + length + size]
        at += length + size


def _after_start_codes(packet: bytes) -> Iterator[bytes]:
    at = packet.find(b"\0\0\1")
    while at >= 0:
        end = packet.find(b"\0\0\1", at + 3)
        yield packet[at + 3 : end if end >= 0 else len(packet)]
        at = end
