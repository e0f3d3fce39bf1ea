"""Reading of images, label maps, masks and depth maps: what is right, and every error."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import limits
from common.errors import DataError
from datasets.decoding import (
    orient,
    read_depth,
    read_image,
    read_mask,
    read_stored,
    upright,
    warn_of_unit,
)
from datasets.labels import read_labels

H, W = 24, 32
GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (H, W, 3), dtype=np.uint8)


def labels(path: Path) -> torch.Tensor:
    return read_labels(path, range(11), void=(11,))


def depth(path: Path) -> torch.Tensor:
    return read_depth(path, 1000, 65535, (0.1, 10.0))


READERS = [read_image, labels, read_mask, depth]


def message(call: Callable[[], object], *parts: object) -> str:
    """The one line of the DataError that ``call`` raises; it holds all ``parts``."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text
    return text


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


# --- images


def test_image_is_the_pixels_of_the_file(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", RGB))
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), RGB, mode)
    expected = np.array(Image.open(path).convert("RGB"))
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), expected)


def test_grey_image_has_three_equal_channels(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", RGB[:, :, 0]))
    assert torch.equal(image, torch.from_numpy(RGB[:, :, 0]).expand(3, H, W))


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    plain, turned = tmp_path / f"plain{suffix}", tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(plain)
    Image.fromarray(RGB).save(turned, exif=exif)
    expected = TURNS[orientation](read_image(plain).permute(1, 2, 0).numpy())
    assert np.array_equal(read_image(turned).permute(1, 2, 0).numpy(), expected)


def test_damaged_metadata_is_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0")
    palette = Image.fromarray(RGB).convert("P")
    palette.save(tmp_path / "b.png", transparency=bytes(range(8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (3, H, W)
        assert read_image(tmp_path / "b.png").shape == (3, H, W)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_image_as_it_is_stored(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    stored, seen = read_stored(path)
    assert seen == orientation
    assert stored.shape == (3, H, W)
    difference = stored.permute(1, 2, 0).numpy().astype(int) - RGB
    assert abs(difference).mean() < (50 if suffix == ".jpg" else 1e-9)
    turned = TURNS[orientation](stored.permute(1, 2, 0).numpy())
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), turned)


@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_lies_as_its_targets_do(orientation: int) -> None:
    stored = torch.from_numpy(RGB).permute(2, 0, 1)
    turned = upright(stored, orientation)
    swaps = orientation > 4

    def lies(*sizes: tuple[int, int]) -> tuple[torch.Tensor, str | None]:
        targets = [(Path(f"{i}.png"), "mask", torch.zeros(size)) for i, size in enumerate(sizes)]
        return orient(Path("a.jpg"), stored, orientation, targets)

    image, doubt = lies((H, W))
    assert torch.equal(image, stored)
    assert (doubt is None) == (orientation == 1 or swaps)
    if swaps:
        image, doubt = lies((W, H))
        assert torch.equal(image, turned)
        assert doubt is None
        message(lambda: lies((H, W), (W, H)), f"1.png: mask of {H}×{W} pixels but its image a.jpg")
    tag = f" has {W}×{H} and EXIF orientation {orientation}: take" if orientation > 1 else f"{H}: "
    message(lambda: lies((H, W), (H, 9)), f"1.png: mask of 9×{H} pixels but its image a.jpg", tag)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_image_of_more_than_8_bits(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "a.tif", RGB[:, :, 0].astype(dtype))
    message(lambda: read_image(path), path, "8-bit RGB")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("limit", [H * W - 1, H * W // 3])
def test_image_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], limit: int
) -> None:
    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(limits, "PIXELS", limit)
    message(lambda: read(path), path, limit, "reduce the image")


@pytest.mark.parametrize("read", READERS)
def test_unreadable_files(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "a.png"
    message(lambda: read(path), path, "is missing")
    path.write_bytes(b"")
    message(lambda: read(path), path, "empty (0 bytes)", "again")
    path.write_bytes(b"<html>not found</html>")
    message(lambda: read(path), path, "not an image", "again")
    message(lambda: read(tmp_path), tmp_path, "cannot be read")
    for file in (save(tmp_path / "b.png", RGB), save(tmp_path / "b.jpg", RGB)):
        file.write_bytes(file.read_bytes()[:-300])
        if read is read_image:
            message(lambda file=file: read(file), file, "cannot be read", "truncated", "again")
        else:
            message(lambda file=file: read(file), file)


def test_other_programs_are_not_started(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path, format="EPS")
    message(lambda: read_image(path), path, "not an image")


# --- masks


def test_mask_is_one_above_128(tmp_path: Path) -> None:
    grey = np.resize(np.array([0, 1, 127, 128, 129, 254, 255], np.uint8), (H, W))
    mask = read_mask(save(tmp_path / "a.png", grey))
    assert mask.dtype == torch.uint8
    assert np.array_equal(mask.numpy(), grey > 128)
    one_bit = read_mask(save(tmp_path / "b.png", grey > 128))
    assert torch.equal(one_bit, mask)
    assert not read_mask(save(tmp_path / "c.png", grey * 0)).any()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_mask_of_another_mode(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.png", RGB, mode)
    message(lambda: read_mask(path), path, f"mode {mode} is no mask", "0 = background")


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "RGBA"])
def test_a_grey_mask_saved_in_colour(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.resize(np.array([0, 255, 128, 129], np.uint8), (H, W)))
    grey.convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png").numpy(), np.array(grey) > 128)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_alpha_that_may_be_the_mask(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.resize(np.array([0, 255], np.uint8), (H, W)))
    picture = grey.convert(mode)
    picture.putalpha(7)  # the same everywhere says nothing
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png").numpy(), np.array(grey) > 128)
    picture.putpixel((0, 0), (0,) * (len(mode) - 1) + (9,))
    picture.save(tmp_path / "a.png")
    message(lambda: read_mask(tmp_path / "a.png"), "a.png: alpha of 7…9 may be the mask", "grey")


def test_mask_of_16_bits(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB[:, :, 0].astype(np.uint16))
    message(lambda: read_mask(path), path, "is no mask", "8-bit grey")


@pytest.mark.parametrize("top", [1, 128])
def test_mask_of_small_values(tmp_path: Path, top: int) -> None:
    path = save(tmp_path / "a.png", np.eye(H, W, dtype=np.uint8) * np.uint8(top))
    message(lambda: read_mask(path), path, f"largest value is {top}, ", "255 = object")
    assert not read_mask(path, graded=True).any()


# --- depth


def test_depth_in_metres(tmp_path: Path) -> None:
    raw = np.resize(np.array([0, 1, 1500, 9999, 65534, 65535], np.uint16), (H, W))
    result = depth(save(tmp_path / "a.png", raw))
    expected = np.where(raw == 65535, 0, raw).astype(np.float32) / np.float32(1000)
    assert result.dtype == torch.float32
    assert np.array_equal(result.numpy(), expected)
    assert torch.equal(depth(save(tmp_path / "b.tif", raw.astype(np.int32))), result)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "RGBA"])
def test_depth_of_8_bits(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.png", RGB, mode)
    message(lambda: depth(path), path, f"8 bits a channel (mode {mode})", "original depth file")


def test_depth_of_any_number_of_levels(tmp_path: Path) -> None:
    raw = np.resize(np.array([0, 1, 1500, 9999], np.uint16), (H, W))
    header = f"P5 {W} {H} 9999\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + raw.astype(">u2").tobytes())
    assert np.array_equal(depth(tmp_path / "a.pgm").numpy(), raw / np.float32(1000))


@pytest.mark.parametrize("value", [-5, 70000])
def test_depth_beyond_16_bits(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / "a.tif", np.full((H, W), value, np.int32))
    message(lambda: depth(path), path, f"values {value}…{value}")


@pytest.mark.parametrize("value", [0, 65535, 99, 10001])
def test_depth_without_a_valid_pixel(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / "a.png", np.full((H, W), value, np.uint16))
    message(lambda: depth(path), path, "no pixel has a depth within 0.1…10 m", "remove the frame")


def test_depth_out_of_range_tells_the_range(tmp_path: Path) -> None:
    raw = np.resize(np.array([0, 2, 9], np.uint16), (H, W))
    path = save(tmp_path / "a.png", raw)  # metres where millimetres are expected
    message(lambda: depth(path), path, "but 0.002…0.009 m, read as millimetres", "mend its unit")


@pytest.mark.parametrize(
    ("values", "per_metre", "suspicious"),
    [
        ([0, 1, 40, 80], 256, True),  # metres as whole numbers
        ([0, 1, 40, 100], 256, False),
        ([0, 0.2, 0.3], 1, False),  # metres with a fraction may be small
        ([0, 20, 31, 40], 1, True),  # the median is over three times the limit
        ([0, 20, 30, 40], 1, False),
        ([0, 2000, 3000], 1000, False),
        ([0, 0], 1000, False),
    ],
)
def test_a_unit_that_looks_wrong(
    recwarn: pytest.WarningsRecorder, values: list[float], per_metre: int, suspicious: bool
) -> None:
    metres = torch.tensor(values) / per_metre
    assert warn_of_unit("a.png", metres, per_metre, (0.1, 10)) is suspicious
    texts = [str(warning.message) for warning in recwarn]
    assert len(texts) == suspicious
    if suspicious:
        known = metres[metres > 0]
        seen = f"a.png: depths of {known.min():g}…{known.max():g} m, median {known.median():g} m"
        assert texts[0].startswith(seen)
