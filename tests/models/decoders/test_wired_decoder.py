"""``--decoder connectivity:FILE.json``: built, planned and named by the file's content."""

import json
from pathlib import Path

import pytest
import torch

from benchmark.experiment.config import RunConfig, make_config
from benchmark.experiment.plan import resolve, run_key
from common.errors import UsageError
from models.backbones import create_backbone
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity, preset
from models.create import create_decoder
from models.predictor import DensePredictor
from tests.support import TINY, folder_of, line

NINE = (2, 2, 4, 8, 16, 16, 32, 32, 32)


def write(path: Path, wiring: Connectivity) -> str:
    """The decoder's name for a file that holds ``wiring``."""
    path.write_text(json.dumps(wiring.to_json()))
    return f"connectivity:{path}"


def resolved(decoder: str) -> RunConfig:
    return resolve(make_config({"dataset": "scenes", "decoder": decoder}))


def test_a_file_is_the_decoder_that_it_describes(tmp_path: Path) -> None:
    """Carried to the backbone, it has the weights and the output of the preset of that wiring."""
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet")
    name = write(tmp_path / "mine.json", preset("sparsemask", NINE))
    mine, own = (create_decoder(n, backbone.features) for n in (name, "sparsemask"))
    assert isinstance(mine, ConnectedDecoder)
    mine.load_state_dict(own.state_dict())
    images = torch.rand(1, 3, 61, 75)
    first, second = (DensePredictor(backbone, d, {"x": 2}).eval() for d in (mine, own))
    second.heads.load_state_dict(first.heads.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(first(images)["x"], second(images)["x"])


def test_a_run_holds_the_wiring_and_not_only_the_file(tmp_path: Path) -> None:
    wiring = preset("unet-connectivity", NINE)
    config = resolved(write(tmp_path / "mine.json", wiring))
    content = wiring.to_json()
    assert config.wiring == {"strides": list(NINE), "stages": content["stages"]}
    assert resolved("unet-connectivity").wiring is None


def test_the_key_goes_by_the_content(tmp_path: Path) -> None:
    unet, acn = preset("unet-connectivity", NINE), preset("sparse-acn", NINE)
    first, copied = (resolved(write(tmp_path / f"{n}.json", unet)) for n in ("one", "copy"))
    other = resolved(write(tmp_path / "other.json", acn))
    assert run_key(first) == run_key(copied)
    changed = resolved(write(tmp_path / "one.json", acn))  # the same file, written anew
    assert run_key(changed) == run_key(other) != run_key(first)


def test_a_result_folder_is_named_for_the_file(tmp_path: Path) -> None:
    config = resolved(write(tmp_path / "mine.json", preset("sparsemask", NINE)))
    key = run_key(config)
    folder = folder_of(config, Path("runs"))
    assert folder == Path(f"runs/depth_scenes_{config.backbone}_connectivity-mine_seed0_{key}")


def test_dry_run_plans_a_file(cli, tmp_path: Path) -> None:
    name = write(tmp_path / "mine.json", preset("sparsemask", NINE))
    done = cli("run", "--dry-run", "--decoder", name, "--results", tmp_path / "runs")
    assert done.exit_code == 0, done.stderr
    assert run_key(resolved(name)) in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "mine.json: no such connectivity file"),
        ('{"format": 1, "name"', "mine.json: not a readable connectivity file"),
        ('{"format": 1, "nmae": "x"}', "mine.json: unknown key nmae"),
        (
            '{"format": 1, "name": "x", "encoder": {"strides": [4, 8]}, "stages": {"2": ["E1"]}}',
            "mine.json: connectivity x: stage 1, the output, has no input",
        ),
    ],
)
def test_a_bad_file_is_one_line_before_anything_starts(
    cli, tmp_path: Path, content: str | None, part: str
) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    name = f"connectivity:{path}"
    done = cli("run", *TINY, "--decoder", name, "--results", tmp_path / "runs")
    assert part in line(done)
    assert done.exit_code == 2
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UsageError, match="mine"):
        create_decoder(name, create_backbone("test_resnet").features)
