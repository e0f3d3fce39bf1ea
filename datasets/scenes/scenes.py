"""Rendered rooms: the built-in data set, exact ground truth for every task and nothing to download.

Sample ``index`` of a split follows from (seed, split, index) alone.

The salient object, one per picture, is the vivid (strongly coloured) thing near the viewing axis:
the camera looks about at it. All else is muted, but for up to two distractors, small vivid things
at the periphery, each less than half as large in the picture as the salient object.
"""

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from common.annotators import pack
from common.errors import UsageError
from datasets.base import DATASETS, DatasetInfo, DenseDataset, Sample
from datasets.scenes.layout import furnish
from datasets.scenes.shade import shade
from datasets.scenes.things import CLASSES
from datasets.scenes.trace import Hits, Scene, trace

VERSION = 1
"""Counts up with every change that alters samples."""
SALIENT = (0.012, 0.4)
"""Share of the pixels that the salient object covers, least and most."""

_SPLITS = {"train": 1200, "val": 100, "test": 200}
_SMALLEST = 32  # pixels a side
_ATTEMPTS = 100


@DATASETS.register("scenes")
class Scenes(DenseDataset):
    """One split of the rendered rooms."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="scenes",
        title="Rendered rooms (built in)",
        tasks={
            "segmentation": {"classes": CLASSES},
            "depth": {"min_depth": 0.1, "max_depth": 10.0},
            "saliency": {},
            "edges": {},
        },
        splits=_SPLITS,
        # learns from scratch in minutes on two cores: a small backbone and a high rate
        defaults={
            "backbone": "mobilenetv2_050",
            "image_size": (96, 96),
            "epochs": 3,
            "optimizer": "adamw",
            "lr": 0.01,
            "clip_grad": 1.0,
            "decoder_lr_factor": 1.0,
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup": 0.1,
            "zoom": (1.0, 1.0),
            "colour": 0.0,
        },
        palette=(
            (139, 101, 70),
            (200, 200, 184),
            (240, 240, 255),
            (214, 96, 40),
            (228, 180, 40),
            (110, 60, 140),
            (255, 240, 90),
            (220, 40, 60),
            (40, 160, 150),
            (60, 110, 220),
            (90, 150, 60),
        ),
        licence="MIT, part of this project",
        built_in=True,
        revision=VERSION,
    )

    def __init__(
        self,
        root: Path | None,
        split: str,
        task: str,
        *,
        size: tuple[int, int] = (128, 128),
        seed: int = 0,
    ) -> None:
        """Samples carry all four targets, whatever ``task`` is.

        size: (height, width) in pixels. seed: which rooms, 0 or more.
        Raises UsageError for a root (there are no files), an unknown split, a size too small and a
        negative seed.
        """
        if root is not None:
            raise UsageError("scenes is rendered and needs no data folder: leave it out")
        if split not in _SPLITS:
            raise UsageError(f"unknown split '{split}' of scenes: use {', '.join(_SPLITS)}")
        if min(size) < _SMALLEST:
            raise UsageError(
                f"scenes of {size[0]}x{size[1]} pixels: use {_SMALLEST} or more a side"
            )
        if seed < 0:
            raise UsageError(f"the seed of scenes is {seed}: use 0 or more")
        self.split, self.task, self.size, self.seed = split, task, size, seed

    def __len__(self) -> int:
        return _SPLITS[self.split]

    def __getitem__(self, index: int) -> Sample:
        import torch

        scene, hits = self.scene(index)
        instance = hits.instance.reshape(self.size)
        targets: dict[str, npt.NDArray[np.generic]] = {
            "segmentation": scene.labels[instance],
            "depth": hits.depth.reshape(self.size),
            "saliency": (instance == scene.hero).astype(np.uint8),
        }
        return Sample(
            torch.from_numpy(shade(scene, hits)),
            {
                **{name: torch.from_numpy(target) for name, target in targets.items()},
                "edges": pack(torch.from_numpy(boundaries(instance))[None]),
            },
            f"{self.split}-{index:05d}",
        )

    def scene(self, index: int) -> tuple[Scene, Hits]:
        """The description of a sample and what its pixels see."""
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} among {len(self)}")
        split = list(_SPLITS).index(self.split)
        for attempt in range(_ATTEMPTS):
            words = np.random.SeedSequence((VERSION, self.seed, split, index, attempt))
            scene = furnish(np.random.Generator(np.random.PCG64(words)), self.size)
            hits = trace(scene)
            if _hero_stands_out(scene, hits.instance):
                return scene, hits
        raise RuntimeError(f"no room with a visible hero for {self.split} {index}")

    def fingerprint(self) -> str:
        """Short hexadecimal digest of all that the samples depend on."""
        facts = f"scenes {VERSION} {self.seed} {self.split} {tuple(self.size)}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def boundaries(instance: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
    """1 where the pixel to the right or below belongs to another instance; [H, W]."""
    edges = np.zeros(instance.shape, np.uint8)
    edges[:, :-1] = instance[:, :-1] != instance[:, 1:]
    edges[:-1] |= instance[:-1] != instance[1:]
    return edges


def _hero_stands_out(scene: Scene, instance: npt.NDArray[np.intp]) -> bool:
    """Whether the hero covers its share of the picture and twice that of any distractor."""
    area, *others = (
        int(np.count_nonzero(instance == vivid)) for vivid in (scene.hero, *scene.distractors)
    )
    low, high = (share * instance.size for share in SALIENT)
    return low <= area <= high and 2 * max(others, default=0) < area
