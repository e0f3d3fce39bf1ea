"""Augmentation: geometry that can be checked by hand, and labels that stay with their pixels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.errors import UsageError
from datasets.augment import Augment, Geometry
from datasets.base import TARGETS

SIZE = (12, 17)
Batch = tuple[Tensor, dict[str, Tensor]]


def batch_of(height: int, width: int, count: int = 4) -> Batch:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, height, width, generator=random)
    labels = torch.randint(0, 5, (count, height, width), generator=random).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=random) < 0.2] = 255
    depth = 1 + 9 * torch.rand(count, height, width, generator=random)
    depth[torch.rand(depth.shape, generator=random) < 0.2] = 0
    mask = (labels == 1).to(torch.uint8)
    return images, {"segmentation": labels, "depth": depth, "saliency": mask, "edges": mask + 2}


def still(count: int, size: tuple[int, int], left: float = 0, top: float = 0) -> Geometry:
    """A geometry that only moves."""
    matrix = torch.tensor([[1, 0, -left], [0, 1, -top]]).float().repeat(count, 1, 1)
    return Geometry(matrix, torch.ones(count), size)


def drawing(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Let every random number be ``value``."""
    monkeypatch.setattr(torch, "rand", lambda count: torch.full((count,), value))


def test_identity_leaves_everything_as_it_is() -> None:
    images, targets = batch_of(*SIZE)
    moved, moved_targets = Augment(SIZE, flip=False)(images, targets)
    torch.testing.assert_close(moved, images, rtol=0, atol=1e-5)
    assert set(moved_targets) == set(targets)
    for name, target in targets.items():
        assert torch.equal(moved_targets[name], target), name
        assert moved_targets[name].dtype == target.dtype


def test_a_flip_is_torch_flip_of_image_and_targets() -> None:
    images, targets = batch_of(*SIZE, count=16)
    augment = Augment(SIZE)
    torch.manual_seed(0)
    mirrored = augment.sample(16).matrix[:, 0, 0] < 0
    assert 0 < int(mirrored.sum()) < 16
    torch.manual_seed(0)
    moved, moved_targets = augment(images, targets)
    for index in range(16):
        flip: Callable[[Tensor], Tensor] = (
            (lambda x: x.flip(-1)) if mirrored[index] else torch.clone
        )
        torch.testing.assert_close(moved[index], flip(images[index]), rtol=0, atol=1e-5)
        for name, target in targets.items():
            assert torch.equal(moved_targets[name][index], flip(target[index])), name


def test_half_of_the_images_are_flipped_and_none_where_it_is_off() -> None:
    torch.manual_seed(0)
    share = (Augment(SIZE).sample(2000).matrix[:, 0, 0] < 0).float().mean()
    assert 0.45 < float(share) < 0.55
    assert (Augment(SIZE, flip=False).sample(200).matrix[:, 0, 0] > 0).all()


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (4, 8)])
def test_a_whole_pixel_crop_is_a_slice(top: int, left: int) -> None:
    images, targets = batch_of(*SIZE)
    augment = Augment(SIZE, crop=(8, 9))
    geometry = still(4, (8, 9), left, top)
    window = (..., slice(top, top + 8), slice(left, left + 9))
    torch.testing.assert_close(augment.warp(geometry, images), images[window], rtol=0, atol=1e-5)
    for name, target in targets.items():
        assert torch.equal(augment.warp_target(geometry, name, target), target[window]), name


def test_outside_the_image_is_black_and_ignored() -> None:
    images, targets = batch_of(*SIZE)
    augment = Augment(SIZE)
    geometry = still(4, SIZE, left=-6, top=2)  # moved six right and two up
    moved = augment.warp(geometry, images)
    assert not moved[..., :6].any()
    assert not moved[..., -2:, :].any()
    torch.testing.assert_close(moved[..., :-2, 6:], images[..., 2:, :-6], rtol=0, atol=1e-5)
    for name, target in targets.items():
        out = augment.warp_target(geometry, name, target)
        assert (out[..., :6] == TARGETS.get(name).ignore).all()
        assert (out[..., -2:, :] == TARGETS.get(name).ignore).all()
        assert torch.equal(out[..., :-2, 6:], target[..., 2:, :-6])


