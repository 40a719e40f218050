"""Why the dot product is scaled: the gradient that softmax lets through, against the depth.

    python benchmarks/scaled_dot.py

Queries and keys are standard normal, 16 keys a query. Measured is the Frobenius norm of the
Jacobian of the alignments with respect to the scores: the factor by which softmax passes gradients
on. Writes benchmarks/scaled_dot.json and docs/scaled_dot.png.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf

from keras_attn import layers

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).parent
DEPTHS = [2**i for i in range(1, 12)]
QUERIES, KEYS = 2000, 16
SCORERS = {"dot": layers.DotScorer, "scaled_dot": layers.ScaledDotScorer}


def gradient_norms(scorer, depth):
    """Return the norms of the Jacobians, float (QUERIES,)."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(QUERIES, 1, depth)).astype(np.float32)
    keys = rng.normal(size=(QUERIES, KEYS, depth)).astype(np.float32)
    scores = scorer(query, scorer.project_keys(keys))[:, 0]
    with tf.GradientTape() as tape:
        tape.watch(scores)
        alignments = layers.Softmax()(scores[:, None], tf.ones_like(scores[:, None], tf.bool))[:, 0]
    return np.linalg.norm(tape.batch_jacobian(alignments, scores), axis=(1, 2))


def measured():
    """Return the mean norm of each scorer at each depth."""
    return {
        name: [float(gradient_norms(scorer(), depth).mean()) for depth in DEPTHS]
        for name, scorer in SCORERS.items()
    }


def drawn(found, path):
    """Draw the norms against the depth."""
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, values in found.items():
        axes.plot(DEPTHS, values, marker="o", label=name)
    axes.set(
        xscale="log",
        xlabel="depth d of queries and keys",
        ylabel="norm of d alignments / d scores",
        title=f"Gradient through softmax, {KEYS} keys",
        ylim=(0, None),
    )
    axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    found = measured()
    record = {"depths": DEPTHS, "queries": QUERIES, "keys": KEYS, "mean_norm": found}
    (HERE / "scaled_dot.json").write_text(json.dumps(record, indent=1) + "\n")
    drawn(found, HERE.parent / "docs" / "scaled_dot.png")
    for depth, *row in zip(DEPTHS, *found.values(), strict=True):
        print(depth, *(f"{value:.4f}" for value in row))
