"""``dataset.yaml``: where images and ground truth lie in a folder, and how they are encoded."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from common.limits import printable
from common.registry import nearest
from common.validation import size_of
from datasets.labels import voc_colour
from datasets.own.patterns import check_expression, check_pattern

FILE = "dataset.yaml"
MOST_CLASSES = 254
"""A class index is a byte, and 255 is ignored."""
MOST_BANDS = 64

RGB = tuple[int, int, int]


def _listed(value: Any) -> Any:
    """A single value, or texts with ``, `` between, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(", ")]
    return [value] if isinstance(value, int | float) else value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("write a finite number")
    return value


def _colour(value: Any) -> Any:
    """A colour of ``#rrggbb`` or three numbers."""
    if isinstance(value, str):
        if not re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
            raise ValueError("write [red, green, blue] or '#rrggbb'")
        return tuple(bytes.fromhex(value[-6:]))
    return value


def _shown(text: str) -> str:
    """``text`` unchanged. Raises ValueError for what a terminal or a table would not show."""
    if text != printable(text, 100) or not text.strip():
        raise ValueError("write a name of at most 100 characters that can be shown")
    return text


def _short(text: str) -> str:
    """``text`` unchanged. Raises ValueError for what is no name of a folder."""
    if not re.fullmatch(r"[\w.-]{1,80}", text):
        raise ValueError("write at most 80 letters, digits, '.', '_' and '-'")
    return text


Name = Annotated[str, AfterValidator(_shown)]
Number = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_finite)]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Byte, Byte, Byte], BeforeValidator(_colour)]
Side = Annotated[int, Field(ge=32)]
Value = Annotated[int, Field(ge=0, le=65535)]
Files = Annotated[
    tuple[Annotated[str, AfterValidator(check_pattern)], ...],
    BeforeValidator(_listed),
    Field(min_length=1, max_length=64),
]


class Part(BaseModel):
    """A mapping of the file. Keys that it does not know are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(Part):
    """Ground truth files.

    files: patterns relative to the folder. partial: images without such a file are left out;
    otherwise each image must have one.
    """

    files: Files
    partial: bool = False


class Segmentation(Target):
    """Label maps.

    classes: names, of the values 0, 1, …; or a mapping of the values in the files to names; or the
    name of a text file with a name, or ``VALUE NAME``, in each line. ignore: values that are
    neither trained on nor scored, besides 255. palette: the colour of each class, in their order or
    by name, or ``voc``; colour and palette images are then read by colour. ignore_colours: colours
    that are ignored.
    """

    classes: Annotated[tuple[Name, ...], Field(min_length=1)]
    ids: tuple[Value, ...] = ()
    ignore: Annotated[tuple[Value, ...], BeforeValidator(_listed)] = (255,)
    palette: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """Classes by value as names and ``ids``; a palette by name, or VOC's, as a list."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        classes, palette = values.get("classes"), values.get("palette")
        if isinstance(classes, Mapping):
            if "ids" in values:
                raise ValueError("classes: a mapping gives the values: leave out ids")
            values["classes"], values["ids"] = list(classes.values()), list(classes)
        names = values.get("classes")
        if palette == "voc" and isinstance(names, list | tuple):
            numbers = values.get("ids") or range(len(names))
            values["palette"] = [voc_colour(number) for number in numbers]
            values.setdefault("ignore_colours", [voc_colour(255)])
        elif isinstance(palette, Mapping) and isinstance(names, list | tuple):
            for name in palette:
                if name not in names:
                    close = nearest(str(name), map(str, names), 1)
                    hint = f": did you mean {close[0]}?" if close else ""
                    raise ValueError(f"palette: {name} is none of the classes{hint}")
            for name in names:
                if name not in palette:
                    raise ValueError(f"palette: no colour of {name}: write one")
            values["palette"] = [palette[name] for name in names]
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.classes) > MOST_CLASSES:
            raise ValueError(f"classes: {len(self.classes)}, at most {MOST_CLASSES} are possible")
        if double := first_twice(self.classes):
            raise ValueError(f"classes: {double} stands twice")
        if self.ids and len(self.ids) != len(self.classes):
            raise ValueError(f"ids: {len(self.ids)} values for {len(self.classes)} classes")
        if (double := first_twice(self.values)) is not None:
            raise ValueError(f"classes: the value {double} stands for two")
        for value in self.ignore:
            if value in self.values and "ignore" in self.model_fields_set:
                name = self.classes[self.values.index(value)]
                raise ValueError(f"ignore: {value} is the class {name} already")
        if self.palette and len(self.palette) != len(self.classes):
            colours = f"{len(self.palette)} colours for {len(self.classes)} classes"
            raise ValueError(f"palette: {colours}: write one for each")
        if (shared := first_twice((*self.palette, *self.ignore_colours))) is not None:
            raise ValueError(f"palette: the colour {list(shared)} stands for two")
        if self.ignore_colours and not self.palette:
            raise ValueError("ignore_colours: has no meaning without palette")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """The value in the files of each class."""
        return self.ids or tuple(range(len(self.classes)))

    def facts(self) -> dict[str, Any]:
        return {"classes": self.classes}


