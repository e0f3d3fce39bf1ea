"""How much searches agree: the Jaccard index of their live and of all their kept connections.

python -m tests.studies.agreement found-0 found-1 found-2
"""

import argparse
import itertools
from pathlib import Path

from benchmark.wiring.prune import prune
from benchmark.wiring.record import read_search
from models.connectivity import Connection


def connections_of(folder: Path) -> tuple[set[Connection], set[Connection]]:
    """The live and the kept connections of the search in ``folder``."""
    search = read_search(folder)
    found, _ = prune(search)
    live = {(stage, source) for stage, inputs in found.stages.items() for source in inputs}
    kept = {c for c, w in zip(search.pairs, search.final, strict=True) if w > search.threshold}
    return live, kept


def jaccard(one: set[Connection], other: set[Connection]) -> float:
    """Shared ones as a share of all."""
    return len(one & other) / len(one | other)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+")
    found = {folder: connections_of(folder) for folder in parser.parse_args().folders}
    for one, other in itertools.combinations(found, 2):
        live, kept = (jaccard(a, b) for a, b in zip(found[one], found[other], strict=True))
        print(f"{one} and {other}: live {live:.2f}, kept {kept:.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
