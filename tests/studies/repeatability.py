"""Two runs of the same `speed` command: how far the ratios between their pairs disagree.

python -m tests.studies.repeatability --threads 1 --decoder sparsemask --decoder fcn

Arguments are those of `speed`. Exits with 1 if a ratio differs by more than 5 %.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIMIT = 0.05
ROOT = Path(__file__).parent.parent.parent
Row = dict[str, Any]


def rows_of(arguments: Sequence[str]) -> list[Row]:
    """The rows that `speed` with ``arguments`` gives in a fresh process."""
    command = [sys.executable, str(ROOT / "cli.py"), "speed", "--no-memory", *arguments]
    done = subprocess.run([*command, "--json", "-"], stdout=subprocess.PIPE, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout)
    return rows


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Median times of each two pairs of one image size and batch, one by the other."""
    found = {}
    for one, other in itertools.combinations(rows, 2):
        same = all(one[key] == other[key] for key in ("image_size", "batch"))
        if same and one["latency"] and other["latency"]:
            names = [f"{row['backbone']} + {row['decoder']}" for row in (one, other)]
            size = "x".join(map(str, one["image_size"]))
            ratio = one["latency"]["median_ms"] / other["latency"]["median_ms"]
            found[f"{names[0]} / {names[1]}, {size}, batch {one['batch']}"] = ratio
    return found


def disagreement(one: float, other: float) -> float:
    """By what share of the smaller one the two differ."""
    return max(one, other) / min(one, other) - 1


def main() -> int:
    first, second = (ratios(rows_of(sys.argv[1:])) for _ in range(2))
    both = [name for name in first if name in second]
    if not both:
        print("nothing to compare: give two decoders or more")  # noqa: T201
        return 1
    for name in both:
        differs = disagreement(first[name], second[name])
        print(f"{first[name]:8.3f} {second[name]:8.3f} {differs:7.1%}  {name}")  # noqa: T201
    largest = max(disagreement(first[name], second[name]) for name in both)
    print(f"largest disagreement: {largest:.1%}, allowed: {LIMIT:.0%}")  # noqa: T201
    return int(largest > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
