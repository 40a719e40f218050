"""What a new process costs before it has done anything: keras_attn, stock Keras, PyTorch.

    python benchmarks/starting.py [--rounds 5] [--size small]

Every sample is a process of its own that imports its library, builds the model and either trains
for one step or generates one batch of one target. Times are from the start of the process, by its
parent's clock; memory is the most that it had. Results go to starting.json, starting.md and
starting.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime

import reporting
from measuring import (
    COMPANY,
    HERE,
    PAUSE,
    TWO_CORES,
    Contestant,
    busy,
    canary,
    commit,
    machine,
    show,
    spread,
)
from sizes import SIZES

FAST = {"dtype": "mixed_bfloat16", "configure": True}
KINDS = {"training": "one training step", "generating": "one target generated"}
CONTESTANTS = [
    Contestant("keras_attn", "product.starting"),
    Contestant("keras_attn, fast", "product.starting", FAST),
    Contestant("keras_attn, frozen", "product.starting", {"frozen": True}),
    Contestant("keras_attn, frozen, cached", "product.starting", {"frozen": True, "cached": True}),
    Contestant(
        "keras_attn, from a file, frozen, cached",
        "product.starting",
        {"frozen": True, "cached": True, "stored": True},
    ),
    Contestant("Keras", "stock_keras.starting"),
    Contestant("PyTorch", "pytorch.starting"),
]
MILESTONES = ("imported", "built", "done")
PAGE = """# Starting: what a new process costs

Median (least–most) of {rounds} new processes of each in turn, seconds from the start of the process
until the library is imported, the model is built, and the work is done once; the most memory that
it had. The {size} model, batches of one; files are in the system's cache. "Cached": after
`keras_attn.cache_compiled()`, where a process before has compiled. "From a file": the model comes
with its tokenisers from a `.keras` file, and generates a string. {surroundings}

![Bars](starting.png)
{tables}
Made by `benchmarks/starting.py`; the data is starting.json.
"""


def once(contestant: Contestant, size, what: str) -> dict:
    """Run a process to its end; return its milestones, seconds, and its memory."""
    options = {**contestant.options, "what": what}
    command = replace(contestant, options=options).command("--once", str(size))
    time.sleep(PAUSE)
    before, used, own, begun = canary(), busy(), of_children(), time.perf_counter()
    found: dict = {}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=contestant.surroundings(),
        text=True,
    ) as process:
        for line in process.stdout:
            message = json.loads(line)
            if "milestone" in message:
                found[message["milestone"]] = time.perf_counter() - begun
            else:
                found |= message
    wall = time.perf_counter() - begun
    if "done" not in found and "absent" not in found:
        found["failed"] = f"ended with code {process.returncode}"
    others = None if used is None else (busy() - used - of_children() + own) / wall
    after = canary()
    good = min(before, after) >= TWO_CORES and (others is None or others <= COMPANY)
    return {**found, "canary": [before, after], "others": others, "good": good}


def of_children() -> float:
    """Return the seconds of the processor that ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(size, rounds: int) -> dict:
    """Return a section for each kind of work."""
    sections = {
        what: {
            "size": {**asdict(size), "text": str(size)},
            "when": datetime.now(UTC).strftime("%Y-%m-%d"),
            "commit": commit(),
            "machine": machine(),
            "contestants": [
                {**asdict(c), "family": c.family, "facts": {}, "samples": []} for c in CONTESTANTS
            ],
        }
        for what in KINDS
    }
    for turn in range(rounds + 1):
        for what, section in sections.items():
            for contestant, entry in zip(CONTESTANTS, section["contestants"], strict=True):
                if entry["facts"].get("absent") or (what == "training" and frozen(contestant)):
                    continue
                show(f"  round {turn} of {rounds}: {what}, {contestant.label}")
                sample = once(contestant, size, what)
                for fact in ("versions", "absent", "failed"):
                    if fact in sample:
                        entry["facts"][fact] = sample.pop(fact)
                if turn and "done" in sample:  # the first round fills the system's cache
                    entry["samples"].append(sample)
    show("")
    for section in sections.values():
        for entry in section["contestants"]:
            sum_up(entry)
    return sections


def frozen(contestant: Contestant) -> bool:
    """Return whether a contestant only generates."""
    return contestant.options.get("frozen", False)


def sum_up(entry: dict):
    """Add medians and ranges of milestones and memory, over good samples if there are three."""
    good = [sample for sample in entry["samples"] if sample["good"]]
    samples = good if len(good) >= 3 else entry["samples"]
    entry["counted"] = {"samples": len(samples), "good": samples is good}
    for name in (*MILESTONES, "peak_megabytes"):
        entry[name] = spread([sample[name] for sample in samples])
    entry["seconds"] = entry["done"]


def seconds(found: dict) -> str:
    """Return a time and its range."""
    return f"{found['median']:.2f} ({found['least']:.2f}–{found['most']:.2f})"


def page(sections: dict) -> str:
    """Return the page of the results."""
    tables, rounds = "", 0
    for what, title in KINDS.items():
        tables += (
            f"\n## Until {title}\n\n| | imported, s | built, s | done, s | memory, MB |\n"
            "|---|---|---|---|---|\n"
        )
        without = ""
        for entry in sections[what]["contestants"]:
            if not entry["done"]:
                reason = entry["facts"].get("absent") or entry["facts"].get("failed")
                without += f"\n{entry['label']}: {reason}.\n" if reason else ""
                continue
            rounds = max(rounds, len(entry["samples"]))
            mark = "" if entry["counted"]["good"] else " †"
            cells = [seconds(entry[name]) for name in MILESTONES]
            memory = f"{entry['peak_megabytes']['median']:.0f}"
            tables += f"| {entry['label']} | {' | '.join(cells)}{mark} | {memory} |\n"
        tables += without
    if any(
        e["done"] and not e["counted"]["good"] for s in sections.values() for e in s["contestants"]
    ):
        tables += "\n† Fewer than 3 good samples: all were taken.\n"
    size = sections["training"]["size"]["name"]
    about = reporting.surroundings(sections)
    return PAGE.format(rounds=rounds, size=size, surroundings=about, tables=tables)


def write(sections: dict) -> None:
    """Write data, page and picture."""
    sections = reporting.save("starting", sections)
    (HERE / "starting.md").write_text(page(sections))
    panels = {f"Until {title}": sections[what] for what, title in KINDS.items()}
    reporting.bars(HERE / "starting.png", panels, "start")


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="small")
    arguments = parser.parse_args()
    size = replace(SIZES[arguments.size], batch=1)
    write(measure(size, arguments.rounds))
    print((HERE / "starting.md").read_text())


if __name__ == "__main__":
    main()
