"""Videos and pictures are known by their first bytes, whatever their name."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import clips
from deepscan.media.recognise import HEAD, is_media, is_sound


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.avi", "libx264"),
        ("a.flv", "libx264"), ("a.ts", "libx264"), ("a.m2ts", "libx264"), ("a.nut", "libx264"),
        ("a.h264", "libx264"), ("a.hevc", "libx265"), ("a.mpg", "mpeg2video"), ("a.m2v", "mpeg2video"),
        ("a.mxf", "mpeg2video"), ("a.m4v", "mpeg4"), ("a.webm", "libvpx"), ("a.ivf", "libvpx"),
        ("a.wmv", "wmv2"), ("a.gif", "gif"), ("a.obu", "libsvtav1"),
    ],
)  # fmt: skip
def test_videos(tmp_path: Path, name: str, codec: str) -> None:
    options = {"libx265": {"x265-params": "log-level=none"}}.get(codec)
    form, ticks = (
        "bgr8" if codec == "gif" else "yuv420p",
        25 if codec in ("mpeg2video", "wmv2") else None,
    )
    clip = clips.write(tmp_path / name, 12, codec, form, options=options, ticks=ticks)
    head = clip.read_bytes()[:HEAD]
    assert is_media(head)
    assert not is_sound(head)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no such call")
def test_encoding_leaves_the_thread_as_it_was(tmp_path: Path) -> None:
    """SVT-AV1 makes it a real-time one where root runs it; other tests would wait for ever."""
    before = os.sched_getscheduler(0)
    clips.write(tmp_path / "a.obu", 2, "libsvtav1")
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000"])
def test_pictures(form: str) -> None:
    out = io.BytesIO()
    Image.fromarray(clips.quarters()).save(out, form)
    assert is_media(out.getvalue()[:HEAD])


def test_a_transport_stream_cut_anywhere_is_one(tmp_path: Path) -> None:
    whole = clips.write(tmp_path / "a.ts", 25, "libx264").read_bytes()
    assert len(whole) > HEAD + 187
    assert all(is_media(whole[at : at + HEAD]) for at in range(188))


def test_other_files_are_none() -> None:
    icon = b"\0\0\1\0\1\0" + bytes(HEAD)
    noise = np.random.default_rng(0).integers(0, 256, HEAD, np.uint8).tobytes()
    for content in (
        icon,
        noise,
        b"BMX is a bicycle",
        b"G" * 10,
        b"%PDF-1.7",
        b"PK\3\4",
        bytes(HEAD),
        b"",
    ):
        assert not is_media(content[:HEAD])
