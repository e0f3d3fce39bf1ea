"""Change files at random, read them, and count what happens.

    python -m tests.robustness.fuzz result --minutes 10
    python -m tests.robustness.fuzz all --cases 300 --out findings
    python -m tests.robustness.fuzz result --in-turn

A case is fine if the files are read, or refused by a UserError, within 20 s of the processor's time
and 4 GB of addresses beyond the program's own. Anything else, a crash of the process too, is a
finding: its files and its traceback are kept in --out. The same --seed makes the same cases.

With --in-turn nothing is left to chance: every value of every JSON file is replaced by each of a
list of odd ones, and removed. That found what random changes had missed.
"""

import argparse
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
CPU_SECONDS, SILENT_SECONDS, ADDRESSES = 20, 300, 4 * 2**30
KEPT = 3  # inputs of one kind of finding


class TooSlow(BaseException):
    """A case took too long; no ``except Exception`` hides it."""


def alarm(number: int, frame: FrameType | None) -> None:
    raise TooSlow


Turn = tuple[Path, int, int]
"""A JSON file among the good ones, and what of it is replaced by what."""


def turns_of(name: str, good: Path) -> list[Turn]:
    """All that is replaced in turn, shuffled; of files that are built alike the first."""
    from tests.robustness.fuzz.mutations import of_json, replacements
    from tests.robustness.fuzz.readers import READERS

    found: dict[str, list[Turn]] = {}
    for pattern in (pattern for pattern, how in READERS[name].files if how is of_json):
        for path in sorted(good.glob(pattern)):
            shape, pairs = replacements(path.read_bytes())
            found.setdefault(shape, [(path.relative_to(good), *pair) for pair in pairs])
    turns = [turn for some in found.values() for turn in some]
    random.Random(0).shuffle(turns)
    return turns


def one_case(
    name: str, seed: int, number: int, good: Path, root: Path, turns: Sequence[Turn]
) -> str:
    """Change a copy of the good files and read it: "read", "refused", or a traceback."""
    from common.errors import UserError
    from tests.robustness.fuzz.mutations import mutate, replaced
    from tests.robustness.fuzz.readers import READERS, check_message

    reader, rng = READERS[name], random.Random(f"{name} {seed} {number}")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(good, root)
    if turns:
        path, place, odd = turns[number]
        mutate(root / path, lambda content, _: replaced(content, place, odd), rng)
    else:
        for _ in range(rng.choice((1, 1, 1, 2))):
            pattern, mutation = rng.choice(reader.files)
            mutate(rng.choice(sorted(root.glob(pattern))), mutation, rng)
    try:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            reader.read(root, rng)
        except UserError as error:
            check_message(error)
            if memory := _memory_error(error):
                return f"MemoryError\n{memory}"
            return "refused"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (Exception, TooSlow):
        return traceback.format_exc()
    return "read"


def _memory_error(error: BaseException | None) -> str:
    """The traceback where an error came of too little memory, though it was made a message."""
    while error is not None:
        if isinstance(error, MemoryError) or "llocate memory" in str(error):
            return "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__
    return ""


def kind_of(trace: str) -> str:
    """The error's type and the last place of ours in a traceback."""
    places = [t.strip() for t in trace.splitlines() if t.strip().startswith(f'File "{ROOT}')]
    ours = [place for place in places if "/tests/" not in place]
    last = trace.strip().splitlines()[-1]
    return f"{last.partition(':')[0]} {(ours or places or [''])[-1]}"


def keep(out: Path, name: str, number: int, trace: str, root: Path, kinds: Counter[str]) -> None:
    kind = kind_of(trace)
    kinds[kind] += 1
    if kinds[kind] <= KEPT:
        folder = out / f"{name}-{number}"
        shutil.copytree(root, folder / "files", dirs_exist_ok=True)
        (folder / "trace.txt").write_text(trace, "utf-8", "backslashreplace")
        print(f"FINDING {folder}: {kind}", flush=True)  # noqa: T201


def work(name: str, seed: int, first: int, cases: int, end: float, good: Path, place: Path,
         out: Path, shared: mmap.mmap, turns: Sequence[Turn]) -> None:  # fmt: skip
    """The cases from ``first`` on, in a process of its own; ``shared`` tells how far it is."""
    from tests.robustness.fuzz.readers import prepare

    prepare()
    signal.signal(signal.SIGPROF, alarm)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + ADDRESSES, own + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes there
    kinds: Counter[str] = Counter()
    number, read, refused, found = first, *struct.unpack_from("<QQQ", shared, 8)
    while number < cases and time.time() < end:
        struct.pack_into("<QQQQ", shared, 0, number, read, refused, found)
        outcome = one_case(name, seed, number, good, place / "case", turns)
        read, refused = read + (outcome == "read"), refused + (outcome == "refused")
        if outcome not in ("read", "refused"):
            found += 1
            keep(out, name, number, outcome, place / "case", kinds)
        number += 1
    struct.pack_into("<QQQQ", shared, 0, number, read, refused, found)


def fuzz(name: str, minutes: float, cases: int, seed: int, out: Path, in_turn: bool) -> int:
    """All cases of one reader. Prints the counts each minute; returns the number of findings."""
    from tests.robustness.fuzz.readers import READERS, prepare

    prepare()
    end, start, told, kinds = time.time() + 60 * minutes, time.time(), 0.0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as text:
        place = Path(text)
        good, shared = place / "good", mmap.mmap(-1, 32)
        good.mkdir()
        READERS[name].make(good)
        READERS[name].read(good, random.Random(0))
        turns = turns_of(name, good) if in_turn else []
        if in_turn:
            cases = min(cases, len(turns))
        first = 0
        while first < cases and time.time() < end:
            if not (child := os.fork()):
                try:
                    work(name, seed, first, cases, end, good, place, out, shared, turns)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            before, since = -1, time.time()
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                time.sleep(0.05)
                number = struct.unpack_from("<Q", shared)[0]
                if number != before:
                    before, since = number, time.time()
                elif time.time() - since > SILENT_SECONDS:
                    os.kill(child, signal.SIGKILL)
                if time.time() - told > 60:
                    told = time.time()
                    print(_counts(name, shared, start), flush=True)  # noqa: T201
            number, read, refused, found = struct.unpack_from("<QQQQ", shared)
            if not ended[1]:
                break
            how = f"the process ended by signal {os.waitstatus_to_exitcode(ended[1])}"
            keep(out, name, number, how, place / "case", kinds)
            struct.pack_into("<QQQQ", shared, 0, number + 1, read, refused, found + 1)
            first = number + 1
    print(f"done: {_counts(name, shared, start)}", flush=True)  # noqa: T201
    return int(struct.unpack_from("<QQQQ", shared)[3])


def _counts(name: str, shared: mmap.mmap, start: float) -> str:
    number, read, refused, found = struct.unpack_from("<QQQQ", shared)
    seconds = f"{time.time() - start:.0f} s"
    return f"{name}: {number} cases, {read} read, {refused} refused, {found} findings, {seconds}"


def main() -> None:
    from tests.robustness.fuzz.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="+", metavar="READER", choices=["all", *READERS])
    parser.add_argument("--minutes", type=float, default=10, help="for each reader")
    parser.add_argument("--cases", type=int, default=10**12, help="at most, for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--in-turn", action="store_true", help="every value of JSON files")
    given = parser.parse_args()
    names = list(READERS) if "all" in given.readers else given.readers
    found = [
        fuzz(name, given.minutes, given.cases, given.seed, given.out, given.in_turn)
        for name in names
    ]
    raise SystemExit(1 if any(found) else 0)


if __name__ == "__main__":
    main()
