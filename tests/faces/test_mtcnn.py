"""The cascade against facenet-pytorch's own, whose weights it runs on."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.people import scene
from deepscan.config import Sampling
from deepscan.errors import WeightsMismatch, WeightsMissing
from deepscan.faces import mtcnn, suppression
from deepscan.faces.finder import shrink
from deepscan.faces.mtcnn import FIELD, Detections, Mtcnn, SummedArea
from deepscan.media.video import VideoSource

SIZES = (20.0, 64.0)


@pytest.fixture(scope="module")
def net() -> Mtcnn:
    return Mtcnn()


@pytest.fixture(scope="module")
def oracle() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from facenet_pytorch import MTCNN

        return MTCNN(keep_all=True)


def by_size(boxes: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    order = np.argsort((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return [boxes[order], *(other[order] for other in others)]


def assert_as_facenet(net: Mtcnn, oracle: Any, images: np.ndarray, smallest: float) -> int:
    """Same faces, each within a pixel and 0.01; returns how many they are."""
    oracle.min_face_size = smallest
    boxes, confidences, points = oracle.detect(images, landmarks=True)
    found = net.detect(images, smallest)
    assert [len(one.boxes) for one in found] == [0 if b is None else len(b) for b in boxes]
    for one, box, confidence, point in zip(found, boxes, confidences, points, strict=True):
        if box is not None:
            ours = by_size(one.boxes, one.landmarks, one.confidences)
            theirs = by_size(*(np.asarray(x, np.float32) for x in (box, point, confidence)))
            for a, b, most in zip(ours, theirs, (1, 1, 0.01), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=most)
    return sum(len(one.boxes) for one in found)


@pytest.mark.parametrize("smallest", SIZES)
def test_finds_what_facenet_finds(net: Mtcnn, oracle: Any, smallest: float) -> None:
    frames = [
        scene(640, 480, (20, 60, 220), (330, 20, 440)),
        scene(640, 480),
        scene(640, 480, (100, 0, 470)),
        scene(640, 480, (-60, 200, 400), (500, 100, 300), (300, 10, 120)),
    ]
    images = np.stack([frame.pixels for frame in frames])
    assert assert_as_facenet(net, oracle, images, smallest) >= 5


@pytest.mark.parametrize("smallest", SIZES)
def test_finds_what_facenet_finds_in_parts(
    net: Mtcnn, oracle: Any, smallest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little is seen and compared at a time."""
    monkeypatch.setattr(mtcnn, "AT_ONCE", 4000)
    monkeypatch.setattr(mtcnn, "STRIP", 4000)
    monkeypatch.setattr(mtcnn, "SUMMED", 200_000)
    monkeypatch.setattr(suppression, "COMPARED", 7)
    images = np.stack([scene(320, 240, (x, 20, 200)).pixels for x in (0, 60, 120)])
    assert assert_as_facenet(net, oracle, images, smallest) >= 3


@pytest.mark.shared
@pytest.mark.slow
def test_finds_what_facenet_finds_in_every_clip(net: Mtcnn, oracle: Any, shared: Path) -> None:
    clips = sorted((shared / "clips").glob("*/*.mp4"))
    assert len(clips) == 12
    for clip in clips:
        source = VideoSource(clip)
        frames = list(source.decode(source.choose(Sampling(frames=2))))
        height, width = frames[0].pixels.shape[:2]
        scale = min(1.0, 960 / max(height, width))
        size = (round(width * scale), round(height * scale))
        images = np.stack([shrink(frame.pixels, size) for frame in frames])
        assert assert_as_facenet(net, oracle, images, 40 * scale) > 0, clip.name


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 40), (40, 13), (31, 25)])
def test_the_first_network_says_what_facenets_does(
    net: Mtcnn, oracle: Any, height: int, width: int, rng: np.random.Generator
) -> None:
    # Layer and pool are one step here and two there; an odd side ends in half a pool.
    pixels = torch.from_numpy(rng.integers(0, 256, (2, 3, height, width)).astype(np.float32))
    with torch.inference_mode():
        score, move = net._pnet(pixels)
        moves, scores = oracle.pnet((pixels - 127.5) / 128)
    torch.testing.assert_close(score, scores[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(move, moves, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 300), (12, 12), (13, 40), (30, 25)])
def test_pictures_with_no_room_for_a_face_hold_none(net: Mtcnn, height: int, width: int) -> None:
    for smallest in (12.0, 20.0):
        found = net.detect(np.full((2, height, width, 3), 90, np.uint8), smallest)
        assert [len(one.boxes) for one in found] == [0, 0]
        assert isinstance(found[0], Detections)
        assert found[0].confidences.shape == (0,)
        assert found[0].landmarks.shape == (0, 5, 2)


def test_a_face_says_where_the_eyes_are_and_the_surest_comes_first(net: Mtcnn) -> None:
    images = scene(640, 480, (20, 60, 220), (330, 20, 440)).pixels[None]
    (found,) = net.detect(images, 40.0)
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]
    assert (np.diff(found.confidences) <= 0).all()


