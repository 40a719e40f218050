"""What this project wants to reach, and what the other pages have measured.

    python benchmarks/targets.py

Reads the JSON of training, decoding, corpus, starting and soak; writes targets.md. A ratio is a
median within rounds, as those pages have it; a peer in several forms stands for the fastest.
"""

from __future__ import annotations

import statistics

import reporting
from measuring import HERE, ratio

KERAS = ("Keras", "Keras, jit")
STEP = ("Keras, step in a graph",)
EAGER = ("PyTorch", "PyTorch, packed", "PyTorch, hoisted")
AUTOCAST = ("PyTorch, autocast", "PyTorch, hoisted, autocast")
ANY = (*EAGER, "PyTorch, folded", "PyTorch, compiled", *AUTOCAST)
FLOAT32 = tuple(label for label in ANY if label not in AUTOCAST)
AS_IS, CONFIGURED, FAST = "keras_attn", "keras_attn, configured", "keras_attn, fast"
FROZEN = "keras_attn, frozen"
# What is trained: the section, the form, the peers in their forms, what is to be reached, and then.
TRAINING = [
    ("luong small", AS_IS, KERAS, 1.0, 1.25),
    ("luong medium", AS_IS, KERAS, 1.2, 1.35),
    ("luong small", FAST, KERAS, 2.0, 2.6),
    ("luong medium", FAST, KERAS, 2.3, 3.0),
    ("bahdanau small", AS_IS, KERAS, 1.2, 1.7),
    ("bahdanau medium", AS_IS, KERAS, 1.2, 1.7),
    ("bahdanau small", FAST, KERAS, 2.2, 3.0),
    ("bahdanau medium", FAST, KERAS, 2.2, 3.0),
    ("luong small", CONFIGURED, EAGER, 0.95, 1.1),
    ("luong medium", CONFIGURED, EAGER, 0.95, 1.1),
    ("luong small", FAST, AUTOCAST, 0.8, 1.25),
    ("luong medium", FAST, AUTOCAST, 1.0, 1.25),
    ("bahdanau small", CONFIGURED, EAGER, 1.0, 1.2),
    ("bahdanau medium", CONFIGURED, EAGER, 1.0, 1.2),
    ("bahdanau small", FAST, AUTOCAST, 1.2, 1.6),
    ("bahdanau medium", FAST, AUTOCAST, 1.2, 1.6),
]
DECODING = [
    ("luong small greedy, batch of 1", STEP, 12.0, 18.0),
    ("luong medium greedy, batch of 1", STEP, 3.2, 4.5),
    ("luong small greedy, batch of 1", ANY, 1.0, 1.2),
    ("luong medium greedy, batch of 1", ANY, 1.0, 1.2),
    ("luong small beam of 5, batch of 1", ANY, 1.0, 1.2),
    ("luong medium beam of 5, batch of 1", ANY, 1.0, 1.2),
    ("luong small greedy, batch of 32", ANY, 0.8, 1.2),
    ("luong medium greedy, batch of 32", ANY, 0.95, 1.2),
    ("luong small greedy, batch of 128", ANY, 0.95, 1.2),
    ("luong medium greedy, batch of 128", ANY, 0.95, 1.2),
    ("luong small beam of 5, batch of 32", ANY, 0.95, 1.2),
    ("luong medium beam of 5, batch of 32", ANY, 0.95, 1.2),
    ("bahdanau small greedy, batch of 1", STEP, 12.0, 18.0),
    ("bahdanau medium greedy, batch of 1", STEP, 3.2, 4.5),
    ("bahdanau small greedy, batch of 1", ANY, 1.0, 1.2),
    ("bahdanau medium greedy, batch of 1", ANY, 1.0, 1.2),
    ("bahdanau small beam of 5, batch of 1", ANY, 1.0, 1.2),
    ("bahdanau medium beam of 5, batch of 1", ANY, 1.0, 1.2),
    ("bahdanau small greedy, batch of 32", ANY, 0.8, 1.2),
    ("bahdanau medium greedy, batch of 32", ANY, 0.95, 1.2),
]
PAGE = """# Targets

What this project set out to reach on two cores, and what was measured: medians of paired runs, and
their ranges. The pages have machines and marks of disturbed samples. What is missed is explained,
with what would be needed, in [README.md](README.md#what-limits-what).

{tables}
Made by `python benchmarks/targets.py` from training.json, decoding.json, corpus.json, starting.json
and soak.json.
"""


