"""Pruning: from a search's final weights to a wiring."""

from dataclasses import replace

from benchmark.wiring.record import Pruning, Search
from models.connectivity import Connectivity, from_weights


def prune(search: Search) -> tuple[Connectivity, Pruning]:
    """The wiring of the final weights above the threshold, and facts about the pruning.

    Raises UsageError if the threshold leaves nothing.
    """
    values = dict(zip(search.pairs, search.final, strict=True))
    weights: dict[int, dict[str, float]] = {}
    for (stage, source), weight in values.items():
        weights.setdefault(stage, {})[source] = weight
    settings = {name: search.config.get(name) for name in ("seed", "iterations", "loss", "lambda_")}
    described = search.config.get("description")  # of the user's own data
    own = str(described.get("name", "")) if isinstance(described, dict) else ""
    arguments = search.config.get("backbone_args") or {}
    chosen_blocks = {"depths", "neck", "out_indices"} & set(arguments)  # what the features are of
    origin = {
        "source": f"search ({search.method})",
        "task": search.task,
        "dataset": f"{search.dataset} ({own})" if own else search.dataset,
        "threshold": search.threshold,
        **{name.rstrip("_"): value for name, value in settings.items()},
        **({"backbone_args": arguments} if chosen_blocks else {}),
    }
    name = "-".join(filter(None, (search.task, search.dataset, own, f"seed{settings['seed']}")))
    strong = from_weights(name, search.strides, weights, search.threshold, search.inputs)
    alive = strong.alive()
    wiring = alive.pruned(search.merge, search.absorb)
    wiring = replace(wiring, backbone=search.backbone, origin=origin)
    chosen = {(s, n) for s, inputs in strong.stages.items() for n in inputs}
    smallest = min(values[connection] for connection in chosen)
    largest = max((w for c, w in values.items() if c not in chosen), default=0.0)
    return wiring, {
        "candidates": len(values),
        "kept": len(chosen),
        "alive": alive.connections,
        "connections": wiring.connections,
        "smallest_kept": smallest,
        "largest_dropped": largest,
        "gap": smallest / largest if largest > 0 and search.inputs is None else None,
        "stages": wiring.to_json()["stages"],
    }