@pytest.mark.parametrize("size", [(24, 24), (48, 48), (7, 30)])
def test_crops_are_resampled_as_by_adaptive_pooling(
    size: tuple[int, int], rng: np.random.Generator
) -> None:
    """Larger, smaller and oblong ones, down to one pixel and up to the whole image."""
    images = rng.integers(0, 256, (3, 90, 130, 3), np.uint8)
    crops = [(0, 0, 130, 90), (3, 5, 4, 6), (100, 20, 130, 31), (7, 0, 31, 24), (60, 40, 113, 89)]
    owner = np.array([2, 0, 1, 1, 0])
    got = SummedArea(images, torch.device("cpu")).means(owner, np.array(crops), size)
    assert got.is_contiguous(memory_format=torch.channels_last)
    for i, (left, top, right, bottom) in enumerate(crops):
        crop = torch.from_numpy(images[owner[i], top:bottom, left:right]).permute(2, 0, 1).double()
        pooled = torch.nn.functional.adaptive_avg_pool2d(crop, size)
        torch.testing.assert_close(got[i].double(), pooled, rtol=1e-6, atol=0)


def test_sums_beyond_32_bits_still_make_exact_means() -> None:
    images = np.full((1, 2950, 2950, 3), 255, np.uint8)  # 2.2e9 in all
    images[0, 2900:2910, 2900:2910] = 7
    crops = np.array([(2900, 2900, 2910, 2910), (0, 0, 2900, 2900)])
    got = SummedArea(images, torch.device("cpu")).means(np.array([0, 0]), crops, (2, 2))
    assert got[0].unique().tolist() == [7]
    assert got[1].unique().tolist() == [255]


@pytest.mark.slow
def test_a_large_frame_and_many_boxes_take_little_memory() -> None:
    """In a fresh process: 6 million pixels searched at full size, then the boxes of a crowd compared."""
    code = """
import resource
import numpy as np
from deepscan.faces.mtcnn import Mtcnn
from deepscan.faces.suppression import suppress
from builders.people import scene

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

net, image = Mtcnn(), scene(2400, 2400, (100, 100, 60), (1500, 1700, 300)).pixels[None]
net.detect(image[:, :400, :400], 12.0)
before = peak()
(found,) = net.detect(image, 12.0)
searched = peak()
corner = 20 * np.column_stack(np.divmod(np.arange(60_000), 300))
boxes = np.hstack([corner, corner + 24]).astype(np.float32)
kept = suppress(boxes, np.linspace(1, 0, len(boxes), dtype=np.float32), np.zeros(len(boxes), int), 0.5)
print(len(found.boxes), len(kept), searched - before, peak() - searched)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    faces, kept, searching, comparing = map(float, done.stdout.split())
    assert (faces >= 2, kept) == (True, 60_000)
    # 66 MiB of sums and some 100 MiB for a strip.
    assert searching < 300
    assert comparing < 100


@pytest.mark.parametrize(("height", "width"), [(12, 50), (13, 50), (100, 90), (101, 90)])
def test_strips_hold_each_field_once(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtcnn, "STRIP", 20 * width)
    strips = list(mtcnn._strips((height, width)))
    tops = [top for s in strips for top in range(s.start, s.stop - FIELD + 1, 2)]
    assert tops == list(range(0, height - FIELD + 1, 2))
    assert strips[-1].stop == height  # with half a step, if any, at its end
    assert all(s.stop - s.start <= 20 + FIELD for s in strips)


@pytest.mark.parametrize("strip", [4000, 40_000])
def test_strips_change_nothing(net: Mtcnn, strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a bit, of odd sizes too."""
    images = np.stack([scene(641, 483, (x, 20, 200), (400, x, 90)).pixels for x in (0, 60)])
    whole = net.detect(images, 14.0)
    monkeypatch.setattr(mtcnn, "STRIP", strip)
    for one, other in zip(net.detect(images, 14.0), whole, strict=True):
        assert len(one.boxes) >= 2
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.confidences, other.confidences)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_starts_without_torchvision_and_facenet() -> None:
    code = "import sys, deepscan.faces.finder as f; f.FaceFinder(40, 0.9, 960); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in loaded
    assert not loaded & {"torchvision", "facenet_pytorch", "sympy"}


def test_weights_that_are_not_there_or_not_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "facenet_pytorch"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "facenet_pytorch"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(WeightsMissing, match=r"pnet\.pt.*lacks.*reinstall"):
        Mtcnn()
    for content in ({"conv1.weight": torch.zeros(3)}, [1, 2]):
        torch.save(content, package / "data" / "pnet.pt")
        with pytest.raises(WeightsMismatch, match=r"pnet\.pt: not MTCNN's"):
            Mtcnn()
    for junk in (b"", b"no weights at all"):
        (package / "data" / "pnet.pt").write_bytes(junk)
        with pytest.raises(WeightsMismatch, match=r"pnet\.pt: not MTCNN's"):
            Mtcnn()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsMissing, match="pip install facenet-pytorch"):
        Mtcnn()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here to look for faces on")
def test_a_gpu_finds_what_the_processor_finds(net: Mtcnn) -> None:
    frames = [
        scene(640, 480, (20, 60, 220), (330, 20, 440)),
        scene(640, 480),
        scene(640, 480, (-60, 200, 400), (500, 100, 300), (300, 10, 120)),
    ]
    images = np.stack([frame.pixels for frame in frames])
    there = Mtcnn("cuda").detect(images, 20.0)
    for a, b in zip(net.detect(images, 20.0), there, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, rtol=0, atol=0.1)
        np.testing.assert_allclose(a.landmarks, b.landmarks, rtol=0, atol=0.1)
        np.testing.assert_allclose(a.confidences, b.confidences, rtol=0, atol=1e-3)
