"""``dataset.yaml``: what it may say, and what a user reads where it is wrong."""

from pathlib import Path

import pytest

from common.errors import DataError, UsageError
from datasets.own.description import Description
from datasets.own.reading import read_description
from datasets.readers.voc import PALETTE
from tests.datasets.own.folder import YAML


def written(root: Path, text: str) -> Description:
    (root / "dataset.yaml").write_text(text, encoding="utf-8")
    return read_description(root)


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    described = written(tmp_path, YAML)
    assert described.images == ("rgb/*.jpg",)
    targets = described.targets
    assert targets.segmentation is not None
    assert targets.segmentation.classes == ("background", "disc", "ring")
    assert targets.segmentation.values == (0, 1, 2)
    assert targets.depth is not None
    assert targets.depth.facts() == {"min_depth": 0.1, "max_depth": 10.0}
    assert targets.depth.invalid == (0, 65535)
    assert targets.edges is not None
    assert targets.edges.files == ("edges/*_1.png", "edges/*_2.png")
    assert described.splits.names == ("train", "val", "test")


def test_a_description_survives_json(tmp_path: Path) -> None:
    described = written(tmp_path, YAML.replace("[background, disc, ring]", "{3: a, 9: b}"))
    again = Description.model_validate(described.model_dump(mode="json", exclude_defaults=True))
    assert again == described
    assert again.targets.segmentation is not None
    assert again.targets.segmentation.values == (3, 9)


def test_without_splits_a_hash_chooses(tmp_path: Path) -> None:
    lines = [line for line in YAML.splitlines() if not line.startswith("splits")]
    splits = written(tmp_path, "\n".join(lines)).splits
    assert (splits.val, splits.test) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("lines", "classes", "values"),
    [
        ("wall\ntree house\n\n", ("wall", "tree house"), (0, 1)),
        ("0: unlabeled\n12: wall\n", ("unlabeled", "wall"), (0, 12)),
        ("7 wall\n9 3 wheeler\n", ("wall", "3 wheeler"), (7, 9)),
        ("2 doors\nwall\n", ("2 doors", "wall"), (0, 1)),  # not every line has a value
        ("7;wall\n9 = tree house\n", ("wall", "tree house"), (7, 9)),
        ("wall,7\ntree house: 9\n", ("wall", "tree house"), (7, 9)),
        ("wall\t7\ntree house\t9\n", ("wall", "tree house"), (7, 9)),
        ("wall 0\ntree house 1\n", ("wall", "tree house"), (0, 1)),
        ("zone 1\nzone 2\n", ("zone 1", "zone 2"), (0, 1)),
        (f"wall{1500 * ' '}house\ntree\n", ("wall house", "tree"), (0, 1)),
        ("wall\nzone 2\n", ("wall", "zone 2"), (0, 1)),
    ],
)
def test_class_names_of_a_file(
    tmp_path: Path, lines: str, classes: tuple[str, ...], values: tuple[int, ...]
) -> None:
    (tmp_path / "classes.txt").write_text(lines)
    labels = written(tmp_path, YAML.replace("[background, disc, ring]", "classes.txt"))
    assert labels.targets.segmentation is not None
    assert labels.targets.segmentation.classes == classes
    assert labels.targets.segmentation.values == values


@pytest.mark.parametrize(
    ("lines", "place", "problem"),
    [
        ("name,id\nwall,0\ntree,1\n", 1, "'name,id' has no value as most of the lines"),
        ("0 wall\n1 tree\nsky\n", 3, "'sky' has no value as most of the lines"),
        ("wall 1\ntree 2\n", 1, "'wall 1' may be a name, or a name and its value"),
        ("7,0\n8,1\n", 1, "'7,0' holds two values"),
        ("7,wall,0\n8,tree,1\n", 1, "'7,wall,0' holds two values"),
        ("wall\n64 128 64 tree\n", 2, "'64 128 64 tree' seems to hold a colour"),
        ("0,wall,0,0,128\n", 1, "'0,wall,0,0,128' seems to hold a colour"),
        ("0 wall\n\n0 tree\n", 3, "the value 0 stands in "),
        ("wall\ntree\nwall\n", 3, "the class wall stands in "),
        ("wall,0\nwall,1\n", 2, "the class wall stands in "),
    ],
)
def test_files_of_class_names_that_may_be_misread(
    tmp_path: Path, lines: str, place: int, problem: str
) -> None:
    (tmp_path / "classes.txt").write_text(lines)
    with pytest.raises(UsageError) as caught:
        written(tmp_path, YAML.replace("[background, disc, ring]", "classes.txt"))
    where = f"dataset.yaml:4: targets.segmentation.classes: {tmp_path / 'classes.txt'}:{place}: "
    assert f"{where}{problem}" in str(caught.value)