class Depth(Target):
    """Depth or disparity maps, along the optical axis.

    metres_per_unit: depth is this times the value; or focal_times_baseline (pixels · metres): depth
    is this divided by the disparity in pixels, which is disparity_scale · value + disparity_offset.
    invalid: values without a reading, besides 0, negative disparities and what is no number.
    range: nearest and farthest depth in metres that are trained on and scored.
    """

    metres_per_unit: Positive | None = None
    focal_times_baseline: Positive | None = None
    disparity_scale: Positive = 1.0
    disparity_offset: Number = 0.0
    invalid: Annotated[tuple[Number, ...], BeforeValidator(_listed)] = (0.0,)
    range: tuple[Positive, Positive]
    crop: Literal["nyu_eigen", "kitti_garg"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.metres_per_unit is None) == (self.focal_times_baseline is None):
            raise ValueError(
                "write metres_per_unit (0.001 for millimetres), or focal_times_baseline for "
                "disparity, and not both"
            )
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range: {self.range[0]:g} is not below {self.range[1]:g}")
        disparity = self.disparity_scale != 1 or self.disparity_offset != 0
        if disparity and self.focal_times_baseline is None:
            raise ValueError("disparity_scale, disparity_offset: are for focal_times_baseline only")
        return self

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"min_depth": self.range[0], "max_depth": self.range[1]}
        return facts | ({"crop": self.crop} if self.crop else {})


class Marks(Target):
    """Grey maps. threshold: a pixel is part of the target where its value is above it."""

    threshold: Annotated[int, Field(ge=0, le=254)] = 128

    def facts(self) -> dict[str, Any]:
        return {}


class Saliency(Marks):
    """Masks. ignore: values that are neither trained on nor scored."""

    ignore: Annotated[tuple[Byte, ...], BeforeValidator(_listed)] = ()


class Edges(Marks):
    """Boundary maps. files: one pattern for each annotator; an image needs one of them."""


class Targets(Part):
    """The kinds of ground truth; at least one."""

    segmentation: Segmentation | None = None
    depth: Depth | None = None
    saliency: Saliency | None = None
    edges: Edges | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.present:
            raise ValueError(f"write at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def present(self) -> dict[str, "Segmentation | Depth | Saliency | Edges"]:
        """The targets by name."""
        return {name: target for name, target in self if target is not None}


class Splits(Part):
    """Lists of samples, patterns of images, or shares that a hash of the samples' names chooses.

    train, val, test: a text file with a sample in each line, or a pattern such as ``train/*.jpg``;
    of val and test also a share, 0.1.
    seed: another seed chooses others. group: a regular expression; samples whose names have the
    same text at its first group, or as its whole match, stay in one split.
    """

    train: str | None = None
    val: Annotated[float, Field(ge=0, lt=1)] | str | None = None
    test: Annotated[float, Field(ge=0, lt=1)] | str | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    group: Annotated[str, AfterValidator(check_expression)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        lists = [name for name in ("train", "val", "test") if isinstance(getattr(self, name), str)]
        shares = [n for n in ("val", "test") if isinstance(getattr(self, n), float)]
        if lists and shares:
            raise ValueError(f"{lists[0]} is a list and {shares[0]} a share: write one kind")
        if lists and (self.seed is not None or self.group is not None):
            raise ValueError("seed, group: are for shares, val: 0.1, and not for lists")
        if not lists and not any(getattr(self, name) for name in shares):
            raise ValueError("write lists, train: train.txt, or shares, val: 0.1")
        if sum(getattr(self, name) for name in shares) >= 1:
            raise ValueError("val and test leave nothing to train on")
        if lists == ["train"]:
            raise ValueError("write val or test too: a network is scored on one of them")
        for name in lists:
            check_pattern(getattr(self, name))
        return self

    @property
    def lists(self) -> dict[str, str]:
        """The list file, or the pattern, of each split; empty for shares."""
        names = {name: getattr(self, name) for name in ("train", "val", "test")}
        return {name: file for name, file in names.items() if isinstance(file, str)}

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that there are."""
        if self.lists:
            return tuple(self.lists)
        return ("train", *(name for name in ("val", "test") if getattr(self, name)))


class Bands(Part):
    """Images of other than three channels, or of more than 8 bits.

    names: of the channels, in the order of the files. also: patterns of further files, whose
    channels follow those of the images. max: the value that becomes 1, one for all or one each;
    default: the largest of the files' integer type. mean, std: of each channel, after that.
    """

    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_BANDS)]
    also: Annotated[
        tuple[Annotated[str, AfterValidator(check_pattern)], ...], BeforeValidator(_listed)
    ] = ()
    max: Annotated[tuple[Positive, ...], BeforeValidator(_listed)] = ()
    mean: tuple[Number, ...] = ()
    std: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if double := first_twice(self.names):
            raise ValueError(f"names: {double} stands twice")
        for name in ("max", "mean", "std"):
            count = len(getattr(self, name))
            if count not in ((0, 1, len(self.names)) if name == "max" else (0, len(self.names))):
                raise ValueError(f"{name}: {count} numbers for {len(self.names)} bands")
        if bool(self.mean) != bool(self.std):
            raise ValueError("mean, std: write both or neither")
        return self


class Description(Part):
    """All of ``dataset.yaml``. image_size: height and width of training, where none is given."""

    name: Annotated[str, AfterValidator(_short)]
    images: Files
    targets: Targets
    splits: Splits = Splits(val=0.1, test=0.2)
    bands: Bands | None = None
    image_size: Annotated[tuple[Side, Side] | None, BeforeValidator(size_of)] = None
    licence: str = ""
    citation: str = ""


def first_twice(values: Iterable[Any]) -> Any:
    """The first of ``values`` that repeats an earlier one, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
