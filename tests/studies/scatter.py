"""Accuracy against the decoder's size or work, a panel for each task and data set.

    python -m tests.studies.scatter runs --x weights -o docs/search-accuracy.svg
    python -m tests.studies.scatter costs --x macs -o docs/search-cost.svg

A small dot is a run (a seed), a large one the mean of a decoder's runs.
"""

import argparse
import itertools
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from benchmark.results.result import Result
from benchmark.results.store import read_all
from benchmark.wiring.figure import render
from common.files import write_atomic
from models.decoder_name import DecoderName

AXES = {
    "weights": ("decoder weights and head, thousands", 1e-3),
    "macs": ("decoder and head, million MACs an image", 1e-6),
}
COLOURS = {"found": "#D55E00", "random": "#999999", "other": "#0072B2"}


def short(decoder: str) -> str:
    """A decoder's name; of a wiring file, its stem."""
    return DecoderName.parse(decoder).label


def place(result: Result, x: str) -> float:
    counts = result.params if x == "weights" else result.macs
    assert counts is not None
    return (counts["decoder"] + counts["head"]) * AXES[x][1]


def draw(results: list[Result], x: str) -> Figure:
    panels: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        panel = f"{result.config.task}, {result.config.dataset}"
        panels[panel][short(result.config.decoder)].append(result)
    figure = Figure(figsize=(5.2 * len(panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, decoders) in zip(axes, sorted(panels.items()), strict=True):
        main = next(iter(decoders.values()))[0].columns[0]
        for name, runs in sorted(decoders.items()):
            kind = next((k for k in ("found", "random") if k in name), "other")
            values = [run.metrics[main] for run in runs]
            at, mean = place(runs[0], x), sum(values) / len(values)
            ax.plot([at] * len(values), values, ".", color=COLOURS[kind], markersize=4)
            ax.plot(at, mean, "o", color=COLOURS[kind], markersize=7)
            ax.annotate(name, (at, mean), (5, 4), textcoords="offset points", fontsize=7)
        ax.set_xscale("log")
        ax.set_xlabel(AXES[x][0])
        better = "higher" if runs[0].higher_is_better[main] else "lower"
        ax.set_ylabel(f"{main} ({better} is better)")
        ax.set_title(title, fontsize=10)
        ax.margins(x=0.15)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--x", choices=list(AXES), default="weights")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = itertools.chain.from_iterable(map(read_all, arguments.results))
    finished = [result for result in found if result.status == "finished"]
    write_atomic(arguments.output, render(draw(finished, arguments.x), arguments.output.suffix))


if __name__ == "__main__":
    main()