@pytest.mark.parametrize(("value", "corner"), [(0.0, (0, 0)), (1.0, (12, 17))])
def test_zoom_2_doubles_pixels_and_halves_depth(
    monkeypatch: pytest.MonkeyPatch, value: float, corner: tuple[int, int]
) -> None:
    images, targets = batch_of(*SIZE)
    augment = Augment(SIZE, zoom=(2, 2), flip=False)
    drawing(monkeypatch, value)  # the window in the first, or the last corner
    moved, moved_targets = augment(images, targets)
    assert moved.shape == images.shape
    window = (..., slice(corner[0], corner[0] + 12), slice(corner[1], corner[1] + 17))
    for name, target in targets.items():
        doubled = target.repeat_interleave(2, -1).repeat_interleave(2, -2)[window]
        expected = doubled / 2 if name == "depth" else doubled
        assert torch.equal(moved_targets[name], expected), name


def test_zoom_below_1_shows_the_whole_image_farther_away(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (8, 12)
    images, labels = torch.ones(2, 3, *size), torch.full((2, *size), 3, dtype=torch.uint8)
    depth = torch.full((2, *size), 5.0)
    drawing(monkeypatch, 0.0)
    moved, targets = Augment(size, zoom=(0.5, 0.5), flip=False)(
        images, {"segmentation": labels, "depth": depth}
    )
    inside = torch.zeros(size, dtype=torch.bool)
    inside[:4, :6] = True
    assert (targets["segmentation"] == torch.where(inside, 3, 255)).all()
    assert torch.equal(targets["depth"], torch.where(inside, 10.0, 0.0).expand(2, *size))
    torch.testing.assert_close(moved, inside.float().expand(2, 3, *size))


@pytest.mark.parametrize("zoom", [(0.5, 2.0), (1.0, 1.0), (1.3, 1.7)])
def test_labels_stay_with_their_pixels(zoom: tuple[float, float]) -> None:
    """The image carries its own coordinates; wherever a pixel goes, its label goes with it."""
    height, width, count = 20, 30, 24
    rows = torch.arange(height).float().view(1, height, 1).expand(count, height, width)
    columns = torch.arange(width).float().view(1, 1, width).expand(count, height, width)
    images = torch.stack([rows, columns, torch.ones_like(rows)], dim=1)
    code = (rows * width + columns + 1).clone()  # as a depth: float, and never 0
    targets = {
        "segmentation": rows.to(torch.uint8),
        "saliency": columns.to(torch.uint8),
        "depth": code,
    }
    augment = Augment((height, width), crop=(16, 22), zoom=zoom)
    torch.manual_seed(0)
    geometry = augment.sample(count)
    torch.manual_seed(0)
    moved, out = augment(images, targets)
    assert moved.shape == (count, 3, 16, 22)
    inner = moved[:, 2] > 1 - 1e-4  # all four neighbours lie in the image
    assert inner.float().mean() > 0.3
    y, x = moved[:, 0], moved[:, 1]
    assert ((y - out["segmentation"].float()).abs()[inner] <= 0.5 + 1e-3).all()
    assert ((x - out["saliency"].float()).abs()[inner] <= 0.5 + 1e-3).all()
    place = (out["depth"] * geometry.zoom[:, None, None])[inner].round() - 1
    assert torch.equal(place // width, out["segmentation"][inner].float())
    assert torch.equal(place % width, out["saliency"][inner].float())
    # one step to the right is 1 / zoom pixels of the source, or as many to the left
    steps = (x[:, :, 1:] - x[:, :, :-1]).abs()
    both = inner[:, :, 1:] & inner[:, :, :-1]
    wanted = (1 / geometry.zoom)[:, None, None].expand_as(steps)
    torch.testing.assert_close(steps[both], wanted[both], rtol=0, atol=1e-4)


def test_labels_are_never_mixed_and_ignored_ones_stay_ignored() -> None:
    height, width = 24, 32
    labels = torch.full((8, height, width), 7, dtype=torch.uint8)
    labels[:, :, 16:] = 200
    labels[:, 10:14] = 255
    torch.manual_seed(0)
    _, out = Augment((height, width), zoom=(0.5, 2.0))(
        torch.rand(8, 3, height, width), {"segmentation": labels}
    )
    assert set(out["segmentation"].unique().tolist()) == {7, 200, 255}
    nothing = torch.full((8, height, width), 255, dtype=torch.uint8)
    _, out = Augment((height, width), zoom=(0.5, 2.0))(
        torch.rand(8, 3, height, width), {"segmentation": nothing}
    )
    assert (out["segmentation"] == 255).all()


def test_a_crop_at_zoom_1_or_more_lies_inside_the_image() -> None:
    labels = torch.zeros(64, 20, 30, dtype=torch.uint8)  # 0 is a class, and not "outside"
    torch.manual_seed(0)
    _, out = Augment((20, 30), crop=(17, 30), zoom=(1, 2))(
        torch.rand(64, 3, 20, 30), {"segmentation": labels}
    )
    assert out["segmentation"].shape == (64, 17, 30)
    assert not out["segmentation"].any()


def test_zoom_and_place_cover_their_range() -> None:
    torch.manual_seed(0)
    geometry = Augment((40, 60), crop=(30, 30), zoom=(0.5, 2), flip=False).sample(4000)
    assert 0.5 <= float(geometry.zoom.min()) < 0.51
    assert 1.99 < float(geometry.zoom.max()) <= 2
    # first pixel of the crop in the zoomed image
    left = 0.5 * geometry.zoom - 0.5 - geometry.matrix[:, 0, 2]
    room = geometry.zoom * 60 - 30
    assert ((left >= -1e-4) & (left <= room + 1e-4)).all()  # 60 · ½ = 30 fits always
    share = left / room.clamp(min=1e-3)
    assert abs(float(share.mean()) - 0.5) < 0.05


def test_the_seed_repeats_it() -> None:
    images, targets = batch_of(*SIZE)
    augment = Augment(SIZE, crop=(9, 10), zoom=(0.7, 1.5), colour=0.4)

    def run(seed: int) -> Batch:
        torch.manual_seed(seed)
        return augment(images, targets)

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(first[1][name], again[1][name]) for name in targets)
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1]["segmentation"], other[1]["segmentation"])


