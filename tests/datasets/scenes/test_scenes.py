"""The rendered rooms: repeatable, geometrically exact, labelled by what things are."""

import math
import pickle
import subprocess
import sys
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from common.annotators import unpack
from common.errors import UsageError
from datasets.base import DATASETS, Sample
from datasets.scenes.scenes import SALIENT, Scenes
from datasets.scenes.trace import NEAR, Hits, Scene, View, trace

SPLITS = ("train", "val", "test")
CLASSES = Scenes.info.tasks["segmentation"]["classes"]
DTYPES = {
    "segmentation": torch.uint8,
    "depth": torch.float32,
    "saliency": torch.uint8,
    "edges": torch.int32,
}


def scenes(split: str = "train", **options: object) -> Scenes:
    return Scenes(None, split, "depth", **options)


@cache
def traced(count: int = 60) -> list[tuple[Scene, Hits, Sample]]:
    data = scenes()
    return [(*data.scene(index), data[index]) for index in range(count)]


def assert_same(first: Sample, second: Sample) -> None:
    assert first.name == second.name
    assert torch.equal(first.image, second.image)
    assert first.targets.keys() == second.targets.keys()
    for name, target in first.targets.items():
        assert torch.equal(target, second.targets[name]), name


# Facts


def test_declares_itself() -> None:
    info = Scenes.info
    assert DATASETS.get("scenes") is Scenes
    assert info.built_in
    assert info.name == "scenes"
    assert len(info.palette) == len(set(info.palette)) == len(CLASSES) == len(set(CLASSES))
    assert info.tasks["depth"] == {"min_depth": 0.1, "max_depth": 10.0}
    assert set(info.tasks) == {"segmentation", "depth", "saliency", "edges"}
    assert {split: len(scenes(split)) for split in SPLITS} == dict(info.splits)


@pytest.mark.parametrize("size", [(128, 128), (97, 131), (64, 200), (33, 32)])
def test_shapes_and_types(size: tuple[int, int]) -> None:
    sample = scenes("val", size=size)[7]
    assert sample.name == "val-00007"
    assert sample.image.dtype == torch.uint8
    assert sample.image.shape == (3, *size)
    assert {name: target.dtype for name, target in sample.targets.items()} == DTYPES
    for target in sample.targets.values():
        assert target.shape == size
        assert target.is_contiguous()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None, "training"), {}, "unknown split 'training' of scenes: use train, val, test"),
        ((Path("data"), "train"), {}, "needs no data folder"),
        ((None, "train"), {"size": (16, 128)}, "16x128"),
        ((None, "train"), {"seed": -1}, "seed"),
    ],
)
def test_refuses(arguments: tuple[Path | None, str], options: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Scenes(*arguments, "depth", **options)


@pytest.mark.parametrize("index", [-1, 100])
def test_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError):
        scenes("val")[index]


def test_fingerprint_tells_streams_apart() -> None:
    streams = [scenes(split, seed=seed) for split in SPLITS for seed in (0, 1)]
    streams.append(scenes(size=(96, 128)))
    prints = [stream.fingerprint() for stream in streams]
    assert len(set(prints)) == len(prints)
    assert all(int(digest, 16) >= 0 for digest in prints)
    assert scenes().fingerprint() == scenes().fingerprint()
    assert Scenes(None, "train", "saliency").fingerprint() == scenes().fingerprint()


# Repeatability


def test_same_sample_whatever_came_before() -> None:
    data = scenes("test")
    forward = [data[index] for index in range(5)]
    fresh = scenes("test")
    copied = pickle.loads(pickle.dumps(data))
    for index in reversed(range(5)):
        assert_same(forward[index], fresh[index])
        assert_same(forward[index], copied[index])
        assert_same(forward[index], Scenes(None, "test", "segmentation")[index])


