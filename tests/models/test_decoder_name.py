"""DecoderName: a decoder of the registry, or the file that wires one."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.decoder_name import DecoderName
from tests.support import ROOT


@pytest.mark.parametrize(
    ("text", "label", "file"),
    [
        ("fcn", "fcn", None),
        ("connectivity:mine.json", "mine", Path("mine.json")),
        ("connectivity:found/found-camvid.json", "found-camvid", Path("found/found-camvid.json")),
        ("connectivity:/a/b.c.json", "b.c", Path("/a/b.c.json")),
        (r"connectivity:C:\wiring", r"C:\wiring", Path(r"C:\wiring")),
        ("connectivity:~nobody-of-that-name/x.json", "x", Path("~nobody-of-that-name/x.json")),
        ("connectivity:", "connectivity:", None),
        ("Connectivity:x.json", "Connectivity:x.json", None),
        ("other:x.json", "other:x.json", None),
        ("", "", None),
    ],
)
def test_any_text_is_a_name_or_a_file(text: str, label: str, file: Path | None) -> None:
    name = DecoderName.parse(text)
    assert (name.label, name.file) == (label, file)
    assert str(name) == text
    assert DecoderName.parse(str(name)) == name


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("USERPROFILE", "/home/somebody")
    assert DecoderName.parse("connectivity:~/x.json").file == Path("/home/somebody/x.json")


@pytest.mark.parametrize("text", ["connectivity:/secret/x.json", "connectivity:x.json", "fcn"])
def test_without_its_folder_it_says_nothing_of_this_machine(text: str) -> None:
    name = DecoderName.parse(text).without_folder()
    assert str(name) == text.replace("/secret/", "")
    assert name.label == DecoderName.parse(text).label


def test_it_costs_nothing_to_import() -> None:
    """Tables of results are made without torch."""
    code = (
        "import sys, models.decoder_name\n"
        "print({'torch', 'timm', 'numpy', 'pydantic'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
