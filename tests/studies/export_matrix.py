"""Every exportable decoder × ten backbones × formats: the largest error beside PyTorch, and MB.

    python -m tests.studies.export_matrix [--backbone …] [--decoder …] [--format …] [--json FILE]

Networks have random weights and BatchNorm statistics; errors are of depth's logits over five shapes
(four batches of one size where the backbone takes one only, and with --static).
"""

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmark.experiment.network import NetworkSpec
from benchmark.export import formats as exporting
from benchmark.export.formats import FORMATS, METADATA, load_exported, sizes_of, write
from benchmark.export.network import ExportableNetwork
from benchmark.export.verify import checks
from common.errors import UserError, reason
from models.decoders.base import DECODERS
from models.predictor import DensePredictor
from tasks.depth import Depth

FIXED = "coatnet_pico_rw_224"
BACKBONES = (
    "resnet18", "mobilenetv2_100", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto",
    "regnetx_002", "edgenext_xx_small", "fastvit_t8", "repvit_m1", FIXED,
)  # fmt: skip
SIZE = (96, 96)


def network(backbone: str, decoder: str) -> DensePredictor:
    """A network whose BatchNorms are not those of a new layer, so that folding them shows."""
    torch.manual_seed(0)
    arguments = {"img_size": SIZE[0]} if backbone == FIXED else {}
    model = NetworkSpec(backbone, decoder, {"depth": 1}, arguments).build().eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.7, 1.3)
    return model


def rows_of(
    backbone: str, decoder: str, forms: list[str], static: bool, folder: Path
) -> list[dict[str, Any]]:
    task = Depth(0.5, 10)
    pair: dict[str, Any] = {"backbone": backbone, "decoder": decoder}
    try:
        model = network(backbone, decoder)
    except UserError as error:  # a backbone without a stride that the decoder needs
        return [{**pair, "format": None, "impossible": str(error)}]
    shipped = ExportableNetwork(model, [task])
    rows = []
    for form in forms:
        sizes = sizes_of(shipped, form, SIZE if static else None)
        path = folder / form
        row = {**pair, "format": form, "static": sizes.static, "error": None, "fault": None}
        start = time.perf_counter()
        try:
            write(shipped, form, path, sizes, {METADATA: "{}"})
            row["write_s"] = time.perf_counter() - start
            row["mb"] = path.stat().st_size / 1e6
            found = list(checks(model, [task], load_exported(form, path), sizes.shapes(SIZE)))
            row["error"] = max(check.error for check in found)
            if not all(check.passed for check in found):
                row["fault"] = "another result"
        except Exception as error:
            row["fault"] = reason(error)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    exportable = [name for name in DECODERS.names() if DECODERS.get(name).info.exportable]
    parser.add_argument("--backbone", nargs="+", default=BACKBONES)
    parser.add_argument("--decoder", nargs="+", default=exportable)
    parser.add_argument("--format", nargs="+", default=FORMATS)
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # ONNX and pt2 hold the same program, which takes half of the time
    exporting._program = functools.lru_cache(maxsize=1)(exporting._program)  # type: ignore
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for backbone in arguments.backbone:
            for decoder in arguments.decoder:
                rows += rows_of(backbone, decoder, arguments.format, arguments.static, Path(folder))
                print(_line(rows, backbone, decoder), flush=True)  # noqa: T201
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    done = [row for row in rows if row["format"]]
    failed = [row for row in done if row["fault"]]
    print(f"{len(done)} files, {len(failed)} failed, {len(rows) - len(done)} impossible")  # noqa: T201


def _line(rows: list[dict[str, Any]], backbone: str, decoder: str) -> str:
    cells = []
    for row in rows:
        if (row["backbone"], row["decoder"]) == (backbone, decoder):
            if row["format"] is None:
                cells.append(f"impossible: {row['impossible']}")
            elif row["fault"]:
                cells.append(f"{row['format']} FAILED: {row['fault']}")
            else:
                cells.append(
                    f"{row['format']} {row['error']:.0e} {row['mb']:.1f} MB {row['write_s']:.0f} s"
                )
    return f"{backbone} + {decoder}: {'  '.join(cells)}"


if __name__ == "__main__":
    main()