def test_same_sample_in_another_process() -> None:
    program = (
        "import zlib; from datasets.scenes.scenes import Scenes; "
        "s = Scenes(None, 'val', 'depth')[3];"
        "print([zlib.crc32(t.numpy().tobytes()) for t in (s.image, *s.targets.values())])"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", program]
    other = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    sample = scenes("val")[3]
    tensors = (sample.image, *sample.targets.values())
    assert other.strip() == str([zlib.crc32(tensor.numpy().tobytes()) for tensor in tensors])


def test_seeds_and_splits_differ() -> None:
    images = [scenes(split, seed=seed)[0].image for split in SPLITS for seed in (0, 1)]
    images += [scenes()[index].image for index in range(1, 10)]
    assert len({image.numpy().tobytes() for image in images}) == len(images)


# Geometry, against a ray caster that takes one ray and one primitive at a time


def interval(low: float, high: float, start: float, way: float) -> tuple[float, float]:
    """Where start + t * way is between low and high."""
    if way == 0:
        return (-math.inf, math.inf) if low < start < high else (math.inf, -math.inf)
    ends = ((low - start) / way, (high - start) / way)
    return min(ends), max(ends)


def along_ray(scene: Scene, view: View, row: int, column: int) -> list[tuple[float, float, int]]:
    """Depths at which the ray of a pixel enters and leaves, and the instance, per primitive."""
    right, down, forward = view.axes
    across = (column + 0.5 - view.centre[0]) / view.focal
    below = (row + 0.5 - view.centre[1]) / view.focal
    dx, dy, dz = (forward + right * across + down * below).tolist()
    ox, oy, oz = view.origin.tolist()
    met = []
    for box, owner in zip(scene.boxes.T.tolist(), scene.box_owner.tolist(), strict=True):
        x, y, z, half_x, half_y, half_z, cos, sin = box
        sx, sy, sz = ox - x, oy - y, oz - z
        slabs = [
            interval(-half_x, half_x, cos * sx + sin * sz, cos * dx + sin * dz),
            interval(-half_y, half_y, sy, dy),
            interval(-half_z, half_z, cos * sz - sin * sx, cos * dz - sin * dx),
        ]
        met.append((max(slab[0] for slab in slabs), min(slab[1] for slab in slabs), owner))
    for body, owner in zip(scene.rounds.T.tolist(), scene.round_owner.tolist(), strict=True):
        x, y, z, radius, half, squeeze, bulge = body
        sx, sy, sz = ox - x, oy - y - bulge, oz - z
        a = dx * dx + dz * dz + squeeze * dy * dy
        b = dx * sx + dz * sz + squeeze * dy * sy
        c = sx * sx + sz * sz + squeeze * sy * sy - radius * radius
        if b * b - a * c > 0:
            root = math.sqrt(b * b - a * c)
            slab = interval(-half, half, oy - y, dy)
            met.append((max((-b - root) / a, slab[0]), min((-b + root) / a, slab[1]), owner))
    return [(enter, leave, owner) for enter, leave, owner in met if NEAR < enter < leave]


def first_hit(scene: Scene, row: int, column: int) -> tuple[float, int, float]:
    """Depth and instance of what a pixel sees, and by how much it is before what is next."""
    view = scene.camera
    right, down, forward = view.axes
    across = (column + 0.5 - view.centre[0]) / view.focal
    below = (row + 0.5 - view.centre[1]) / view.focal
    ray = (forward + right * across + down * below).tolist()
    hits = [(enter, owner) for enter, _, owner in along_ray(scene, view, row, column)]
    for axis, planes in ((1, (0, 1)), (0, (2, 3)), (2, (4, 5))):
        start, way, end = float(view.origin[axis]), ray[axis], float(scene.room[axis])
        if way:
            hits.append(((end - start) / way if way > 0 else -start / way, planes[int(way > 0)]))
    hits.sort()
    depth, owner = hits[0]
    rival = next((enter for enter, other in hits if other != owner), math.inf)
    return depth, owner, rival - depth


def assert_exact(scene: Scene, hits: Hits, pixels: npt.NDArray[np.intp]) -> None:
    wrong = 0
    for pixel in pixels.tolist():
        depth, owner, lead = first_hit(scene, *divmod(pixel, scene.camera.size[1]))
        if hits.instance[pixel] != owner:
            wrong += lead > 1e-4  # else they touch, and either may be seen
        else:
            assert hits.depth[pixel] == pytest.approx(depth, rel=2e-5), pixel
    # A silhouette within rounding of a pixel's centre may fall on either side of it.
    assert wrong <= 1


@pytest.mark.parametrize("size", [(40, 48), (128, 128), (97, 131)])
def test_depth_and_instance_are_exact(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for index in range(4):
        scene, hits = scenes(size=size, seed=3).scene(index)
        assert_exact(scene, hits, rng.permutation(size[0] * size[1])[:800])


@pytest.mark.parametrize("seed", range(4))
def test_what_reaches_behind_the_camera_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene, _ = scenes(size=(48, 40)).scene(seed)
    angles = rng.uniform(0, 2 * np.pi, 12)
    place = scene.camera.origin[:, None] + rng.uniform(-1.5, 1.5, (3, 12))
    boxes = np.concatenate(
        [place, rng.uniform(0.05, 1.2, (3, 12)), [np.cos(angles)], [np.sin(angles)]]
    )
    shape = rng.uniform((0.05, 0.05, 0, -0.2), (0.8, 0.8, 1, 0.2), (12, 4)).T
    bodies = np.concatenate([place[:, ::-1], shape])
    owners = np.arange(6, 30)
    scene = replace(
        scene, boxes=boxes, box_owner=owners[:12], rounds=bodies, round_owner=owners[12:]
    )
    assert_exact(scene, trace(scene), np.arange(48 * 40))


def test_shadow_map_is_exact() -> None:
    rng = np.random.default_rng(1)
    shadowed = wrong = 0
    for scene, hits, _ in traced()[:6]:
        side = len(hits.shadow)
        for row, column in rng.integers(1, side - 1, (300, 2)).tolist():
            ends = [leave for _, leave, _ in along_ray(scene, hits.light_view, row, column)]
            end = min(ends, default=math.inf)
            shadowed += end < math.inf
            wrong += hits.shadow[row, column] != pytest.approx(end, rel=2e-5)
    assert shadowed > 100
    assert wrong <= 2


def test_camera_axes_are_orthonormal() -> None:
    for scene, _, _ in traced():
        np.testing.assert_allclose(scene.camera.axes @ scene.camera.axes.T, np.eye(3), atol=1e-12)


def test_depth_unprojects_onto_the_planes() -> None:
    for scene, hits, sample in traced():
        height, width = scene.camera.size
        rows, columns = np.mgrid[0:height, 0:width]
        right, down, forward = scene.camera.axes
        x = (columns + 0.5 - width / 2)[..., None] / scene.camera.focal
        y = (rows + 0.5 - height / 2)[..., None] / scene.camera.focal
        rays = forward + right * x + down * y
        depth = sample.targets["depth"].numpy().astype(np.float64)
        points = scene.camera.origin + rays * depth[..., None]
        instance = hits.instance.reshape(height, width)
        for plane, (axis, end) in enumerate(((1, 0), (1, 1), (0, 0), (0, 1), (2, 0), (2, 1))):
            place = points[instance == plane][:, axis]
            np.testing.assert_allclose(place, end * scene.room[axis], atol=2e-5)
        assert points.min() > -1e-4
        assert (points.max((0, 1)) < scene.room + 1e-4).all()


def test_depths_are_in_range() -> None:
    depths = torch.stack([sample.targets["depth"] for _, _, sample in traced()])
    assert depths.min() >= 0.3
    assert depths.max() <= 10.0
    assert depths.max() > 5.0


# Labels


def test_every_class_appears() -> None:
    counts = np.zeros(256, np.int64)
    for scene, hits, sample in traced():
        target = sample.targets["segmentation"].numpy()
        counts += np.bincount(target.ravel(), minlength=256)
        assert (target.ravel() == scene.labels[hits.instance]).all()
    assert (counts[: len(CLASSES)] > 0).all()
    assert counts[len(CLASSES) :].sum() == 0


def test_one_salient_object_in_view() -> None:
    for scene, hits, sample in traced():
        mask = sample.targets["saliency"].numpy().astype(bool)
        assert SALIENT[0] <= mask.mean() <= SALIENT[1]
        assert (mask.ravel() == (hits.instance == scene.hero)).all()
        rows, columns = np.nonzero(mask)
        x, y = columns.mean() + 0.5 - 64, rows.mean() + 0.5 - 64
        assert math.degrees(math.atan(math.hypot(x, y) / scene.camera.focal)) < 25
        for distractor in scene.distractors:
            assert 2 * (hits.instance == distractor).sum() < mask.sum()


def test_heroes_are_of_many_classes() -> None:
    heroes = {CLASSES[scene.labels[scene.hero]] for scene, _, _ in traced()}
    assert heroes == {"table", "chair", "cabinet", "lamp", "ball", "vase", "picture"}


def test_only_hero_and_distractors_are_vivid() -> None:
    for scene, _, _ in traced():
        colours = np.sqrt(scene.materials.colours)  # as a square root encodes the picture
        saturation = (1 - colours.min(-1) / colours.max(-1)).reshape(len(scene.labels), -1)
        vivid = [scene.hero, *scene.distractors]
        assert saturation[vivid].min() > 0.7
        assert np.delete(saturation, vivid, axis=0).max() < 0.4


def test_edges_are_the_changes_of_instance() -> None:
    for _, hits, sample in traced()[:5]:
        instance = hits.instance.reshape(128, 128)
        edges = unpack(sample.targets["edges"])[0]
        for row in range(128):
            for column in range(128):
                near = [instance[row, column]]
                near += [instance[row, column + 1]] if column < 127 else []
                near += [instance[row + 1, column]] if row < 127 else []
                assert edges[row, column] == (len(set(near)) > 1)


def instance_colours() -> dict[int, npt.NDArray[np.float64]]:
    """Mean colours [N, 3] of the instances in view, by class, but for the vivid ones."""
    colours: dict[int, list[npt.NDArray[np.float64]]] = {}
    for scene, hits, sample in traced():
        image = sample.image.numpy().reshape(3, -1).astype(np.float64)
        for instance in np.unique(hits.instance):
            seen = hits.instance == instance
            if seen.sum() >= 30 and instance not in (scene.hero, *scene.distractors):
                colour = image[:, seen].mean(1)
                colours.setdefault(int(scene.labels[instance]), []).append(colour)
    return {label: np.array(means) for label, means in colours.items()}


def test_colour_does_not_tell_the_class() -> None:
    colours = instance_colours()
    everything = np.concatenate(list(colours.values()))
    assert set(colours) == set(range(len(CLASSES)))
    for label, means in colours.items():
        assert (means.std(0) > 20).all(), CLASSES[label]
        # Brightness may differ (a ceiling lies in the shade), the tint may not.
        tint = means - means.mean(1, keepdims=True)
        every_tint = everything - everything.mean(1, keepdims=True)
        assert (abs(tint.mean(0) - every_tint.mean(0)) < every_tint.std(0)).all(), CLASSES[label]


def test_pictures_are_well_exposed() -> None:
    for _, _, sample in traced():
        image = sample.image.float()
        assert 70 < image.mean() < 180
        assert image.std() > 20
        assert (sample.image == 255).float().mean() < 0.3
