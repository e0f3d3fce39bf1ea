"""Registries and the hints that an unknown name gets."""

from pathlib import Path

import pytest

from common.errors import UsageError
from common.registry import Registry, nearest, unknown_name


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two public modules and a private one that may not be imported."""
    folder = tmp_path / "zoo_of_registry_test"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from common.registry import Registry\nZOO = Registry('animal', __name__)\nLOADED = []\n"
    )
    for animal in ("zebra", "Ant"):
        (folder / f"mod_{animal}.py").write_text(
            "import zoo_of_registry_test as zoo\n"
            f"zoo.LOADED.append('{animal}')\n"
            f"@zoo.ZOO.register('{animal}')\n"
            "class Animal:\n    pass\n"
        )
    (folder / "_private.py").write_text("raise AssertionError('imported a private module')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder.name


def test_modules_are_imported_on_the_first_look_up_and_once(package: str) -> None:
    zoo = __import__(package)
    assert zoo.LOADED == []
    assert zoo.ZOO.names() == ["Ant", "zebra"]
    assert zoo.ZOO.get("zebra").__module__ == f"{package}.mod_zebra"
    assert zoo.ZOO.names() == ["Ant", "zebra"]
    assert sorted(zoo.LOADED) == ["Ant", "zebra"]


def test_a_name_belongs_to_one_implementation() -> None:
    registry: Registry[type] = Registry("thing", "common")

    @registry.register("a")
    class First:
        pass

    assert registry.register("a")(First) is First  # a module that is imported again
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        registry.register("a")(int)
    assert registry.get("a") is First


def test_an_unknown_name_lists_near_matches_or_the_command_that_lists() -> None:
    registry: Registry[int] = Registry("edge task", "common")
    registry.register("segmentation")(1)
    registry.register("depth")(2)
    with pytest.raises(UsageError) as caught:
        registry.get("segmentaton")
    assert str(caught.value) == "unknown edge task 'segmentaton': did you mean segmentation?"
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match=r"unknown edge task 'xyz': see .* list edgetasks"):
        registry.get("xyz")


def test_nearest_ignores_case_and_puts_the_best_first() -> None:
    names = ["ResNet50", "resnet18", "vgg11"]
    assert nearest("RESNET18", names)[0] == "resnet18"
    assert nearest("resnet5", names)[0] == "ResNet50"
    assert nearest("resnet", names, 1) == nearest("resnet", names)[:1]
    assert nearest("q", names) == []
    assert nearest("", names) == []


def test_all_near_matches_are_named() -> None:
    message = str(unknown_name("crop", "kitti", ["kitti_garg", "kitti_eigen", "nyu"], "the docs"))
    assert message == "unknown crop 'kitti': did you mean kitti_garg or kitti_eigen?"
