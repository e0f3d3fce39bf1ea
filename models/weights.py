"""Weights of a backbone, from files of any origin: read without running code, and fitted.

A file holds the tensors of a model as timm or torch save them, or a training's checkpoint with such
dictionaries in it. Names may have a prefix in common, as of a wrapper or of a larger network, and
may be those of the model's first publication, which timm renames.
"""

import argparse
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from common.errors import DataError, first_line
from common.limits import WEIGHTS, Capped, check_size, printable

State = dict[str, Tensor]
USUAL = ("state_dict", "model")
"""Entries of a checkpoint that hold the weights of a training, not their average."""
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""Functions by which timm's modules rename the tensors of the models' first publications."""
COUNTER = "num_batches_tracked"
"""A BatchNorm's count of steps, which old files lack and which nothing here reads."""
PREFIXES, DEPTH = 8, 3
SHARED = 4
"""Tensors that may lie in the same memory, as tied ones do."""


def metadata_of(path: Path) -> dict[str, str]:
    """The texts in the header of a ``.safetensors`` file. Raises DataError if it has none."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # safetensors raises its own type, not exported everywhere
        raise _unreadable(path, error) from error


def averaged_entry(path: Path) -> str | None:
    """The entry of averaged weights (EMA) in a checkpoint that holds others besides.

    Raises DataError for a file that cannot be read.
    """
    if path.suffix == ".safetensors":
        return None
    entries = read_entries(path)
    averaged = _averaged(entries)
    return averaged[0] if averaged and len(averaged) < len(entries) else None


def read_entries(path: Path) -> dict[str, State]:
    """The dictionaries of tensors in a file, by name; "" is the file itself.

    A pickle of anything but tensors and an ``argparse.Namespace``, which timm's checkpoints hold,
    is refused, and its code not run. Raises DataError.
    """
    try:
        check_size(path, WEIGHTS)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return {"": dict(load_file(path))}
        _check_stored(path)
        # a Namespace takes any attributes and runs nothing as it does
        with Capped(path) as file, torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
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
    if not (entries := dict(_entries(content, (), DEPTH))):
        raise _unreadable(path, ValueError("no dictionary of tensors in it"))
    return entries


def _entries(content: Any, name: tuple[str, ...], depth: int) -> Iterator[tuple[str, State]]:
    if not isinstance(content, Mapping):
        return
    texts = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in texts.items() if _is_plain(value)}
    if tensors:
        yield ".".join(name), tensors
    if depth:
        for key, value in texts.items():
            yield from _entries(value, (*name, key), depth - 1)


def _is_plain(value: Any) -> bool:
    """Whether ``value`` is a tensor whose numbers lie in memory, each for itself.

    A few bytes may describe one of any size, whose rows are the same memory.
    """
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    if not path.exists() or path.is_dir():
        return DataError(f"{path}: no such weights file: check --weights")
    return DataError(
        f"{path}: not a readable weights file ({first_line(error)}): give .safetensors or .pth"
    )


def _check_stored(path: Path) -> None:
    """Raises ValueError for a zip with compressed entries, which torch never writes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"its entry {printable(entry.filename, 80)} is compressed")


