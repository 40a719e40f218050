"""Whether training and frozen models ever fault: many fresh starts, and long runs.

    python benchmarks/soak.py starts [--number 60] [--anew]
    python benchmarks/soak.py run [--minutes 60]

A start is a new process that trains for a few steps, in float32 with default threads, or fast
(`keras_attn.configure_cpu()`, `mixed_bfloat16`); then freezes its model, and has many threads ask
it at once. A run is one process that trains fast all the time, with another decoder and other
widths of batches every few minutes. Decoders are Luong's, Bahdanau's and input feeding, in turn. A
fault is an exit code other than 0, a loss that is no number, or a process that hangs. Results go to
soak.json and soak.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from measuring import commit, machine

HERE = Path(__file__).parent
LONGEST_START = 600  # seconds; what takes longer hangs
MODES = {"float32": {}, "fast": {"dtype": "mixed_bfloat16", "configure": True}}
ATTENTIONS = ("luong", "bahdanau", "feeding")
PAGE = """# Soak: does anything ever fault?

Made by `python benchmarks/soak.py starts` and `... run`; the counts are in soak.json.

| what | decoders | processes | steps of each | faults | when | commit | processor |
|---|---|---|---|---|---|---|---|
{rows}
"""


def work(mode: str, attentions: list[str], seconds: float) -> None:
    """Train for so many seconds, at least twice; then freeze, and ask from many threads."""
    import math
    from concurrent.futures import ThreadPoolExecutor
    from dataclasses import replace

    from peers import product
    from sizes import SIZES, sources

    begun, turn = time.perf_counter(), 0
    while turn < 2 or time.perf_counter() - begun < seconds:
        size = replace(
            SIZES["small"],
            source=8 + turn % 12,
            target=8 + turn % 7,
            batches=250 if seconds else 20,
        )
        attention = attentions[turn % len(attentions)]
        loss = product.training(size, attention, **MODES[mode]).run()
        assert math.isfinite(loss), loss
        turn += 1
        print(json.dumps({"turn": turn, "steps": turn * size.batches, "loss": loss}), flush=True)
    model = product.built(SIZES["small"], attention, "float32").freeze()
    ids = [sources(replace(SIZES["small"], batch=rows)) for rows in (1, 8, 1, 8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda rows: model.search(rows, max_length=8), ids))


def apart(mode: str, attentions: Sequence[str], seconds: float) -> dict:
    """Work in a new process, and say how it ended."""
    command = [sys.executable, __file__, "one", "--of", mode, ",".join(attentions), str(seconds)]
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + LONGEST_START
        )
        code, told, error = done.returncode, done.stdout, done.stderr[-500:]
    except subprocess.TimeoutExpired:
        code, told, error = -1, "", "it hung"
    lines = [line for line in told.splitlines() if line.startswith("{")]
    return {
        "decoders": list(attentions),
        "code": code,
        "seconds": round(time.perf_counter() - begun, 1),
        "last": json.loads(lines[-1]) if lines else {},
        "error": "" if code == 0 else error,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
    }


def _processor(end: dict) -> str:
    """Return what a process ran on, and whether that has instructions for bfloat16."""
    about = end.get("machine")
    if about is None:
        return "not recorded"
    fast = " and ".join(flag for flag in about["flags"] if flag in ("avx512_bf16", "amx_bf16"))
    return f"{about['cpu']} ({fast or 'no instructions for bfloat16'})"


def page(results: dict) -> str:
    """Return the page of the counts."""
    rows = []
    for what, ends in results.items():
        faults = [end for end in ends if end["code"] != 0]
        steps = sorted({end["last"].get("steps", 0) for end in ends})
        trained = [name for end in ends for name in end.get("decoders", ())]
        of_each = "–".join(f"{number:,}" for number in dict.fromkeys((steps[0], steps[-1])))
        commits = ", ".join(dict.fromkeys(end.get("commit", "") for end in ends))
        decoders = ", ".join(dict.fromkeys(trained))
        processors = ", ".join(dict.fromkeys(map(_processor, ends)))
        cells = (what, decoders, len(ends), of_each, len(faults), ends[0]["at"][:10], commits)
        cells += (processors,)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return PAGE.format(rows="\n".join(rows))


def save(results: dict) -> None:
    """Write counts and page."""
    (HERE / "soak.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "soak.md").write_text(page(results))


def main():
    """Start or run, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("starts", "run", "one"))
    parser.add_argument("--number", type=int, default=60, help="starts of each mode")
    parser.add_argument("--anew", action="store_true", help="forget the starts of before")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--of", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "one":
        mode, attentions, seconds = given.of
        work(mode, attentions.split(","), float(seconds))
        return
    path = HERE / "soak.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if given.what == "run":
        key = f"run, fast, {given.minutes:g} minutes"
        results[key] = [apart("fast", ATTENTIONS, given.minutes * 60)]
    else:
        if given.anew:
            results = {what: ends for what, ends in results.items() if "starts" not in what}
        for turn in range(given.number):
            for mode in MODES:
                ends = results.setdefault(f"fresh starts, {mode}", [])
                if len(ends) <= turn:
                    ends.append(apart(mode, [ATTENTIONS[turn % len(ATTENTIONS)]], 0))
                    print(mode, turn + 1, ends[-1]["code"], ends[-1]["seconds"], flush=True)
                    save(results)
    save(results)
    print((HERE / "soak.md").read_text())


if __name__ == "__main__":
    main()
