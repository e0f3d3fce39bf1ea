"""Steps of `export`: write, verify, quantise and score; only a verified file stays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmark.export.facts import export_facts, network_facts
from benchmark.export.formats import (
    METADATA,
    Sizes,
    cannot_export,
    check_format,
    load_exported,
    sizes_of,
    write,
)
from benchmark.export.network import ExportableNetwork
from benchmark.export.verify import Check, checks, own_rounding
from benchmark.results.checkpoint import Checkpoint
from benchmark.results.store import load
from common.errors import UsageError, UserError, reason
from common.files import whole_file
from common.progress import Listener

Scores = dict[str, dict[str, float]]


@dataclass
class ExportResult:
    """A written file. sizes: of the images that it takes. checks: of the float network.

    int8: None, or ``metrics`` by file and task, the number of ``images`` behind them, and ``bytes``
    of both files.
    """

    sizes: Sizes
    checks: list[Check]
    bytes: int
    int8: dict[str, Any] | None = None


def facts_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """``network_facts`` of a checkpoint, with scores if the run scored these weights."""
    scored = load(checkpoint.folder) if checkpoint.which == checkpoint.config.score else None
    facts = network_facts(checkpoint.config, checkpoint.tasks, checkpoint.key, scored)
    return {**facts, "weights": checkpoint.which}


def export(
    checkpoint: Checkpoint,
    form: str,
    output: Path,
    listener: Listener,
    postprocessing: bool = False,
    static: bool = False,
    calibrate: int | None = None,
    limit: int | None = None,
) -> ExportResult:
    """Write ``checkpoint`` as a file of ``form`` and verify it; a wrong file is removed.

    static: images of the run's size only. calibrate: number of training images that choose the
    ranges of int8 (ONNX only); both files are then scored on the first ``limit`` test images.

    Raises UsageError for a network that the format cannot hold, UserError for a file whose outputs
    differ from PyTorch's, DataError for missing data.
    """
    check_format(form)
    config = checkpoint.config
    data = None
    if calibrate is not None:
        if form != "onnx":
            raise UsageError(f"--int8: onnxruntime quantises ONNX: use --format onnx, not {form}")
        from benchmark.export.quantize import open_data

        most = min(calibrate, config.limit or calibrate)  # others were not trained on
        data = [
            open_data(config, checkpoint.tasks, split, count)
            for split, count in (("train", most), ("test", limit))
        ]
    network = ExportableNetwork(
        checkpoint.model, checkpoint.tasks, postprocessing, both=calibrate is not None
    )
    sizes = sizes_of(network, form, config.image_size if static else None)
    facts = export_facts(facts_of(checkpoint), sizes.static, sizes.smallest, postprocessing)
    with whole_file(output.resolve(), "-o") as path:
        write(network, form, path, sizes, {METADATA: json.dumps(facts, ensure_ascii=False)})
        results = _verify(checkpoint, form, path, sizes, postprocessing)
        result = ExportResult(sizes, results, path.stat().st_size)
        if data is not None:
            result.int8 = _quantized(checkpoint, path, facts, data, listener)
    return result


def _verify(
    checkpoint: Checkpoint, form: str, path: Path, sizes: Sizes, postprocessing: bool
) -> list[Check]:
    shapes = sizes.shapes(checkpoint.config.image_size)
    try:
        results = list(
            checks(
                checkpoint.model,
                checkpoint.tasks,
                load_exported(form, path),
                shapes,
                postprocessing,
            )
        )
    except Exception as error:  # a file that fixes a size may raise anything
        raise cannot_export(
            form, sizes, f"it does not run on every size: {reason(error)}"
        ) from error
    for check in results:
        if not check.passed:
            size = "x".join(map(str, check.shape[1:]))
            own = own_rounding(checkpoint.model, check.shape)
            remedy = "use another --format"
            if own > check.error / 10:
                remedy = f"PyTorch's own rounding of it is {own:g}: has its training diverged?"
            raise UserError(
                f"--format {form}: differs from PyTorch by {check.error:g} on {check.shape[0]} "
                f"images of {size}: nothing is written; {remedy}"
            )
    return results


def _quantized(
    checkpoint: Checkpoint,
    path: Path,
    facts: dict[str, Any],
    data: Sequence[Any],
    listener: Listener,
) -> dict[str, Any]:
    """Replace the file ``path`` by its int8 version, with both files' scores in its metadata."""
    import onnx

    from benchmark.export.onnx_files import OnnxNetwork, drop_outputs, set_metadata
    from benchmark.export.quantize import QUANTIZED, quantize, score

    calibration, test = data
    with TemporaryDirectory() as folder:
        small = Path(folder) / "int8.onnx"
        kept = quantize(checkpoint, path, small, calibration, listener)
        metrics: dict[str, Scores] = {
            name: score(checkpoint, OnnxNetwork(file), test, listener)
            for name, file in (("float32", path), ("int8", small))
        }
        model = onnx.load(str(small))
    int8 = {
        "operators": list(QUANTIZED),
        "kept_in_float": kept,
        "calibration_images": len(calibration),
        "calibrated_on": calibration.source.name,
        "images": len(test),
        "scored_on": test.source.name,
        "metrics": metrics,
        "higher_is_better": {
            task.name: {
                name: task.metric_info(name).higher_is_better for name in metrics["int8"][task.name]
            }
            for task in checkpoint.tasks
        },
    }
    before = path.stat().st_size
    drop_outputs(model, "/logits")
    set_metadata(model, {METADATA: json.dumps({**facts, "int8": int8}, ensure_ascii=False)})
    onnx.save(model, str(path))
    return {**int8, "bytes": {"float32": before, "int8": path.stat().st_size}}