@pytest.mark.parametrize("size", ["96", "96x96", "[96, 96]"])
def test_sizes_as_the_option_takes_them(tmp_path: Path, size: str) -> None:
    assert written(tmp_path, f"{YAML}image_size: {size}\n").image_size == (96, 96)


@pytest.mark.parametrize(
    "palette",
    [
        "[[0, 0, 0], [128, 0, 0], [0, 128, 0]]",
        "['#000000', '#800000', '008000']",
        "{ring: [0, 128, 0], disc: '#800000', background: [0, 0, 0]}",
        "voc",
    ],
)
def test_colours(tmp_path: Path, palette: str) -> None:
    text = YAML.replace("ignore: 255}", f"palette: {palette}}}")
    labels = written(tmp_path, text).targets.segmentation
    assert labels is not None
    assert labels.palette == PALETTE[:3]
    assert labels.ignore_colours == ((PALETTE[255],) if palette == "voc" else ())


SEGMENTATION = "  segmentation: {files: labels/*.png, classes: [a, b]}"
DEPTH = "  depth: {files: depth/*.png, metres_per_unit: 0.001, range: [0.1, 10]}"
START = "name: x\nimages: rgb/*.png\ntargets:\n"
WRONG = {
    "a class that a terminal does not show": (
        f'{START}  segmentation: {{files: l/*.png, classes: [a, "b\\e[31m"]}}\n',
        ":4: targets.segmentation.classes.1: write a name of at most 100 characters",
    ),
    "a group that may never end": (
        f"{START}{DEPTH}\nsplits: {{val: 0.1, group: '(a+)+$'}}\n",
        ":5: splits.group: may take too long: repeat at most",
    ),
    "a key of another spelling": (
        f"{START}  depth: {{files: d/*.png, metre_per_unit: 1, range: [1, 2]}}\n",
        ":4: targets.depth.metre_per_unit: unknown key: did you mean metres_per_unit?",
    ),
    "a top key": (f"{START}{DEPTH}\nlicense: mine\n",
                  ":5: license: unknown key: did you mean licence?"),
    "a kind of target": (f"{START}  normals: {{files: n/*.png}}\n{DEPTH}\n",
                         ":4: targets.normals: unknown key: expected one of segmentation, depth"),
    "patterns that are no list": (
        f"{START}  edges: {{files: e/*_1.png, e/*_2.png}}\n",
        ":4: targets.edges.e/*_2.png: unknown key: write several patterns as a list, [a/*.png, b",
    ),
    "a pattern that YAML takes for an alias": (
        "name: x\nimages: *.png\n", ":2: not YAML: while scanning an alias"),
    "braces": (f"name: x\nimages: 'rgb/*.{{jpg,png}}'\ntargets:\n{DEPTH}\n",
               ":2: images: write a list, [a/*.jpg, a/*.png], in place of braces (got 'rgb/"),
    "a path that leaves the folder": (f"name: x\nimages: ../rgb/*.png\ntargets:\n{DEPTH}\n",
                                      ":2: images: write a path relative to the folder"),
    "no images": (f"name: x\ntargets:\n{DEPTH}\n", "images: is missing: write it"),
    "no target": ("name: x\nimages: a/*.png\ntargets: {}\n",
                  ":3: targets: write at least one of segmentation, depth, saliency, edges"),
    "no unit": (f"{START}  depth: {{files: d/*.png, range: [1, 2]}}\n",
                ":4: targets.depth: write metres_per_unit (0.001 for millimetres), or focal_"),
    "both units": (
        f"{START}  depth: {{files: d/*.png, metres_per_unit: 1, focal_times_baseline: 2, "
        "range: [1, 2]}\n",
        ":4: targets.depth: write metres_per_unit",
    ),
    "a unit of no number": (
        f"{START}  depth: {{files: d/*.png, metres_per_unit: .nan, range: [1, 2]}}\n",
        ":4: targets.depth.metres_per_unit: ",
    ),
    "a range in the wrong order": (
        f"{START}  depth: {{files: d/*.png, metres_per_unit: 1, range: [2, 1]}}\n",
        ":4: targets.depth: range: 2 is not below 1",
    ),
    "a class that YAML takes for a truth value": (
        f"{START}  segmentation: {{files: l/*.png, classes: [yes, wall]}}\n",
        ":4: targets.segmentation.classes.0: expected a text, put it in quotes (got",
    ),
    "a range of one number": (
        f"{START}  depth: {{files: d/*.png, metres_per_unit: 1, range: [1]}}\n",
        ":4: targets.depth.range: has 1 values, expected more (got [1])",
    ),
    "a size of one side": (f"{START}{DEPTH}\nimage_size: [96]\n",
                           ":5: image_size: write HxW, as in 240x320, or one number for a square"),
    "a size too small": (f"{START}{DEPTH}\nimage_size: 16\n",
                         ":5: image_size: expected at least 32 (got 16)"),
    "a name with a space": (
        f"name: my pipes\nimages: a/*.png\ntargets:\n{DEPTH}\n",
        ":1: name: write at most 80 letters, digits, '.', '_' and '-' (got 'my pipes')",
    ),
    "a class twice": (
        f"{START}  segmentation: {{files: l/*.png, classes: [a, b, a]}}\n",
        ":4: targets.segmentation: classes: a stands twice",
    ),
    "an ignored class": (
        f"{START}  segmentation: {{files: l/*.png, classes: [a, b], ignore: [1, 255]}}\n",
        ":4: targets.segmentation: ignore: 1 is the class b already",
    ),
    "too few colours": (
        f"{START}  segmentation: {{files: l/*.png, classes: [a, b], palette: [[0, 0, 0]]}}\n",
        ":4: targets.segmentation: palette: 1 colours for 2 classes: write one for each",
    ),
    "a colour of no class": (
        f"{START}  segmentation: {{files: l/*.png, classes: [wall], "
        "palette: {wal: '#000000'}}\n",
        ":4: targets.segmentation: palette: wal is none of the classes: did you mean wall?",
    ),
    "a colour twice": (
        f"{START}  segmentation: {{files: l/*.png, classes: [a, b], palette: ['#010203', "
        "'#010203']}\n",
        ":4: targets.segmentation: palette: the colour [1, 2, 3] stands for two",
    ),
    "a missing file of classes": (
        f"{START}  segmentation: {{files: l/*.png, classes: names.txt}}\n",
        "names.txt: list is missing: write a class name in each line",
    ),
    "lists and shares": (
        f"{START}{DEPTH}\nsplits: {{train: a.txt, test: 0.2}}\n",
        ":5: splits: train is a list and test a share: write one kind",
    ),
    "shares that leave nothing": (
        f"{START}{DEPTH}\nsplits: {{val: 0.5, test: 0.5}}\n",
        ":5: splits: val and test leave nothing to train on",
    ),
    "only training": (
        f"{START}{DEPTH}\nsplits: {{train: a.txt}}\n", ":5: splits: write val or test too"),
    "a group that is no expression": (
        f"{START}{DEPTH}\nsplits: {{test: 0.5, group: '(a'}}\n",
        ":5: splits.group: no regular expression: ",
    ),
    "bands": (
        f"{START}{DEPTH}\nbands: {{names: [r, g], mean: [0.5]}}\n",
        ":5: bands: mean: 1 numbers for 2 bands",
    ),
    "a name that no file may have": (
        f"name: a/b\nimages: rgb/*.png\ntargets:\n{DEPTH}\n", ":1: name: "),
    "a list": ("- a\n", "holds no keys: write name:, images: and targets:"),
    "nothing": ("", "holds no keys: write name:, images: and targets:"),
    "a key twice": (f"{START}{DEPTH}\nname: y\n", ":5: name: stands in line 1 already"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, expected = WRONG[case]
    with pytest.raises(UsageError) as caught:
        written(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "dataset.yaml") in message
    assert expected in message


def test_a_pattern_in_quotes_is_advised(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"put a pattern that begins with \* in quotes$"):
        written(tmp_path, WRONG["a pattern that YAML takes for an alias"][0])


def test_a_missing_description_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset.yaml: .* python cli.py data init"):
        read_description(tmp_path)


def test_an_edited_description_is_read_again(tmp_path: Path) -> None:
    assert written(tmp_path, YAML).name == "discs"
    assert written(tmp_path, YAML.replace("name: discs", "name: others")).name == "others"
