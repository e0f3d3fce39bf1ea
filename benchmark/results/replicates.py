"""Bootstrap replicates of a run's metrics: written beside its result, read for comparisons."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import limits
from common.files import write_atomic

if TYPE_CHECKING:  # it imports torch, which a report does not need
    from tasks.metrics.resampling import Floats

REPLICATES = "bootstrap.npz"


def save_replicates(folder: Path, replicates: Mapping[str, "Mapping[str, Floats]"]) -> None:
    """Write the bootstrap replicates of each task's metrics, for comparisons image by image."""
    arrays = {
        f"{task}/{name}": values.astype(np.float32)
        for task, metrics in replicates.items()
        for name, values in metrics.items()
    }
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    write_atomic(folder / REPLICATES, out.getvalue())


def load_replicates(folder: Path, task: str) -> "dict[str, Floats]":
    """The replicates of one task's metrics, float64 [N] by name; empty if none can be read.

    Runs scored on the same images draw the same splits, so their replicates are paired.
    """
    try:
        path = folder / REPLICATES
        limits.check_size(path, limits.REPLICATES)
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > limits.REPLICATES:
                return {}
            loaded = {
                name.removeprefix(f"{task}/").removesuffix(".npy"): _vector(archive, name)
                for name in archive.namelist()
                if name.startswith(f"{task}/")
            }
            return {name: values for name, values in loaded.items() if values is not None}
    except Exception:  # the zip and npy readers raise almost anything for damaged bytes
        return {}


def _vector(archive: zipfile.ZipFile, name: str) -> "Floats | None":
    """An array float64 [N]; None for anything else, whose header may claim any size."""
    content = archive.read(name)
    header = io.BytesIO(content)
    np.lib.format.read_magic(header)
    shape, _, kind = np.lib.format.read_array_header_1_0(header)
    if kind.kind != "f" or len(shape) != 1 or not 0 < shape[0] <= len(content):
        return None
    values: Floats = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)
    return values
