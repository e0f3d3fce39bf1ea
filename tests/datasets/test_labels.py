"""Reading of label maps: whatever stores them, the labels are those that were written."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.labels import read_labels, voc_colour
from tests.datasets.test_decoding import GENERATOR, RGB, H, W, message, save

COLOURS = tuple(voc_colour(index) for index in range(12))


def labels(path: Path, palette: Sequence[tuple[int, int, int]] = ()) -> torch.Tensor:
    return read_labels(path, range(11), void=(11,), palette=palette)


def written(values: Sequence[int]) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (H, W))


def expected(written: np.ndarray) -> np.ndarray:
    return np.where(written == 11, 255, written)


def save_bits(path: Path, stored: np.ndarray, bits: int) -> Path:
    """A grey PNG of 1, 2 or 4 bits, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    planes = np.unpackbits(stored[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(planes.reshape(len(stored), -1), axis=1)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", stored.shape[1], len(stored), bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def save_palette(path: Path, indices: np.ndarray, colours: np.ndarray) -> Path:
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(colours.astype(np.uint8).tobytes())
    image.save(path)
    return path


# --- values


def test_labels_keep_indices_and_ignore_void(tmp_path: Path) -> None:
    indices = written([*range(12), 255])
    grey = save(tmp_path / "grey.png", indices)
    colours = GENERATOR.integers(0, 256, (256, 3), dtype=np.uint8)
    palette = save_palette(tmp_path / "palette.png", indices, colours)
    for path in (grey, palette):
        result = labels(path)
        assert result.dtype == torch.uint8
        assert np.array_equal(result.numpy(), expected(indices))


def test_label_out_of_range(tmp_path: Path) -> None:
    indices = np.zeros((H, W), np.uint8)
    indices[3, 4] = 37
    path = save(tmp_path / "a.png", indices)
    text = (
        f"{path}: label 37 is outside 0…10 and 11, 255 in 1 pixel: map it to a class, or to 255 to"
    )
    assert message(lambda: labels(path)).startswith(text)


def test_labels_of_16_bits(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", written([0, 1, 2]).astype(np.uint16) * 400)
    assert labels_of(path, (0, 400, 800)) == [0, 1, 2]
    message(
        lambda: labels(path), path, "labels 400 (256 pixels), 800 (256 pixels) are outside 0…10"
    )
    path = save(tmp_path / "b.tif", np.full((H, W), 70000, np.int32))
    message(lambda: labels(path), path, "values 70000…70000 where 16 bits are expected")


def labels_of(path: Path, ids: Sequence[int]) -> list[int]:
    return read_labels(path, ids).unique().tolist()


def test_jpeg_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", written([0, 1]))
    message(lambda: labels(path), path, "JPEG changes labels", "PNG")


# --- greys of few bits


@pytest.mark.parametrize(("bits", "factor"), [(2, 85), (4, 17)])
def test_greys_of_few_bits_are_not_scaled(tmp_path: Path, bits: int, factor: int) -> None:
    stored = written(range(3 if bits == 2 else 11))
    path = save_bits(tmp_path / "a.png", stored, bits)
    with Image.open(path) as picture:  # what every decoder makes of them
        assert np.array_equal(np.array(picture), stored * factor)
    assert np.array_equal(labels(path).numpy(), stored)
    ids = [label * factor for label in range(3)]  # what an optimiser makes of 8 bits
    assert labels_of(save_bits(path, written([0, 1, 2]), bits), ids) == [0, 1, 2]


def test_greys_of_few_bits_with_two_meanings(tmp_path: Path) -> None:
    path = save_bits(tmp_path / "a.png", written([0, 3]), 2)
    message(lambda: labels(path), path, "2-bit grey", "may be 0, 3 or 0, 255", "write 8-bit grey")
    path = save_bits(tmp_path / "b.png", written([0, 1]), 1)
    message(lambda: labels(path), path, "1-bit grey", "may be 0…1 or 0, 255", "write 8-bit grey")
    assert not labels(save_bits(path, written([0]), 1)).any()
    path = save_bits(tmp_path / "c.png", written([0, 13]), 4)
    message(lambda: labels(path), path, "4-bit grey", "label 0, 13 or 0, 221 is outside 0…10")


def test_a_pgm_of_few_levels(tmp_path: Path) -> None:
    stored = written(range(11))
    path = tmp_path / "a.pgm"
    path.write_bytes(f"P5 {W} {H} 20\n".encode() + stored.tobytes())
    assert np.array_equal(labels(path).numpy(), stored)


# --- palettes


def test_greys_of_a_palette_are_the_labels(tmp_path: Path) -> None:
    """An optimiser keeps the greys that occur, in any order."""
    greys = np.array([11, 3, 255, 0, 7])
    indices = written(range(5))
    path = save_palette(tmp_path / "a.png", indices, np.stack([greys] * 3, 1))
    for palette in ((), COLOURS):
        assert np.array_equal(labels(path, palette).numpy(), expected(greys[indices]))
    path = save_palette(path, indices, np.stack([greys + 30 * (greys == 7)] * 3, 1))
    message(lambda: labels(path), path, "label 37 is outside 0…10")


def test_black_and_white_of_a_palette_have_two_meanings(tmp_path: Path) -> None:
    path = save_palette(tmp_path / "a.png", written([0, 1]), np.array([[0] * 3, [255] * 3]))
    message(lambda: labels(path), path, "black and white", "may be 0…1 or 0, 255", "8-bit grey")


def test_a_sorted_palette_is_read_by_its_colours(tmp_path: Path) -> None:
    order = np.array([5, 11, 0, 2])
    indices = written(range(4))
    path = save_palette(tmp_path / "a.png", indices, np.array(COLOURS)[order])
    assert np.array_equal(labels(path, COLOURS).numpy(), expected(order[indices]))
    assert np.array_equal(labels(path).numpy(), indices)  # colours that nobody has declared


# --- colours


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_a_declared_palette(tmp_path: Path, mode: str) -> None:
    classes = written(range(12))
    path = save(tmp_path / "a.png", np.array(COLOURS, np.uint8)[classes], mode)
    assert np.array_equal(labels(path, COLOURS).numpy(), expected(classes))
    message(lambda: labels(path), path, f"mode {mode} is no map of class indices", "8-bit grey")
    message(lambda: labels(path, COLOURS[:9]), path, "colour (64, 128, 0) of ", "2 more colours")
    message(lambda: labels(path, (COLOURS[0],) * 12), path, f"mode {mode} is no map of class")


def test_an_unknown_colour_is_counted(tmp_path: Path) -> None:
    colours = np.array(COLOURS, np.uint8)[written(range(3))]
    colours[0, :5] = (1, 2, 3)
    path = save(tmp_path / "a.png", colours)
    text = "colour (1, 2, 3) of 5 pixels: no label has it: take the original file"
    message(lambda: labels(path, COLOURS), path, text)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_labels_saved_in_colour(tmp_path: Path, mode: str) -> None:
    indices = written(range(11))
    path = save(tmp_path / "a.png", indices, mode)
    for palette in ((), COLOURS):
        assert np.array_equal(labels(path, palette).numpy(), indices)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_labels_that_are_transparent(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(written(range(11))).convert(mode)
    picture.putalpha(254)
    picture.save(tmp_path / "a.png")
    message(lambda: labels(tmp_path / "a.png"), "a.png: is transparent in places", "8-bit grey")


def test_other_modes_are_no_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", RGB, "CMYK")
    message(lambda: labels(path), path, "mode CMYK is no map of class indices")
