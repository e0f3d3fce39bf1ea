"""Weights of a backbone, from files of any origin: read without running code, and fitted."""

import pickle
import re
import zipfile
from pathlib import Path

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from common.errors import DataError, first_line
from common.limits import WEIGHTS, Capped, check_size, printable


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # safetensors raises its own type, not exported everywhere
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    if not path.exists() or path.is_dir():
        return DataError(f"{path}: no such weights file: check --weights")
    return DataError(
        f"{path}: not a readable weights file ({first_line(error)}): give .safetensors or .pth"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file. A pickle of anything else is refused, and its code not run."""
    try:
        check_size(path, WEIGHTS)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        _check_stored(path)
        with Capped(path) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its first lines advise to load it all the same
        match = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if match is None:
            raise _unreadable(path, ValueError("no pickle of tensors")) from error
        raise DataError(
            f"{path}: asks to run {printable(match[1], 80)}, and was not loaded: get the weights "
            "as .safetensors, or as a state_dict of tensors alone"
        ) from None
    except Exception as error:
        raise _unreadable(path, error) from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise _unreadable(path, ValueError("no dictionary of tensors in it"))
    return state


def _check_stored(path: Path) -> None:
    """Raises ValueError for a zip with compressed entries, which torch never writes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"its entry {printable(entry.filename, 80)} is compressed")


def load_weights(full: nn.Module, name: str, path: Path, in_channels: int = 3) -> None:
    """Load all of ``full`` from ``path``; only a classifier may be left over."""
    state = read_weights(path)
    config = getattr(full, "pretrained_cfg", None) or {}
    classifier = config.get("classifier") or ()
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {k: v for k, v in state.items() if not any(k.startswith(f"{c}.") for c in classifiers)}
    expected = full.state_dict()
    if in_channels != 3:
        adapt_inputs(state, full, name, path, in_channels)
    missing = [k for k in expected if k not in state]
    foreign = [k for k in state if k not in expected]
    shapes = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if missing or foreign or shapes:
        if missing:
            first = f"lacks {missing[0]}"
        elif shapes:
            key = shapes[0]
            first = f"{key} is {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
        else:
            first = f"has {foreign[0]} besides"
        raise DataError(
            f"{path}: not weights of {name}: {len(missing)} tensors missing, {len(shapes)} of "
            f"another shape, {len(foreign)} unknown ({first}): check --backbone and --backbone-arg"
        )
    full.load_state_dict(state)


def adapt_inputs(
    state: dict[str, Tensor], full: nn.Module, name: str, path: Path, in_channels: int
) -> None:
    """Adapt, in place, the first convolutions of an RGB model's ``state`` to ``in_channels``.

    As timm adapts its own weights: one channel gets the sum over the three; of more, each gets one
    of the three in turn, all scaled to the same sum. Raises DataError where timm cannot.
    """
    first = (getattr(full, "pretrained_cfg", None) or {}).get("first_conv") or ()
    expected = full.state_dict()
    for conv in (first,) if isinstance(first, str) else first:
        weight, wanted = state.get(f"{conv}.weight"), expected.get(f"{conv}.weight")
        if weight is None or wanted is None or weight.ndim < 2:
            continue
        groups, rest = divmod(weight.shape[1], 3)  # several behind a space-to-depth
        if rest or wanted.shape[1] != groups * in_channels:
            continue
        try:
            state[f"{conv}.weight"] = adapt_input_conv(in_channels, weight)
        except NotImplementedError:
            raise DataError(
                f"{path}: timm cannot adapt {conv} of {name}, whose weights are "
                f"{tuple(weight.shape)}, to {in_channels} channels: use another backbone, or leave "
                "--weights out"
            ) from None