def test_the_input_is_left_as_it_is() -> None:
    images, targets = batch_of(*SIZE)
    kept, kept_targets = images.clone(), {name: t.clone() for name, t in targets.items()}
    torch.manual_seed(0)
    Augment(SIZE, zoom=(0.5, 2), colour=0.4)(images, targets)
    assert torch.equal(images, kept)
    assert all(torch.equal(targets[name], kept_targets[name]) for name in targets)


def test_colour_changes_images_alone_and_keeps_them_in_range() -> None:
    images, targets = batch_of(*SIZE, count=16)
    torch.manual_seed(0)
    moved, moved_targets = Augment(SIZE, flip=False, colour=0.4)(images, targets)
    assert moved.shape == images.shape
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    changed = (moved - images).abs().amax((1, 2, 3)) > 0.01
    assert int(changed.sum()) >= 12  # each of three changes is left out now and then
    for name, target in targets.items():
        assert torch.equal(moved_targets[name], target), name


@pytest.mark.parametrize("crop", [(13, 17), (12, 18), (24, 34)])
def test_a_crop_larger_than_the_image_is_refused(crop: tuple[int, int]) -> None:
    with pytest.raises(UsageError) as caught:
        Augment(SIZE, crop)
    assert str(caught.value) == (
        f"--crop-size: {crop[0]}x{crop[1]} is larger than the image, 12x17"
    )


def test_quarter_turns_are_exact():
    torch.manual_seed(0)
    images, targets = torch.rand(40, 3, 12, 12), {"depth": torch.rand(40, 12, 12)}
    moved, moved_targets = Augment((12, 12), flip=False, rotate=90)(images, targets)
    seen = set()
    for before, after, depth, turned in zip(
        images, moved, targets["depth"], moved_targets["depth"], strict=True
    ):
        fits = [k for k in range(4) if torch.allclose(before.rot90(k, (1, 2)), after, atol=1e-5)]
        assert len(fits) == 1
        assert torch.allclose(depth.rot90(fits[0], (0, 1)), turned)
        seen.add(fits[0])
    assert seen == {0, 1, 2, 3}


def test_turning_ignores_the_corners():
    torch.manual_seed(0)
    labels = torch.ones(30, 21, 21, dtype=torch.uint8)
    _, out = Augment((21, 21), flip=False, rotate=45)(
        torch.zeros(30, 3, 21, 21), {"segmentation": labels}
    )
    corners = out["segmentation"][:, 0, 0]
    assert set(corners.tolist()) == {1, 255}
    assert (out["segmentation"][:, 10, 10] == 1).all()
