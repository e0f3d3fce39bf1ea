"""A short form of ``python -m tests.robustness.fuzz all``, which reads damaged files."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.robustness.fuzz import mutations

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--in-turn",)])
def test_damaged_files_are_read_or_refused(tmp_path: Path, how: tuple[str, ...]) -> None:
    from tests.robustness.fuzz.readers import READERS

    readers = [
        name for name, reader in READERS.items()
        if not how or any(mutation is mutations.of_json for _, mutation in reader.files)
    ]  # fmt: skip
    assert len(readers) >= 6
    command = [sys.executable, "-m", "tests.robustness.fuzz", *readers, *how, "--cases", "150",
               "--minutes", "0.08"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    traces = [path.read_text() for path in tmp_path.glob("*/trace.txt")]
    assert done.returncode == 0, "\n".join([*traces, done.stdout, done.stderr[-3000:]])
    ended = [text.split()[1] for text in done.stdout.splitlines() if text.startswith("done: ")]
    assert ended == [f"{name}:" for name in readers]


def test_every_value_of_a_json_file_is_replaced_in_turn() -> None:
    content = b'{"a": [1, 2, 3], "b": {"c": 4}}'
    _, pairs = mutations.replacements(content)
    assert len(pairs) == 5 * (len(mutations.ODD) + 1)  # a, its first and last, b, c
    found = [mutations.replaced(content, *pair) for pair in pairs]
    assert len({*found, content}) == len(pairs)  # b without c is an empty b
    assert b'{"a": [1, 2, 3]}' in found
    assert b'{"a": [1, 2, Infinity], "b": {"c": 4}}' in found


@pytest.mark.parametrize("name", ["of_bytes", "of_json", "of_text"])
def test_a_mutation_is_the_same_for_the_same_seed(name: str) -> None:
    mutation, content = getattr(mutations, name), b'{"a": [1, 2, {"b": "c"}]}\n'
    one, two, other = (mutation(content, random.Random(seed)) for seed in ("1", "1", "2"))
    assert one == two
    assert len({one, other, content}) > 1
