"""What generating costs: keras_attn, stock Keras, TensorFlow's tutorial, PyTorch and others.

    python benchmarks/decoding.py [--size small|medium] [--rounds 9]

Greedy search on batches of 1, 32 and 128, and beams of 5 on 1 and 32. No target ends early, so that
all contestants take as many steps, though all look every step whether they may stop; all have the
same weights. See measuring.py for how it is measured. Results go to decoding.json, decoding.md and
decoding_*.png beside this file; sections that are not measured anew are kept.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace

import reporting
from measuring import HERE, Contestant, Team, show
from sizes import SIZES
from training import ONE_ATTENTION, TITLES, described

BASE = "Keras, step in a graph"
FAST = {"dtype": "mixed_bfloat16", "configure": True}
LUONG = [
    Contestant("keras_attn", "product.generating"),
    Contestant("keras_attn, fast", "product.generating", FAST),
    Contestant("keras_attn, frozen", "product.generating", {"frozen": True}),
    Contestant("keras_attn, fast, frozen", "product.generating", {**FAST, "frozen": True}),
    Contestant(BASE, "stock_keras.generating"),
    Contestant("TensorFlow's tutorial", "tutorial.generating"),
    Contestant("PyTorch", "pytorch.generating"),
    Contestant("PyTorch, packed", "pytorch.generating", {"packed": True}),
    Contestant("PyTorch, folded", "pytorch.generating", {"folded": True}),
    Contestant("PyTorch, compiled", "pytorch.generating", {"folded": True, "compiled": True}),
    Contestant("PyTorch, autocast", "pytorch.generating", {"folded": True, "half": True}),
    Contestant("OpenNMT-py", "opennmt.generating"),
    Contestant("JoeyNMT", "joeynmt.generating"),
]
BAHDANAU = [
    *(contestant for contestant in LUONG if contestant.family not in ONE_ATTENTION),
    Contestant("yoyodyne", "yoyodyne.generating"),
]
# (batch, beam) of each attention
CASES = {
    "luong": [(1, 1), (32, 1), (128, 1), (1, 5), (32, 5)],
    "bahdanau": [(1, 1), (32, 1), (1, 5)],
}
PAGE = """# Decoding: what a search costs

Median (least–most) of rounds in turn, each contestant in a process of its own; ratios are within
rounds. A time is that of one batch, encoder included, to {small_steps} tokens (small) or
{medium_steps} (medium), by models with the same weights in float32 unless said; the last column is
how many tokens equal those of {base}. Small: {small}. Medium: {medium}. {surroundings}

keras_attn is `model.search` of ids with EOS banned, "frozen" the same after `model.freeze()`,
"fast" is `keras_attn.configure_cpu()` and `mixed_bfloat16`. Keras and PyTorch have one step of the
model, in a `tf.function` and as it is, and a loop in Python that ends when all targets have; beams
copy what was encoded. The tutorial's model is another one, in an eager loop. PyTorch reads on
through the padding of sources unless "packed", so that its tokens differ where there is padding;
OpenNMT-py and JoeyNMT are their own modules, which pack, in such a loop, and yoyodyne, another
model, is in its own; "folded" multiplies what depends on
sources or tokens alone beforehand, "compiled" and "autocast" are forms of that. Made by
`benchmarks/decoding.py`; the data is decoding.json.
"""


def case(batch: int, beam: int) -> str:
    """Return the title of a case."""
    return f"{'greedy' if beam == 1 else f'beam of {beam}'}, batch of {batch}"


def key(attention: str, name: str, batch: int, beam: int) -> str:
    """Return the key of a section."""
    return f"{attention} {name} {case(batch, beam)}"


def panels(sections: dict) -> dict[tuple[str, str], dict]:
    """Return what was measured of an attention and a size, by case."""
    found = {}
    for attention, name in itertools.product(CASES, SIZES):
        keys = {case(*which): key(attention, name, *which) for which in CASES[attention]}
        cases = {which: sections[key] for which, key in keys.items() if key in sections}
        found |= {(attention, name): cases} if cases else {}
    return found


def page(sections: dict) -> str:
    """Return the page of the results."""
    text = PAGE.format(
        base=BASE,
        small_steps=SIZES["small"].steps,
        medium_steps=SIZES["medium"].steps,
        surroundings=reporting.surroundings(sections),
        **{name: described(size) for name, size in SIZES.items()},
    )
    for (attention, name), cases in panels(sections).items():
        title, picture = f"{TITLES[attention]}, {name}", f"decoding_{attention}_{name}.png"
        text += f"\n## {title}\n\n![Bars]({picture})\n"
        for which, section in cases.items():
            found = reporting.table(section, "batch", "tokens")
            text += f"\n### {which.capitalize()}\n\n{found}\n"
    return text


def write(sections: dict) -> None:
    """Write data, page and pictures."""
    sections = reporting.save("decoding", sections)
    (HERE / "decoding.md").write_text(page(sections))
    for (attention, name), cases in panels(sections).items():
        title = f"{TITLES[attention]}, {name}"
        titles = {f"{title}, {which}": section for which, section in cases.items()}
        reporting.bars(HERE / f"decoding_{attention}_{name}.png", titles, "batch")


def of(attention: str, beam: int, only: str) -> list[Contestant]:
    """Return the contestants of an attention and a beam; the base is always among them."""
    return [
        contestant
        if contestant.family in ONE_ATTENTION
        else replace(contestant, options={"attention": attention, **contestant.options})
        for contestant in (LUONG if attention == "luong" else BAHDANAU)
        if (beam == 1 or contestant.family not in ONE_ATTENTION)
        and (only in contestant.label or contestant.label == BASE)
    ]


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, action="append", help="all by default")
    parser.add_argument("--attention", choices=CASES, action="append", help="all by default")
    parser.add_argument("--batch", type=int, action="append", help="all by default")
    parser.add_argument("--beam", type=int, action="append", help="all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--only", default="", help="contestants whose labels have this; shown, but not written"
    )
    arguments = parser.parse_args()
    sections = reporting.load("decoding")
    for attention in arguments.attention or CASES:
        for name in arguments.size or SIZES:
            for beam in arguments.beam or (1, 5):
                with Team(of(attention, beam, arguments.only)) as team:
                    for batch, width in CASES[attention]:
                        if width != beam or batch not in (arguments.batch or [batch]):
                            continue
                        show(key(attention, name, batch, beam), end="\n")
                        size = replace(SIZES[name], batch=batch, beam=beam)
                        found = team.measure(size, arguments.rounds, BASE)
                        print(reporting.table(found, "batch", "tokens"))
                        if not arguments.only:
                            sections[key(attention, name, batch, beam)] = found
                            write(sections)


if __name__ == "__main__":
    main()
