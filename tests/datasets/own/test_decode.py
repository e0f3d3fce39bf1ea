"""Contents: depth in every format, labels by value and colour, masks, boundaries, bands."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from common.annotators import annotators, share
from common.errors import DataError
from datasets.decoding import read_depth
from datasets.labels import LabelError
from datasets.own import decode
from datasets.own.description import Bands, Depth, Edges, Saliency, Segmentation
from tests.datasets.own.folder import save

METRES = np.array([[0.0, 0.5, 1.25], [3.0, 7.5, 9.0]])


def depth(**values: Any) -> Depth:
    return Depth(**{"files": "d/*", "range": (0.1, 10), **values})


def written(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        save(path, array)
    return path


@pytest.mark.parametrize(
    ("name", "array", "unit"),
    [
        ("a.png", (METRES * 20).astype(np.uint8), 0.05),
        ("a.png", (METRES * 1000).astype(np.uint16), 0.001),
        ("a.png", (METRES * 256).astype(np.uint16), 1 / 256),
        ("a.tif", METRES.astype(np.float32), 1.0),
        ("a.tif", (METRES * 1000).astype(np.uint16), 0.001),
        ("a.tif", METRES, 1.0),
        ("a.npy", METRES.astype(np.float32), 1.0),
        ("a.npy", METRES[..., None] * 100, 0.01),
        ("a.npy", (METRES * 1000).astype(np.int32), 0.001),
    ],
)
def test_depth_of_every_format(tmp_path: Path, name: str, array: np.ndarray, unit: float) -> None:
    read = decode.read_depth_map(written(tmp_path / name, array), depth(metres_per_unit=unit))
    assert read.dtype == torch.float32
    expected = array.reshape(METRES.shape).astype(float) * unit
    torch.testing.assert_close(read.double(), torch.from_numpy(expected), rtol=1e-6, atol=0)


def test_millimetres_are_those_of_the_other_readers_to_the_bit(tmp_path: Path) -> None:
    raw = np.arange(1, 65535, dtype=np.uint16).reshape(2, -1)
    path = written(tmp_path / "a.png", raw)
    ours = decode.read_depth_map(path, depth(metres_per_unit=0.001, invalid=(0, 65535)))
    assert torch.equal(ours, read_depth(path, 1000, 65535, (0.1, 10)))


def test_disparity(tmp_path: Path) -> None:
    raw = np.array([[0, 1, 257], [513, 1025, 65535]], np.uint16)
    path = written(tmp_path / "a.png", raw)
    scaled = {"disparity_scale": 1 / 256, "disparity_offset": -1 / 256}
    target = depth(focal_times_baseline=8.0, invalid=[65535], **scaled)
    # (value − 1) / 256 pixels, as Cityscapes writes them: 0, 1, 2 and 4 pixels
    assert decode.read_depth_map(path, target).tolist() == [[0, 0, 8], [4, 2, 0]]


def test_values_without_a_reading(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -np.inf], [-1, 0, 2]], np.float32)
    path = written(tmp_path / "a.tif", values)
    target = depth(metres_per_unit=1.0, invalid=(-1,))
    assert decode.read_depth_map(path, target).tolist() == [[0, 0, 0], [0, 0, 2]]
    with pytest.raises(DataError, match=r"depth -1 is negative: name it in invalid: \[-1\]"):
        decode.read_depth_map(path, depth(metres_per_unit=1.0))


def test_another_unit_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", (METRES * 1000).astype(np.uint16))
    with pytest.raises(DataError, match=r"stored in metres: with metres_per_unit: 0.001 \(milli"):
        decode.read_depth_map(path, depth(metres_per_unit=1.0))


def test_depth_in_colours_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="mode RGB is no map of numbers: write grey PNG, TIFF or"):
        decode.read_depth_map(path, depth(metres_per_unit=1.0))
    with pytest.raises(DataError, match="3 numbers a pixel where one is expected"):
        decode.read_depth_map(
            written(tmp_path / "a.npy", np.ones((4, 4, 3))), depth(metres_per_unit=1.0)
        )


def labels(**values: Any) -> Segmentation:
    return Segmentation.model_validate({"files": "l/*", "classes": ["a", "b", "c"], **values})


COLOURS = [[10, 20, 30], [200, 0, 0], [0, 0, 255]]
INDICES = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_labels_by_value(tmp_path: Path, name: str, kind: Any) -> None:
    if name == "a.png" and kind is np.int32:
        return
    target = labels(classes={5: "a", 40: "b", 7: "c"}, ignore=[9, 255])
    values = np.array([[5, 40, 7], [7, 40, 9]], kind)
    read = decode.read_classes(written(tmp_path / name, values), target)
    assert read.dtype == torch.uint8
    assert torch.equal(read, torch.from_numpy(INDICES))


def test_grey_files_beside_a_palette(tmp_path: Path) -> None:
    """An optimiser writes black and white in colours as grey."""
    path = save(tmp_path / "a.png", np.array([[0, 255], [0, 0]], np.uint8))
    palette = [[0, 0, 0], [255, 255, 255]]
    target = labels(classes={0: "a", 255: "b"}, palette=palette)
    assert decode.read_classes(path, target).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(DataError, match=r"values and colours of the palette alike: write classes"):
        decode.read_classes(path, labels(classes=["a", "b"], palette=palette))
    indices = save(tmp_path / "b.png", np.array([[0, 1], [2, 255]], np.uint8))
    assert decode.read_classes(indices, labels(palette=COLOURS)).tolist() == [[0, 1], [2, 255]]
    wrong = save(tmp_path / "c.png", np.array([[0, 77]], np.uint8))
    with pytest.raises(DataError, match="label 77 is outside"):
        decode.read_classes(wrong, labels(palette=COLOURS))


def test_255_may_be_a_class(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    target = labels(classes={0: "a", 255: "b"}, ignore=[])
    assert decode.read_classes(path, target).tolist() == [[0, 1]]


def test_values_above_a_byte(tmp_path: Path) -> None:
    target = labels(classes={5: "a", 1163: "b", 300: "c"}, ignore=[65535])
    values = np.array([[5, 1163, 300], [300, 1163, 65535]], np.uint16)
    read = decode.read_classes(written(tmp_path / "a.png", values), target)
    assert torch.equal(read, torch.from_numpy(INDICES))
    text = "label 4 is outside 5, 300, 1163 and 255, 65535 in 2 pixels: map it to a class"
    with pytest.raises(DataError, match=text):
        decode.read_classes(written(tmp_path / "b.png", np.array([[5, 4, 4]], np.uint16)), target)
    with pytest.raises(DataError, match="float32 numbers are no class indices"):
        decode.read_classes(written(tmp_path / "b.npy", METRES.astype(np.float32)), target)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_255_is_a_class_where_it_is_named_and_else_ignored(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, np.array([[0, 255, 4]], np.uint8))
    named = labels(classes={0: "ground", 255: "object", 4: "sky"})
    assert decode.read_classes(path, named).tolist() == [[0, 1, 2]]
    other = labels(classes={0: "ground"}, ignore=4)
    assert decode.read_classes(path, other).tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_labels_by_colour(tmp_path: Path, mode: str) -> None:
    table = np.array([*COLOURS, [255, 255, 255]], np.uint8)
    picture = Image.fromarray(table[np.minimum(INDICES, 3)])
    path = tmp_path / "a.png"
    # an adaptive palette has an order of its own
    (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(path)
    assert Image.open(path).mode == mode
    target = labels(palette=COLOURS, ignore_colours=[[255, 255, 255]])
    assert torch.equal(decode.read_classes(path, target), torch.from_numpy(INDICES))
    with pytest.raises(DataError, match=r"colour \[255, 255, 255\] of 1 pixels is none of the pal"):
        decode.read_classes(path, labels(palette=COLOURS))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA"])
def test_masks_of_every_mode(tmp_path: Path, mode: str) -> None:
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(mask).convert(mode).save(path)
    assert decode.read_object_mask(path, Saliency(files="m/*")).tolist() == [[0, 1], [1, 0]]


def test_masks_of_other_values(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 1], [3, 0]], np.uint8))
    with pytest.raises(DataError, match="largest value is 3, nothing is above 128: write thresh"):
        decode.read_object_mask(path, Saliency(files="m/*"))
    target = Saliency(files="m/*", threshold=0, ignore=(3,))
    assert decode.read_object_mask(path, target).tolist() == [[0, 1], [255, 0]]


def test_a_mask_in_colours_or_in_its_transparency_is_refused(tmp_path: Path) -> None:
    coloured = save(tmp_path / "a.png", np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8))
    with pytest.raises(DataError, match="mode RGB with colours: write an 8-bit grey image"):
        decode.read_object_mask(coloured, Saliency(files="m/*"))
    clear = save(tmp_path / "b.png", np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8))
    with pytest.raises(DataError, match="is transparent in places"):
        decode.read_object_mask(clear, Saliency(files="m/*"))


def test_boundaries_of_several_annotators(tmp_path: Path) -> None:
    one, two = np.array([[255, 0, 0]], np.uint8), np.array([[255, 255, 0]], np.uint8)
    paths = [save(tmp_path / "1.png", one), save(tmp_path / "2.png", two)]
    marks = decode.read_marks(paths, Edges(files="e/*"))
    assert annotators(marks) == 2
    assert share(marks).tolist() == [[1.0, 0.5, 0.0]]
    odd = save(tmp_path / "3.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"3×2 pixels but .*1.png has 3×1"):
        decode.read_marks([paths[0], odd], Edges(files="e/*"))


def bands(count: int, **values: Any) -> Bands:
    return Bands(names=tuple("abcde"[:count]), **values)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("a.tif", (8, 6, 5)), ("a.npy", (8, 6, 5)), ("a.tif", (8, 6)), ("a.png", (8, 6)),
     ("a.png", (8, 6, 4)), ("a.png", (8, 6, 2)), ("a.jpg", (8, 6, 3))],
)  # fmt: skip
def test_bands_of_bytes_stay_bytes(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if name == "a.jpg":
        array[:] = 7  # JPEG keeps an even colour
    path = written(tmp_path / name, array)
    count = shape[2] if len(shape) == 3 else 1
    image = decode.read_bands([path], bands(count))
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), array.reshape(8, 6, count))


def test_planar_and_paged_tiffs_give_their_bands_too(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "planar.tif", array, planarconfig="separate", photometric="rgb",
                     extrasamples=[0, 0])  # fmt: skip
    tifffile.imwrite(tmp_path / "paged.tif", array, photometric="minisblack")
    for name in ("planar", "paged"):
        image = decode.read_bands([tmp_path / f"{name}.tif"], bands(5))
        assert np.array_equal(image.numpy(), array)


def test_bands_of_more_bits_are_scaled_and_not_rounded(tmp_path: Path) -> None:
    deep = np.array([[[0, 100], [500, 1000]]], np.uint16)
    path = written(tmp_path / "a.tif", deep)
    image = decode.read_bands([path], bands(2, max=[1000, 500]))
    assert image.dtype == torch.float32
    torch.testing.assert_close(
        image / 255, torch.tensor([[[0, 0.5]], [[0.2, 2.0]]], dtype=torch.float32)
    )
    full = decode.read_bands([path], bands(2))
    torch.testing.assert_close(full[1, 0, 1], torch.tensor(1000 * 255 / 65535))


def test_bands_of_several_files(tmp_path: Path) -> None:
    rgb = save(tmp_path / "a.png", np.full((2, 3, 3), 51, np.uint8))
    far = save(tmp_path / "d.png", np.full((2, 3), 5000, np.uint16))
    image = decode.read_bands([rgb, far], bands(4, max=[255, 255, 255, 10000]))
    torch.testing.assert_close(image[:, 0, 0] / 255, torch.tensor([0.2, 0.2, 0.2, 0.5]))


@pytest.mark.parametrize(
    ("array", "declared", "expected"),
    [
        (np.zeros((4, 6, 5), np.uint8), {"count": 4},
         "5 bands, not the 4 (a, b, c, d) of dataset.yaml: mend bands.names"),
        (np.zeros((4, 6, 2), np.float32), {"count": 2}, "float32 numbers have no largest value"),
        (np.full((4, 6, 2), np.nan, np.float32), {"count": 2, "max": [1.0]},
         "band a has values that are no number"),
    ],
)  # fmt: skip
def test_bands_that_cannot_be_read(
    tmp_path: Path, array: np.ndarray, declared: dict[str, Any], expected: str
) -> None:
    path = written(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        decode.read_bands([path], bands(**declared))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("array", "problem"),
    [(np.ones((4, 6), np.complex64), "complex64"), (np.ones((2, 3, 4, 6), np.uint8), "axes")],
)
def test_a_tiff_of_other_numbers_is_refused(
    tmp_path: Path, array: np.ndarray, problem: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    with pytest.raises(DataError, match=f"a.tif: cannot be read .*{problem}"):
        decode.read_depth_map(path, depth(metres_per_unit=1.0))


def test_a_tiff_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", METRES.astype(np.float32))
    data = bytearray(path.read_bytes())
    (start,), (count,) = struct.unpack_from("<I", data, 4), struct.unpack_from("<H", data, 8)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from("<HHII", data, at)
        for wrong in (0, 1, value * 3, 70_000, 2**32 - 1):
            changed = data.copy()
            struct.pack_into("<I", changed, at + 8, wrong)
            path.write_bytes(changed)
            try:
                read = decode.read_depth_map(path, depth(metres_per_unit=1.0))
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017
            else:
                assert read.ndim == 2, tag


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    for name in ("a.npy", "a.tif", "a.png"):
        path = tmp_path / name
        path.write_bytes(b"II*\0\x08\0\0\0 nothing of the kind")
        with pytest.raises(DataError) as caught:
            decode.read_depth_map(path, depth(metres_per_unit=1.0))
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("array", "options", "refused"),
    [
        ((8, 6, 3), {}, None),
        ((8, 6), {}, None),
        ((8, 6, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, None),
        ((8, 6, 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}, "4 bands"),
        ((8, 6, 5), {"photometric": "minisblack", "planarconfig": "contig"}, "5 bands"),
        ((8, 6, 5), {"photometric": "minisblack"}, "5 bands"),
    ],
)
def test_a_tiff_of_undeclared_bands_is_no_rgb_image(
    tmp_path: Path, array: tuple[int, ...], options: dict[str, Any], refused: str | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros(array, np.uint8), **options)
    if refused is None:
        decode.check_rgb(path)
        return
    with pytest.raises(DataError, match=f"{refused} where RGB or grey is expected: declare them"):
        decode.check_rgb(path)


def test_a_label_outside_survives_a_process(tmp_path: Path) -> None:
    """As readers in other processes hand it over."""
    np.save(tmp_path / "a.npy", np.array([[0, 7, 7]], np.uint8))
    with pytest.raises(LabelError, match="label 7 is outside 0…1 and 255 in 2 pixels") as caught:
        decode.read_classes(tmp_path / "a.npy", labels(classes=["a", "b"]))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.counts) == (str(caught.value), {7: 2})
