"""What a training step costs: keras_attn, stock Keras, TensorFlow's tutorial, PyTorch and others.

    python benchmarks/training.py [--size small|medium] [--rounds 9]

A sample is a pass over the same 20 batches, all contestants begin with the same weights and use
Adam; see measuring.py for how it is measured. Results go to training.json, training.md and
training_*.png beside this file; sections that are not measured anew are kept.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import reporting
from measuring import HERE, Contestant, Team, show
from sizes import SIZES, Size

FAST = {"dtype": "mixed_bfloat16", "configure": True}
BASE = "Keras"
LUONG = [
    Contestant("keras_attn", "product.training"),
    Contestant("keras_attn, its own metrics", "product.training", {"metrics": "auto"}),
    Contestant("keras_attn, configured", "product.training", {"configure": True}),
    Contestant("keras_attn, bfloat16", "product.training", {"dtype": "mixed_bfloat16"}),
    Contestant("keras_attn, fast", "product.training", FAST),
    Contestant(BASE, "stock_keras.training"),
    Contestant("Keras, jit", "stock_keras.training", {"jit": True}),
    Contestant("TensorFlow's tutorial", "tutorial.training"),
    Contestant("PyTorch", "pytorch.training"),
    Contestant("PyTorch, packed", "pytorch.training", {"packed": True}),
    Contestant("PyTorch, compiled", "pytorch.training", {"compiled": True}),
    Contestant("PyTorch, autocast", "pytorch.training", {"half": True}),
    Contestant("OpenNMT-py", "opennmt.training"),
    Contestant("JoeyNMT", "joeynmt.training"),
]
BAHDANAU = [
    Contestant("keras_attn", "product.training"),
    Contestant("keras_attn, configured", "product.training", {"configure": True}),
    Contestant("keras_attn, bfloat16", "product.training", {"dtype": "mixed_bfloat16"}),
    Contestant("keras_attn, fast", "product.training", FAST),
    Contestant(BASE, "stock_keras.training"),
    Contestant("Keras, jit", "stock_keras.training", {"jit": True}),
    Contestant("PyTorch", "pytorch.training"),
    Contestant("PyTorch, packed", "pytorch.training", {"packed": True}),
    Contestant("PyTorch, hoisted", "pytorch.training", {"hoisted": True}),
    Contestant("PyTorch, compiled", "pytorch.training", {"hoisted": True, "compiled": True}),
    Contestant("PyTorch, autocast", "pytorch.training", {"half": True}),
    Contestant("PyTorch, hoisted, autocast", "pytorch.training", {"hoisted": True, "half": True}),
    Contestant("JoeyNMT", "joeynmt.training", {"attention": "bahdanau"}),
    Contestant("yoyodyne", "yoyodyne.training"),
]
FEEDING = [
    Contestant("keras_attn", "product.training"),
    Contestant("keras_attn, configured", "product.training", {"configure": True}),
    Contestant("keras_attn, fast", "product.training", FAST),
    Contestant(BASE, "product.training", {"plain": True}),
    Contestant("OpenNMT-py", "opennmt.training", {"attention": "feeding"}),
    Contestant("JoeyNMT", "joeynmt.training", {"attention": "feeding"}),
]
CONTESTANTS = {"luong": LUONG, "bahdanau": BAHDANAU, "feeding": FEEDING}
# Families that have not each attention: their options say which, where they have a choice.
ONE_ATTENTION = ("tutorial", "opennmt", "joeynmt", "yoyodyne")
PAGE = """# Training: what a step costs

Median (least–most) of rounds in turn, each contestant in a process of its own; ratios are within
rounds. One-layer LSTM encoder and decoder, float32 unless said, the same batches, first
weights and Adam for all; the last column is the loss after {batches} steps from these weights.
Small: {small}. Medium: {medium}. Lengths are half of that to all of it. {surroundings}

keras_attn and Keras are trained by `fit`, without metrics, from a dataset whose autotuning is off,
since it sometimes makes an epoch end late; "its own metrics" are those that `compile("adam")`
brings. keras_attn's "adam" is its own, of one operation a weight. "Configured" is
`keras_attn.configure_cpu()`, "fast" is that and `mixed_bfloat16`. PyTorch reads on through the
padding of sources, unless "packed", and has a second bias in each LSTM, and multiplies padding of
targets to logits, as Keras does; "hoisted" multiplies what it can before the loop. OpenNMT-py is
its own modules, which pack, in our loop. So are JoeyNMT and yoyodyne, whose decoders are loops over
the steps: JoeyNMT has a matrix in Luong's scores, here the identity and not trained, and its
additive scores follow the update, with input feeding; yoyodyne's additive scores come before it and
multiply all encoded tokens in every step, its logits are of the state alone, and its decoder begins
with a state of its own. With input feeding, "Keras" is our decoder by Keras' own cells and layers,
step by step, the encoder Keras' LSTM, trained by our step, which leaves padding out of the
projection. Made by
`benchmarks/training.py`; the data is training.json.
"""
TITLES = {
    "luong": "Luong: dot products after the update",
    "bahdanau": "Bahdanau: additive scores before the update",
    "feeding": "Luong, with input feeding",
}


def described(size: Size) -> str:
    """Return the numbers of a size."""
    return (
        f"{size.embedding} wide embeddings, {size.units} units, {size.vocabulary} ids, up to "
        f"{size.source} tokens to {size.target}, batches of {size.batch}"
    )


def panels(sections: dict, attention: str) -> dict:
    """Return what was measured of an attention, by size."""
    keys = {name: f"{attention} {name}" for name in SIZES}
    return {name: sections[key] for name, key in keys.items() if key in sections}


def page(sections: dict) -> str:
    """Return the page of the results."""
    text = PAGE.format(
        batches=SIZES["small"].batches,
        surroundings=reporting.surroundings(sections),
        **{name: described(size) for name, size in SIZES.items()},
    )
    for attention, title in TITLES.items():
        if found := panels(sections, attention):
            text += f"\n## {title}\n\n![Bars](training_{attention}.png)\n"
        for name, section in found.items():
            text += f"\n### {name.capitalize()}\n\n{reporting.table(section, 'step', 'loss')}\n"
    return text


def write(sections: dict) -> None:
    """Write data, page and pictures."""
    sections = reporting.save("training", sections)
    (HERE / "training.md").write_text(page(sections))
    for attention, title in TITLES.items():
        found = panels(sections, attention)
        titles = {f"{title}, {name}": section for name, section in found.items()}
        if titles:
            reporting.bars(HERE / f"training_{attention}.png", titles, "step")


def of(attention: str, only: str = "") -> list[Contestant]:
    """Return the contestants of an attention; the base is always among them."""
    return [
        contestant
        if contestant.family in ONE_ATTENTION
        else replace(contestant, options={"attention": attention, **contestant.options})
        for contestant in CONTESTANTS[attention]
        if only in contestant.label or contestant.label == BASE
    ]


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, action="append", help="all by default")
    parser.add_argument("--attention", choices=TITLES, action="append", help="all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--only", default="", help="contestants whose labels have this; shown, but not written"
    )
    arguments = parser.parse_args()
    sections = reporting.load("training")
    for attention in arguments.attention or TITLES:
        for name in arguments.size or SIZES:
            show(f"{attention} {name}", end="\n")
            with Team(of(attention, arguments.only)) as team:
                found = team.measure(SIZES[name], arguments.rounds, BASE)
            print(reporting.table(found, "step", "loss"))
            if not arguments.only:
                sections[f"{attention} {name}"] = found
                write(sections)


if __name__ == "__main__":
    main()