@dataclass(frozen=True)
class Wanted:
    """What a model needs of a file.

    full: the model without its classifier, which the tensors are loaded into. needed: names in it
    whose values are used. whole: makes the model with its classifier, for the names of its tensors.
    in_channels: of its images; of an RGB model's file the first convolution is adapted.
    """

    name: str
    full: nn.Module
    needed: Collection[str]
    whole: Callable[[], nn.Module]
    in_channels: int = 3

    def left_out(self) -> set[str]:
        """Names that a file of this model may hold and that are of no use."""
        buffers = {key for key, _ in self.full.named_buffers()}  # those that are not stored too
        try:
            return buffers | set(self.whole().state_dict())
        except Exception:  # some models cannot be built without numbers
            config = getattr(self.full, "pretrained_cfg", None) or {}
            classifier = config.get("classifier") or ()
            names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
            return buffers | {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


@dataclass
class _Fit:
    """How the tensors under a prefix of an entry fit a model.

    tensors: those that do, by the model's names. wrong: a text about each that does not, by name.
    """

    entry: str
    prefix: str
    renamed: bool = False
    tensors: State = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    @property
    def misfits(self) -> int:
        return len(self.missing) + len(self.wrong) + len(self.foreign)

    @property
    def label(self) -> str:
        """Where in the file the tensors are, and the value of --weights-key for them."""
        return ".".join(filter(None, (self.entry, self.prefix.rstrip("."))))


def load_weights(wanted: Wanted, path: Path, key: str | None = None) -> str:
    """Load the tensors that a model needs from ``path``; returns a line that says which.

    key: of the entry or the prefix in the file; None: averaged weights (EMA) if there are some,
    else the only ones that fit. Only what belongs to a classifier, or to other parts of a larger
    network, may be left over. Raises DataError for other weights and for numbers that are none.
    """
    entries = read_entries(path)
    fits = [fit for entry in _chosen(entries, key, path) for fit in _fits(wanted, path, *entry)]
    good = [fit for fit in fits if not fit.misfits]
    averaged = _averaged([fit.label for fit in good])
    if len(good) > 1 and len(averaged) == 1:
        good = [fit for fit in good if fit.label == averaged[0]]
    if len(good) > 1:
        labels = ", ".join(printable(fit.label, 80) or "the file itself" for fit in good)
        raise DataError(
            f"{path}: holds weights of {wanted.name} more than once: name one by --weights-key: "
            f"{labels}"
        )
    if not good:
        raise _misfit(wanted, path, min(fits, key=lambda fit: fit.misfits), entries)
    (fit,) = good
    wanted.full.load_state_dict(fit.tensors, strict=False)
    for name, tensor in wanted.full.state_dict().items():
        if name in fit.tensors and not bool(tensor.isfinite().all()):
            raise DataError(f"{path}: {name} holds NaN or infinite numbers: take other weights")
    return _line(path, fit, entries)


def _averaged(names: Collection[str]) -> list[str]:
    return [name for name in names if "ema" in re.split(r"[._]", name.lower())]


def _chosen(entries: Mapping[str, State], key: str | None, path: Path) -> list[tuple[str, State]]:
    """The entries to try, each cut to the tensors that ``key`` names."""
    if key is None:
        usual = [name for kind in USUAL for name in entries if kind in name.split(".")]
        names = _averaged(entries)[:1] or usual[:1] or list(entries)
        return [(name, entries[name]) for name in names]
    if key in entries:
        return [(key, entries[key])]
    for name, state in entries.items():
        prefix = f"{key.removeprefix(name).strip('.')}." if key.startswith(name) else ""
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if prefix and inner:
            return [(key, inner)]
    prefixes = {k.partition(".")[0] for k in next(iter(entries.values())) if "." in k}
    offered = ", ".join(printable(n, 80) for n in [*filter(None, entries), *sorted(prefixes)][:8])
    raise DataError(f"{path}: --weights-key {printable(key, 80)}: not in it: it has {offered}")


def _fits(wanted: Wanted, path: Path, entry: str, state: State) -> list[_Fit]:
    """Each prefix of the entry's names with how it fits: exactly, else as timm renames it."""
    known, allowed = wanted.full.state_dict(), wanted.left_out()

    def compare(fit: _Fit, tensors: State) -> _Fit:
        if wanted.in_channels != 3:
            adapt_inputs(tensors, wanted.full, wanted.name, path, wanted.in_channels)
        _compare(fit, tensors, known, wanted.needed, allowed)
        return fit

    common = _common_prefixes(state)
    part = _common_prefixes(wanted.needed)[-1]  # a file may hold that part of the model alone
    prefixes = dict.fromkeys([*_prefixes(wanted, state), *common])
    fits = [compare(_Fit(entry, prefix), _under(state, prefix)) for prefix in prefixes]
    if not all(fit.misfits for fit in fits):
        return [fit for fit in fits if not fit.misfits]
    for prefix in common:
        renamed = _renamed(wanted.full, _under(state, prefix))
        if renamed is not None:
            fits.append(compare(_Fit(entry, prefix, renamed=True), renamed))
    whole = compare(_Fit(entry, ""), {part + key: x for key, x in state.items()})
    return fits if whole.misfits else [whole]


def _under(state: State, prefix: str) -> State:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _prefixes(wanted: Wanted, state: State) -> list[str]:
    """What stands before the name of the first tensor that is needed."""
    first = _flat(next(iter(wanted.needed)))
    before = [k[: -len(first)] for k in state if _flat(k).endswith(first)]
    return [prefix for prefix in before if not prefix or prefix.endswith(".")][:PREFIXES]


def _common_prefixes(names: Iterable[str]) -> list[str]:
    """ "" and what all names have in common, up to each dot: ``module.``, ``module.model.``."""
    parts = [name.split(".")[:-1] for name in names]
    prefixes = [""]
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1 or len(prefixes) > PREFIXES:
            break
        prefixes.append(f"{prefixes[-1]}{level[0]}.")
    return prefixes


def _flat(key: str) -> str:
    """A name as timm's ``features_only`` models have it, which lack some of the levels."""
    return key.replace(".", "_")


def _compare(
    fit: _Fit,
    state: State,
    known: Mapping[str, Tensor],
    needed: Collection[str],
    allowed: Collection[str],
) -> None:
    """Fill in ``fit``. known: the model's tensors. allowed: names of no use."""
    flat = {_flat(key): key for key in state}
    used = set()
    for key, expected in known.items():
        name = key if key in state else flat.get(_flat(key))
        if name is None:
            if key in needed and not key.endswith(COUNTER):
                fit.missing.append(key)
            continue
        used.add(name)
        tensor = state[name]
        if tensor.shape != expected.shape:
            shapes = f"is {tuple(tensor.shape)}, not {tuple(expected.shape)}"
        elif expected.is_floating_point() and not tensor.is_floating_point():
            shapes = f"is {tensor.dtype}, not floating"
        else:
            fit.tensors[key] = tensor
            continue
        if key in needed:
            fit.wrong[key] = shapes
    fit.foreign = [
        k for k in state if k not in used and k not in allowed and not k.endswith(COUNTER)
    ]


def _renamed(full: nn.Module, state: State) -> State | None:
    """``state`` as timm's module of the model renames it; None if it has no such function."""
    module = sys.modules[type(full).__module__]
    rename = next((getattr(module, name) for name in FILTERS if hasattr(module, name)), None)
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if rename is None or size > SHARED * sum(stored.values()):
        return None  # it may copy each, though many be the same memory
    try:
        try:
            renamed = rename(dict(state), full)
        except TypeError:  # some take no model
            renamed = rename(dict(state))
    except Exception:  # tensors of another model: what they lack is told by the names as they are
        return None
    return {k: v for k, v in renamed.items() if isinstance(v, Tensor)}


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


def _misfit(wanted: Wanted, path: Path, fit: _Fit, entries: Mapping[str, State]) -> DataError:
    first = [f"lacks {fit.missing[0]}"] if fit.missing else []
    first += [f"{key} {text}" for key, text in list(fit.wrong.items())[:1]]
    first += [f"has {printable(fit.foreign[0], 120)} besides"] if fit.foreign else []
    where = f" under {printable(fit.label, 80)}" if fit.label else ""
    others = [printable(name, 80) for name in entries if name and name != fit.entry][:3]
    hint = f", or --weights-key ({', '.join(others)})" if others else ""
    return DataError(
        f"{path}: not weights of {wanted.name}: {len(fit.missing)} tensors missing, "
        f"{len(fit.wrong)} of another shape, {len(fit.foreign)} unknown{where} "
        f"({', '.join(first)}): check --backbone and --backbone-arg{hint}"
    )


def _line(path: Path, fit: _Fit, entries: Mapping[str, State]) -> str:
    """For people: which tensors of the file were taken."""
    state = entries.get(fit.entry, {})
    others = [name for name in entries if name and name != fit.entry]
    which = f" of {printable(fit.label, 80)}" if fit.label else ""
    if _averaged([fit.label]):
        usual = next((name for kind in USUAL for name in others if kind in name.split(".")), None)
        hint = f"; --weights-key {printable(usual, 80)} takes the others" if usual else ""
        which += f" (averaged{hint})"
    how = ", renamed by timm" if fit.renamed else ""
    outside = {k.partition(".")[0] for k in state if not k.startswith(fit.prefix)}
    rest = f"; left out: {', '.join(printable(n, 40) for n in sorted(outside)[:5])}"
    return f"weights: {path}: {len(fit.tensors)} tensors{which}{how}{rest if outside else ''}"