def best(section: dict, labels: tuple[str, ...]) -> dict:
    """Return the fastest of some contestants."""
    found = [c for c in section["contestants"] if c["label"] in labels and c["seconds"]]
    return min(found, key=lambda contestant: contestant["seconds"]["median"])


def times(section: dict, label: str, labels: tuple[str, ...]) -> tuple[dict, str]:
    """Return how many times as fast one is as the best of others, a spread, and which that is."""
    ours = next(c for c in section["contestants"] if c["label"] == label)
    theirs = best(section, labels)
    return ratio(ours["samples"], theirs["samples"]), theirs["label"]


def shown(reached: dict) -> str:
    """Return median and range."""
    return f"{reached['median']:.2f}× ({reached['least']:.2f}–{reached['most']:.2f})"


def row(*cells: str, reached: dict, wanted: float, then: float | None) -> str:
    """Return a row: what it is, reached, wanted and then, and how far that is met."""
    met = "yes" if reached["median"] >= wanted else "**missed**"
    met += ", both" * (then is not None and reached["median"] >= then)
    met += ", but the range has it on both sides" * (reached["least"] < wanted <= reached["most"])
    figures = (f"{value:.2f}×" if value else "" for value in (wanted, then))
    return f"| {' | '.join([*cells, shown(reached), *figures, met])} |"


def training(sections: dict) -> list[str]:
    """Return the rows of training."""
    found = []
    for name, label, labels, wanted, then in TRAINING:
        reached, against = times(sections[name], label, labels)
        found.append(row(name, label, against, reached=reached, wanted=wanted, then=then))
    return found


def decoding(sections: dict) -> list[str]:
    """Return the rows of decoding; against PyTorch in half precision, those in float32 too."""
    found = []
    for name, labels, wanted, then in DECODING:
        reached, against = times(sections[name], FROZEN, labels)
        found.append(row(name, FROZEN, against, reached=reached, wanted=wanted, then=then))
        if against in AUTOCAST:
            reached, against = times(sections[name], FROZEN, FLOAT32)
            found.append(f"| the same, float32 alone | | {against} | {shown(reached)} | | | |")
    return found


def others(corpus: dict, starting: dict, soak: dict) -> list[str]:
    """Return the rows of corpora, starting and faults."""
    speeds = {label: found["words_a_second"] for label, found in corpus["measured"].items()}
    found = []
    for peer, wanted, then in (("g2p-en", 10.0, None), ("Phonetisaurus", 1.0, 3.0)):
        pairs = zip(speeds[FROZEN], speeds[peer], strict=True)
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        reached = {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}
        found.append(row("100,000 words", FROZEN, peer, reached=reached, wanted=wanted, then=then))
    cached = next(
        c
        for c in starting["generating"]["contestants"]
        if c["label"].endswith("a file, frozen, cached")
    )
    seconds = cached["done"]["median"]
    met = "yes, both" if seconds < 2.6 else "yes" if seconds < 3.5 else "**missed**"
    cells = f"{cached['label']} | | {seconds:.2f} s | 3.50 s | 2.60 s | {met}"
    found.append(f"| first generation of a process | {cells} |")
    for what, ends in soak.items():
        faults = sum(end["code"] != 0 for end in ends)
        met = "**missed**" if faults else "yes"
        found.append(f"| faults, {what}, {len(ends)} | | | {faults} | 0 | 0 | {met} |")
    return found


def page() -> str:
    """Return the page."""
    head = (
        "| case | form | beside | reached | wanted | then | met |\n|---|---|---|---|---|---|---|\n"
    )
    parts = {
        "Training": training(reporting.load("training")),
        "Decoding": decoding(reporting.load("decoding")),
        "Corpora, starting, faults": others(
            *(reporting.load(name) for name in ("corpus", "starting", "soak"))
        ),
    }
    lines = (f"## {title}\n\n{head}" + "\n".join(rows) + "\n" for title, rows in parts.items())
    return PAGE.format(tables="\n".join(lines))


def main():
    """Write the page."""
    (HERE / "targets.md").write_text(page())
    print(page())


if __name__ == "__main__":
    main()
