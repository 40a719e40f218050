"""Paired measurements of contestants that live in processes of their own.

TensorFlow, PyTorch and different settings of threads never share a process. Contestants are set up
one after the other, then work in turn, round after round (A B C A B C), so that what the machine
does meanwhile meets all of them, and ratios are taken within a round. Before each sample there is a
pause in which idle OpenMP threads stop spinning; no waiting policy is set, since one would slow the
contestant down. Around each sample a canary, two threads of SHA-256, shows whether two cores were
to be had, and the kernel's counters show what others used. Samples without company count; where
fewer than three are, all do, and the results say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sizes import Size

HERE = Path(__file__).parent
PAUSE = 0.25  # seconds before a sample, and behind it
TWO_CORES = 1.6  # least speed of two threads over one, of a good sample
COMPANY = 0.15  # most cores that others may use during a good sample
ENOUGH = 3  # good samples
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")

_threads = ThreadPoolExecutor(2)
_bytes = os.urandom(1 << 22)


def _hash(_=None):
    hashlib.sha256(_bytes).digest()


def commit() -> str:
    """Return the commit that is checked out, with a + where code differs from it."""
    git = ["git", "-C", str(HERE.parent)]
    asked = [*git, "rev-parse", "--short=10", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"]).returncode
    return found + "+" * (changed == 1)


def canary() -> float:
    """Return how much faster two threads are than one: 2 if both cores are ours, 1 if one is."""
    begun = time.perf_counter()
    _hash()
    alone = time.perf_counter() - begun
    begun = time.perf_counter()
    list(_threads.map(_hash, range(2)))
    return 2 * alone / (time.perf_counter() - begun)


def waited(patience: float = 3.0) -> float:
    """Return the canary once two cores are to be had, or so many seconds are over."""
    until, found = time.perf_counter() + patience, canary()
    while found < TWO_CORES and time.perf_counter() < until:
        time.sleep(0.1)
        found = canary()
    return found


def busy() -> float | None:
    """Return the seconds that all cores have been used or withheld, where the kernel tells."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Return what the machine is."""
    about = ""
    if Path("/proc/cpuinfo").exists():
        about = Path("/proc/cpuinfo").read_text()
    lines = dict(line.split(":", 1) for line in about.splitlines() if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    flags = lines.get("flags", "").split()
    return {
        "cpu": lines.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": platform.system(),
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared.

    Attributes:
        label: What tables call it.
        work: A function in `peers`, "file.function".
        options: What the function takes beside the size.
        environment: Variables of its process.
    """

    label: str
    work: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The file in `peers`."""
        return self.work.partition(".")[0]

    def command(self, *more: str) -> list[str]:
        """Return the command of its process; OPENNMT_PYTHON, say, names another interpreter."""
        options = json.dumps(self.options)
        worker = str(HERE / "worker.py")
        python = os.environ.get(f"{self.family.upper()}_PYTHON", sys.executable)
        return [python, worker, self.work, "--options", options, *more]

    def surroundings(self) -> dict[str, str]:
        """Return the environment of its process."""
        return {**os.environ, **self.environment}


class Gone(Exception):
    """A process that ended without an answer; the message is the end of what it said."""


class Process:
    """The process of a contestant; see `worker.py` for the lines."""

    def __init__(self, contestant: Contestant):
        self.said = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            contestant.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=contestant.surroundings(),
            text=True,
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Return the answer to a line.

        Raises:
            Gone: there is none.
        """
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.said.seek(0)
            code = self.process.wait()
            end = self.said.read().decode(errors="replace").strip().splitlines()[-3:]
            raise Gone(f"ended with code {code}: {' | '.join(end)}"[:400])
        return json.loads(answer)

    def close(self):
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.said.close()


class Team:
    """Contestants, and their processes as long as the `with` block lasts.

    Args:
        contestants: With labels of their own.
        patience: Most seconds to wait before a sample until two cores are to be had.
    """

    def __init__(self, contestants: list[Contestant], patience: float = 3.0):
        self.contestants, self.patience = contestants, patience
        self.processes: dict[str, Process] = {}

    def __enter__(self):
        """Return itself; processes start when they are first needed."""
        return self

    def __exit__(self, *_):
        """End all processes."""
        for process in self.processes.values():
            process.close()

    def _ask(self, contestant, line):
        process = self.processes.get(contestant.label)
        if process is None:
            process = self.processes[contestant.label] = Process(contestant)
        try:
            return process.ask(line)
        except Gone as error:
            self.processes.pop(contestant.label).close()
            return {"failed": str(error)}

    def measure(self, size: Size, rounds: int, base: str) -> dict[str, Any]:
        """Return the results of a size: what each contestant is, and its samples.

        Args:
            size: The size.
            rounds: Samples of each contestant.
            base: Label of the one that the others are compared with.
        """
        found = {}
        for contestant in self.contestants:
            show(f"  {contestant.label}: setting up")
            facts = self._ask(contestant, f"set {size}")
            found[contestant.label] = {
                **asdict(contestant),
                "family": contestant.family,
                "facts": facts,
                "samples": [],
            }
            if without := facts.get("absent") or facts.get("failed"):
                show(f"  {contestant.label}: {without}", end="\n")
        playing = [c for c in self.contestants if "answer" in found[c.label]["facts"]]
        for turn in range(rounds):
            for contestant in playing:
                show(f"  round {turn + 1} of {rounds}: {contestant.label}")
                sample = self._sample(contestant)
                if "failed" in sample:
                    show(f"  {contestant.label}: {sample['failed']}", end="\n")
                found[contestant.label]["samples"].append(sample)
        show("")
        return {
            "size": {**asdict(size), "text": str(size)},
            "base": base,
            "when": datetime.now(UTC).strftime("%Y-%m-%d"),
            "commit": commit(),
            "machine": machine(),
            "contestants": list(summed_up(found, base).values()),
        }

    def _sample(self, contestant):
        time.sleep(PAUSE)
        before = waited(self.patience)
        used, begun = busy(), time.perf_counter()
        sample = self._ask(contestant, "go")
        wall = time.perf_counter() - begun
        if "seconds" not in sample:
            return {"failed": sample.get("failed", "no answer"), "good": False}
        others = None if used is None else max(0.0, (busy() - used - sample["cpu"]) / wall)
        time.sleep(PAUSE)  # its own threads may still spin
        after = canary()
        good = min(before, after) >= TWO_CORES and (others is None or others <= COMPANY)
        return {
            "seconds": sample["seconds"],
            "cores": sample["cpu"] / sample["wall"],
            "canary": [before, after],
            "others": others,
            "good": good,
        }


def show(text: str, end: str = ""):
    """Show progress: on a terminal on one line, which the next one replaces unless it ends."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:110]}", end=end, file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def counted(samples: list[dict], others: list[dict] | None = None):
    """Return the samples that count, in pairs with those of others, and whether all are good."""
    pairs = [
        pair
        for pair in zip(samples, samples if others is None else others, strict=False)
        if all("seconds" in sample for sample in pair)
    ]
    good = [pair for pair in pairs if all(sample["good"] for sample in pair)]
    return (good, True) if len(good) >= ENOUGH else (pairs, False)


def spread(numbers: list[float]) -> dict[str, float] | None:
    """Return median, least and most."""
    if not numbers:
        return None
    return {"median": statistics.median(numbers), "least": min(numbers), "most": max(numbers)}


def ratio(samples: list[dict], base: list[dict]) -> dict[str, float] | None:
    """Return how many times as fast as the base, by rounds."""
    pairs, _ = counted(samples, base)
    return spread([theirs["seconds"] / ours["seconds"] for ours, theirs in pairs])


def summed_up(found: dict[str, dict], base: str) -> dict[str, dict]:
    """Add what tables show; the answers themselves are replaced by how they compare."""
    of_base = found[base]
    expected = of_base["facts"].get("answer")
    for entry in found.values():
        pairs, good = counted(entry["samples"])
        entry["seconds"] = spread([sample["seconds"] for sample, _ in pairs])
        entry["cores"] = spread([sample["cores"] for sample, _ in pairs])
        entry["counted"] = {"samples": len(pairs), "good": good}
        entry["times_as_fast"] = ratio(entry["samples"], of_base["samples"])
        entry["agreement"] = agreement(entry["facts"].get("answer"), expected)
    for entry in found.values():
        if isinstance(entry["facts"].get("answer"), list):
            del entry["facts"]["answer"]
    return found


def agreement(answer, expected) -> dict[str, Any] | None:
    """Return how an answer compares with the base's: losses, or the part of equal tokens."""
    if answer is None:
        return None
    if not isinstance(answer, list):
        return {"loss": answer}
    if expected is None:
        return None
    pairs = [
        pair for rows in zip(answer, expected, strict=True) for pair in zip(*rows, strict=True)
    ]
    return {"equal_tokens": sum(a == b for a, b in pairs) / len(pairs)}
