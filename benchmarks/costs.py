"""How costs grow with source, batch, beam and vocabulary: keras_attn and stock Keras.

    python benchmarks/costs.py [--rounds 5] [--axis source|batch|beam|vocabulary]

Each axis changes one number of the small model with batches of 32, all else stays. The pictures
have two limits of this machine, both measured: that of its matrix products, and that of reading all
weights that a step needs from memory. Results go to costs.json, costs.md and costs_*.png beside
this file; sections that are not measured anew are kept.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace

import numpy as np
import reporting
from matplotlib import pyplot
from measuring import HERE, Contestant, Team, show
from sizes import SIZES, Size

BASE = "Keras"
CENTRE = replace(SIZES["small"], batch=32, batches=5)
AXES = {
    "source": (8, 16, 32, 64, 128, 256, 512),
    "batch": (1, 4, 16, 64, 256),
    "beam": (1, 2, 4, 8, 16),
    "vocabulary": (64, 512, 4000, 32000),
}
FAST = {"dtype": "mixed_bfloat16", "configure": True}
CONTESTANTS = {
    "training": [
        Contestant("keras_attn", "product.training"),
        Contestant("keras_attn, fast", "product.training", FAST),
        Contestant(BASE, "stock_keras.training"),
    ],
    "generating": [
        Contestant("keras_attn", "product.generating"),
        Contestant("keras_attn, frozen", "product.generating", {"frozen": True}),
        Contestant(BASE, "stock_keras.generating"),
    ],
}
UNITS = {"training": "step", "generating": "batch"}
STYLES = {"keras_attn": "-", "keras_attn, fast": "--", "keras_attn, frozen": "--", BASE: "-"}
SPREAD = ("median", "least", "most")
PAGE = """# Costs: how they grow

Median (least–most) of {rounds} rounds in turn; ratios are within rounds. One number of the small
model changes, with batches of {batch}, sources of {source} tokens, {vocabulary} ids and greedy
search of {steps} tokens; Luong's attention. {surroundings}

The limits in the pictures: {rate:.0f} GFLOP/s of float32 matrix products, and reading from memory
at {bandwidth:.0f} GB/s what a step must read: in training, the weights and what Adam keeps of them,
and writing them; in generating, the decoder's weights every step and the encoder's once. Small
weights stay in caches, so that the second limit holds for large ones alone.
{tables}
Made by `benchmarks/costs.py`; the data is costs.json.
"""


def fastest(function, tries: int = 7) -> float:
    """Return the least seconds of a few calls."""
    found = []
    for _ in range(tries):
        begun = time.perf_counter()
        function()
        found.append(time.perf_counter() - begun)
    return min(found)


def limits() -> dict[str, float]:
    """Return FLOP/s of a large product, and bytes/s of reading a large matrix, of this machine."""
    side = 2048
    a = np.ones((side, side), "float32")
    large, vector = np.ones((8192, 8192), "float32"), np.ones(8192, "float32")
    return {
        "flops": 2 * side**3 / fastest(lambda: a @ a),
        "bytes": large.nbytes / fastest(lambda: large @ vector),
    }


def operations(size: Size, what: str) -> float:
    """Return the floating-point operations of a training step, or of generating a batch."""
    e, u, v, b = size.embedding, size.units, size.vocabulary, size.batch
    cell = 2 * 4 * u * (e + u)
    token = cell + 2 * 2 * u * size.source + 2 * 2 * u * u + 2 * u * v
    encoder = b * size.source * cell
    if what == "training":
        return 3 * (encoder + b * size.target * token)  # backwards costs twice as much as forwards
    return encoder + b * size.beam * size.steps * token


def traffic(size: Size, what: str) -> float:
    """Return the bytes that a training step, or generating a batch, moves at least."""
    e, u, v = size.embedding, size.units, size.vocabulary
    cell = 4 * u * (e + u)
    read = cell + 2 * u * u + u * v
    if what == "training":  # weights and two moments are read and written, gradients are read
        return 4 * 7 * (read + cell + 2 * e * v)
    return 4 * (cell + size.steps * read)


def key(what: str, axis: str, value: int) -> str:
    """Return the key of a section."""
    return f"{what} {axis} {value}"


def draw(what, axis, sections, machine):
    """Draw the times along an axis, both axes logarithmic, and the machine's limits."""
    values = [value for value in AXES[axis] if key(what, axis, value) in sections]
    sizes = [replace(CENTRE, **{axis: value}) for value in values]
    figure, plot = pyplot.subplots(figsize=(5.5, 4))
    for label, style in STYLES.items():
        points = []
        for value in values:
            contestants = sections[key(what, axis, value)]["contestants"]
            found = next((c for c in contestants if c["label"] == label and c["seconds"]), None)
            if found:
                points.append((value, *(1000 * found["seconds"][k] for k in SPREAD)))
        if points:
            x, middle, least, most = np.array(points).T
            family = "stock_keras" if label == BASE else "product"
            colour = reporting.COLOURS[family]
            plot.errorbar(
                x,
                middle,
                [middle - least, most - middle],
                label=label,
                color=colour,
                linestyle=style,
                marker="o",
                markersize=3,
                capsize=2,
            )
    products = [1000 * operations(size, what) / machine["flops"] for size in sizes]
    memory = [1000 * traffic(size, what) / machine["bytes"] for size in sizes]
    plot.plot(values, products, color="#333333", linestyle=":", label="limit: matrix products")
    plot.plot(values, memory, color="#999999", linestyle="-.", label="limit: reading weights")
    plot.set_xscale("log", base=2)
    plot.set_yscale("log")
    plot.set_xticks(values, [str(value) for value in values])
    plot.set_xlabel(axis, fontsize=9)
    plot.set_ylabel(f"ms a {UNITS[what]}", fontsize=9)
    plot.set_title(f"{what}, by {axis}", fontsize=9, loc="left")
    plot.tick_params(labelsize=8)
    plot.legend(fontsize=7)
    plot.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / f"costs_{what}_{axis}.png", dpi=100)
    pyplot.close(figure)


