"""Functions called in fresh processes, whose memory and state nothing has touched.

A server imports what it is asked for, computes nothing, and forks for every call: a process costs
milliseconds where starting Python and importing torch costs seconds. It is started with the first
call and ended with the ``with`` block.
"""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from common.closing import Closing
from common.errors import UserError, reason
from common.paths import ROOT


class FreshProcess(Closing):
    """Calls functions of this project's modules in processes of their own, one after another.

    environment: variables that they have besides this process'.
    """

    def __init__(self, **environment: str) -> None:
        self.environment = environment
        self.server: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self.server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.communicate()
            self.server = None

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """What ``function(**arguments)`` returns there. Both ways only what JSON can hold.

        function: of a module, by its name. Raises UserError with the error that was met there, or
        that tells that the process was ended, as a system short of memory does.
        """
        if self.server is None:
            self.server = _start(self.environment)
        job = {"module": function.__module__, "name": function.__name__, "arguments": arguments}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        try:
            self.server.stdin.write(json.dumps(job) + "\n")
            self.server.stdin.flush()
            answer = self.server.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            raise UserError("a fresh process could not be started")
        done = json.loads(answer)
        if "error" in done:
            raise UserError(done["error"])
        return done["result"]


def _start(environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    if not hasattr(os, "fork"):
        raise UserError("this system has no fork: fresh processes cannot be made")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark.speed.fresh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # so that it can be ended with its children
    )


def _serve() -> None:
    """Answer each line of standard input, a call, with a line: its result or its error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        job = json.loads(line)
        module = importlib.import_module(job["module"])
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(_done(getattr(module, job["name"]), job["arguments"]), pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        if not text:
            text = json.dumps({"error": _ended(status)})
        answers.write(text + "\n")
        answers.flush()


def _done(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        return {"result": function(**arguments)}
    except Exception as error:  # what a network does not take raises almost anything
        return {"error": reason(error)}


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"its process was ended by {name}: memory may have run out"
    return f"its process ended with {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    _serve()
