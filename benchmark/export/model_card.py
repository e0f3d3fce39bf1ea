"""A model card: the page that a hub shows of a trained network, with front matter it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmark.experiment.plan import info_of
from benchmark.results.result import Result
from common.words import number
from tasks.base import TASKS
from tasks.metrics.names import metric_name

TEMPLATES = Path(__file__).parent / "templates"


def model_card(result: Result, facts: Mapping[str, Any], repo: str, wiring: str = "") -> str:
    """The card of a finished run as Markdown with YAML front matter.

    wiring: name of the decoder's wiring file beside the card; "" without one.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True,
        trim_blocks=True, lstrip_blocks=True, autoescape=False,
    )  # fmt: skip
    info = info_of(result.config)
    return environment.get_template("model_card.md.j2").render(
        front=yaml.safe_dump(_front_matter(result, repo), sort_keys=False, allow_unicode=True),
        name=repo.rpartition("/")[2],
        repo=repo,
        config=result.config,
        facts=facts,
        info=info,
        trained=result.data.get("train", {}).get("images"),
        tasks=_scores(result),
        command=result.command,
        wiring=wiring,
        pretrained=_initialised(result),
    )


def _front_matter(result: Result, repo: str) -> dict[str, Any]:
    """Without a licence: the data's licence need not be the network's."""
    config = result.config
    tasks = config.tasks
    tags = ["sparsemask", "dense-prediction", *tasks, str(config.backbone), config.decoder]
    front: dict[str, Any] = {
        "library_name": "sparsemask-bench",
        "tags": list(dict.fromkeys(tags)),
    }
    if len(tasks) == 1 and (tag := TASKS.get(tasks[0]).pipeline_tag):
        front["pipeline_tag"] = tag
    front["model-index"] = [
        {
            "name": repo.rpartition("/")[2],
            "results": [
                {
                    "task": {"type": TASKS.get(task).pipeline_tag or task},
                    "dataset": {
                        "name": info_of(config).title,
                        "type": config.dataset,
                        "split": view.protocol.split("/")[2] if view.protocol else "test",
                    },
                    "metrics": [
                        {"type": name, "value": view.metrics[name]} for name in view.columns
                    ],
                }
                for task, view in result.by_task().items()
            ],
        }
    ]
    return front


def _scores(result: Result) -> list[dict[str, Any]]:
    tasks = []
    for task, view in result.by_task().items():
        rows = []
        for name in view.columns:
            low, high = view.intervals.get(name, (None, None))
            rows.append(
                {
                    "name": metric_name(name),
                    "arrow": "↑" if view.higher_is_better[name] else "↓",
                    "value": number(view.metrics[name], None),
                    "interval": f"{number(low, None)}–{number(high, None)}"
                    if low is not None
                    else "",
                    "constant": number(view.constant.get("metrics", {}).get(name), None),
                }
            )
        tasks.append({"name": task, "protocol": view.protocol, "rows": rows,
                      "images": view.counts.get("images")})  # fmt: skip
    return tasks


def _initialised(result: Result) -> str:
    if result.config.pretrained:
        return "timm's pretrained weights"
    if result.config.weights is not None:
        return f"the weights {result.config.weights.name}"
    if result.config.init is not None:
        return f"the network of the run {result.config.init.name}"
    return "random weights"