def rows(what, axis, sections) -> str:
    """Return the table of an axis."""
    labels = [c.label for c in CONTESTANTS[what]]
    heads = [f"{label}, ms" for label in labels]
    heads += [f"{label} against {BASE}" for label in labels if label != BASE]
    lines = [f"| {axis} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for value in AXES[axis]:
        if key(what, axis, value) not in sections:
            continue
        contestants = {c["label"]: c for c in sections[key(what, axis, value)]["contestants"]}
        cells = [str(value)]
        for label in labels:
            found = contestants[label]
            mark = "" if found["counted"]["good"] else " †"
            cells.append(
                reporting.milliseconds(found["seconds"]) + mark if found["seconds"] else ""
            )
        cells += [
            reporting.times(contestants[label]["times_as_fast"])
            for label in labels
            if label != BASE
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def axes(sections: dict) -> list[tuple[str, str]]:
    """Return what was measured against what."""
    return [
        (what, axis)
        for what, axis in itertools.product(CONTESTANTS, AXES)
        if any(key(what, axis, value) in sections for value in AXES[axis])
    ]


def page(results: dict) -> str:
    """Return the page of the results."""
    sections, machine = results["sections"], results["limits"]
    tables = ""
    for what, axis in axes(sections):
        picture = f"![{what} by {axis}](costs_{what}_{axis}.png)"
        found = rows(what, axis, sections)
        tables += f"\n## {what.capitalize()}, by {axis}\n\n{picture}\n\n{found}\n"
    tables += "\n† Fewer than three good samples: all were taken.\n" if "†" in tables else ""
    rounds = [len(c["samples"]) for s in sections.values() for c in s["contestants"]]
    return PAGE.format(
        rounds=max(rounds),
        rate=machine["flops"] / 1e9,
        bandwidth=machine["bytes"] / 1e9,
        tables=tables,
        surroundings=reporting.surroundings(sections),
        batch=CENTRE.batch,
        source=CENTRE.source,
        vocabulary=CENTRE.vocabulary,
        steps=CENTRE.steps,
    )


def write(results: dict) -> None:
    """Write data, page and pictures."""
    results = reporting.save("costs", results)
    (HERE / "costs.md").write_text(page(results))
    for what, axis in axes(results["sections"]):
        draw(what, axis, results["sections"], results["limits"])


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", choices=AXES, action="append", help="all by default")
    parser.add_argument("--what", choices=CONTESTANTS, action="append", help="both by default")
    parser.add_argument("--most", type=int, default=10**9, help="largest value of an axis")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    results = {"sections": {}, **reporting.load("costs"), "limits": limits()}
    for what in arguments.what or CONTESTANTS:
        for axis in arguments.axis or AXES:
            if axis == "beam" and what == "training":
                continue
            with Team(CONTESTANTS[what]) as team:
                for value in AXES[axis]:
                    if value > arguments.most:
                        continue
                    show(key(what, axis, value), end="\n")
                    size = replace(CENTRE, **{axis: value})
                    found = team.measure(size, arguments.rounds, BASE)
                    results["sections"][key(what, axis, value)] = found
                    write(results)
    print((HERE / "costs.md").read_text())


if __name__ == "__main__":
    main()
