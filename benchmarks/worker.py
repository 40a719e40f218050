"""One contestant, in a process of its own: sets up once, then works whenever it is told to.

    python benchmarks/worker.py stock_keras.training --options '{"attention": "luong"}'

The first argument is a function in `peers`. Lines on standard input: `set SIZE` builds the work of
a size and warms up, `go` runs it and gives the time, the end of the input ends the process. Every
line gets one line of JSON on standard output; whatever libraries print goes to standard error.
With `--once` the function is called with the size and a function that it tells its milestones.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import json
import math
import os
import resource
import sys
import time
import traceback

from sizes import NotThere, Size

AT_LEAST = 0.2  # seconds of a sample: shorter work is repeated
VERSIONED = ("keras_attn", "keras", "tensorflow", "torch", "numpy", "joeynmt", "onmt", "yoyodyne")


def versions():
    """Return the versions of what is imported."""
    found = {name: sys.modules[name] for name in VERSIONED if name in sys.modules}
    return {
        name: getattr(module, "__version__", None) or importlib.metadata.version(name)
        for name, module in found.items()
    }


def peak_megabytes():
    """Return the most memory that this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Worker:
    """What answers the lines.

    Args:
        function: From a size and options to `Work`.
        options: The options.
    """

    def __init__(self, function, options):
        self.function, self.options = function, options
        self.work, self.repeat = None, 1

    def set(self, size):
        """Build the work of a size, run it twice, and say what it is."""
        self.work = None
        gc.collect()
        self.work = self.function(size, **self.options)
        begun = time.perf_counter()
        answer = self.work.run()
        first = time.perf_counter() - begun
        self.repeat = 1
        self.repeat = math.ceil(AT_LEAST / max(self.go()["call"], 1e-4))
        return {
            "answer": getattr(answer, "tolist", lambda: answer)(),
            "first_call": first,
            "parameters": self.work.parameters,
            "parts": self.work.parts,
            "calls_of_a_sample": self.repeat,
            "peak_megabytes": peak_megabytes(),
            "versions": versions(),
            "environment": {
                key: value for key, value in os.environ.items() if key.endswith("_NUM_THREADS")
            },
            **self.work.facts,
        }

    def go(self):
        """Work once; return seconds a part, seconds of the processor, and seconds a call."""
        begun, used = time.perf_counter(), time.process_time()
        for _ in range(self.repeat):
            self.work.run()
        wall, used = time.perf_counter() - begun, time.process_time() - used
        call = wall / self.repeat
        return {"seconds": call / self.work.parts, "call": call, "wall": wall, "cpu": used}

    def answer(self, line):
        """Return the answer to a line; what goes wrong is an answer too."""
        command, _, size = line.strip().partition(" ")
        try:
            return self.go() if command == "go" else self.set(Size.parse(size))
        except NotThere as error:
            return {"absent": str(error)}
        except Exception as error:
            traceback.print_exc()
            return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def imported(module, function):
    """Return a function in `peers`, or one that says what is not installed."""
    try:
        return getattr(importlib.import_module(f"peers.{module}"), function)
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed"

    def without(*_, **__):
        raise NotThere(missing)

    return without


def main():
    """Answer lines until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--once", metavar="SIZE", type=Size.parse)
    arguments = parser.parse_args()
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message):
        print(json.dumps(message), file=channel, flush=True)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    function = imported(*arguments.work.split("."))
    if arguments.once:
        say({"milestone": "imported"})
        try:
            function(arguments.once, lambda name: say({"milestone": name}), **arguments.options)
        except NotThere as error:
            say({"absent": str(error)})
        say({"peak_megabytes": peak_megabytes(), "versions": versions()})
    else:
        worker = Worker(function, arguments.options)
        for line in sys.stdin:
            say(worker.answer(line))
    os._exit(0)  # threads of libraries may take long to end


if __name__ == "__main__":
    main()
