"""What each runtime and precision gives and costs: latencies beside scores, as Markdown.

    python -m tests.studies.precisions --results runs --speed speed.json … [--json FILE]

Joins the scores that `run --runtime … --precision …` wrote into the results with the latencies of
`speed --runtime … --precision … --json`, which may be of another image size, by network, runtime
and precision. A precision's loss is of the ranking metric, beside eager f32 on the same images.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.results.result import Result
from benchmark.results.store import load
from common.files import write_atomic
from models.decoder_name import DecoderName

PAIR = ("runtime", "precision")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--speed", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = [load(path.parent) for path in sorted(arguments.results.glob("*/result.json"))]
    timings = [row for path in arguments.speed for row in json.loads(path.read_text())]
    rows = list(joined([r for r in results if r is not None and r.pairs], timings))
    print("\n".join(table(rows)))  # noqa: T201
    if arguments.json is not None:
        environments = [row["environment"] for row in timings[:1]]
        report = {"environment": environments[0], "isa": timings[0]["isa"], "rows": rows}
        write_atomic(arguments.json, json.dumps(report, indent=1) + "\n", "--json")


def joined(
    results: Sequence[Result], timings: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A row for each timing of a network that was scored; what could not run has its reason."""
    for timing in timings:
        label = DecoderName.parse(timing["decoder"]).label
        for result in results:
            config = result.config
            if (config.backbone, DecoderName.parse(config.decoder).label) != (
                timing["backbone"], label,
            ):  # fmt: skip
                continue
            how = tuple(timing[name] for name in PAIR)
            pair = next((pair for pair in result.pairs if pair.pair == how), None)
            cost = None if pair is None else pair.costs.get(config.task)
            latency = timing["latency"] or {}
            yield {
                "backbone": config.backbone,
                "decoder": label,
                **{name: timing[name] for name in PAIR},
                "image_size": timing["image_size"],
                "ms": latency.get("median_ms"),
                "p5_ms": latency.get("p5_ms"),
                "disturbed": latency.get("disturbed"),
                "once": timing["once"],
                "cost": None if cost is None else cost.model_dump(),
                "kept_in_float": None
                if pair is None or pair.calibration is None
                else pair.calibration.kept_in_float,
                "reason": timing["error"] or (pair.reason if pair is not None else None),
            }


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Markdown: decoders of a backbone down, pairs across; ms, and the loss in per cent."""
    pairs = list(dict.fromkeys(tuple(row[n] for n in PAIR) for row in rows if row["ms"]))
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        some = [row for row in rows if row["backbone"] == backbone]
        metric = next(row["cost"]["metric"] for row in some if row["cost"])
        yield f"| {backbone} | {metric} | {' | '.join(map(' '.join, pairs))} |"
        yield "| --- " * (2 + len(pairs)) + "|"
        for decoder in dict.fromkeys(row["decoder"] for row in some):
            by_pair = {
                tuple(row[n] for n in PAIR): row for row in some if row["decoder"] == decoder
            }
            reference = next(r["cost"]["reference"] for r in by_pair.values() if r["cost"])
            cells = [_cell(by_pair.get(pair)) for pair in pairs]
            yield f"| {decoder} | {reference:.3f} | {' | '.join(cells)} |"
        yield ""


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["ms"] is None:
        return "–"
    mark = "†" if row["disturbed"] else ""
    text = f"{row['ms']:.0f}{mark}" if row["ms"] >= 10 else f"{row['ms']:.1f}{mark}"
    if (cost := row["cost"]) is None or cost["worse"] is None:
        return text
    lost = "" if cost["within"] else " ‡"
    return f"{text} ({100 * cost['worse']:+.1f} %{lost})"


if __name__ == "__main__":
    main()
