"""Examine this machine and installation: one check after another, each with its advice."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.doctor.checks import Check, Question, answer
from common.progress import Listener, Silent

if TYPE_CHECKING:
    from benchmark.doctor.software import Probes


def questions(results: Path, data: Path | None, ray: bool, probes: "Probes") -> list[Question]:
    """All checks, in order. probes: the processes that run meanwhile."""
    from benchmark.doctor import machine, software

    result = [
        Question("load", machine.load),  # first, because the other checks are load themselves
        Question("memory", machine.memory),
        Question("shared memory", machine.shared_memory),
        Question("results folder", lambda: machine.results_folder(results), needed=True),
        Question("temporary folder", machine.temporary_folder),
        Question("Python", software.python, needed=True),
        Question("packages", software.packages, needed=True),
        *(Question(f"[{name}]", partial(software.extra, name)) for name in software.extras()),
        Question("imports", software.imports, needed=True, limit=60),
        Question("processor", machine.processor, limit=30),
        Question("CUDA", machine.cuda, limit=60),
        Question("fresh processes", machine.fresh_processes),
        Question("torch.compile", lambda: software.compiles(probes), limit=60),
        Question("ONNX", lambda: software.exports(probes), limit=60),
        # these are timed, so they come last, when no probe runs
        Question("mixed precision", software.mixed_precision, limit=30),
        Question("same bits", software.same_bits, limit=30),
        Question("self-test", software.self_test, needed=True, limit=90),
    ]
    if data is not None:
        result.insert(4, Question("data", lambda: machine.data(data), needed=True))
    if ray:
        result.insert(-3, Question("Ray", lambda: software.starts_ray(probes), limit=90))
    return result


def examine(
    results: Path, data: Path | None = None, ray: bool = False, listener: Listener | None = None
) -> list[Check]:
    """Run all checks, in order. A problem is a finding and raises nothing; no file stays.

    results: folder that runs would be written to. data: a data set's folder or packed file to
    check. ray: start Ray too, which takes long.
    """
    from benchmark.doctor.software import Probes

    listener = listener or Silent()
    checks = []
    with Probes(["compile", "onnx", *(["ray"] if ray else [])]) as probes:
        pending = questions(results, data, ray, probes)
        listener.begin("doctor", len(pending))
        for question in pending:
            checks.append(answer(question))
            listener.step(question.name)
    return checks
