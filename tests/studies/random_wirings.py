"""Random wirings with as many live connections as a found one, to hold a search against.

    python -m tests.studies.random_wirings found/found.json --count 3 --output wirings

Then: python cli.py run … --decoder connectivity:found/found.json --decoder connectivity:wirings/…
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from common.files import write_atomic
from models.connectivity import Connectivity, random_wiring


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("found", type=Path)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = Connectivity.load(arguments.found).alive()
    for seed in range(arguments.count):
        drawn = random_wiring(found.strides, found.connections, seed)
        drawn = replace(drawn, backbone=found.backbone)
        path = arguments.output / f"{drawn.name}.json"
        write_atomic(path, json.dumps(drawn.to_json(), indent=1) + "\n", "--output")
        print(path)  # noqa: T201


if __name__ == "__main__":
    main()
