"""Networks, decoders and results from Python.

    from benchmark import create_model, load_results, list_decoders

A name is imported when it is asked for: ``import benchmark`` alone loads neither torch nor timm.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.experiment.listing import list_decoders
    from benchmark.experiment.network import create_model
    from benchmark.results.checkpoint import load_model
    from benchmark.results.records import load_results
    from models.create import create_decoder

__all__ = ["create_decoder", "create_model", "list_decoders", "load_model", "load_results"]

_MODULES = {
    "create_decoder": "models.create",
    "create_model": "benchmark.experiment.network",
    "list_decoders": "benchmark.experiment.listing",
    "load_model": "benchmark.results.checkpoint",
    "load_results": "benchmark.results.records",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
