"""What stands beside an exported graph: what it is, how to serve it, and how to tell that it works.

    README.md                                   what it answers, and the commands that serve it
    assets.extra/keras_attn.json                the same for programs
    assets.extra/golden.jsonl                   sources with what the model answered before export
    assets.extra/source_vocabulary.json, ...    the token of every id
    assets.extra/tf_serving_warmup_requests     a request to every signature, for the server
    assets.extra/models.config, batching.config settings for the server

The graph needs none of it: it holds its vocabulary itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_attn.environment import VERSION
from keras_attn.serving import messages
from keras_attn.serving.readme import readme
from keras_attn.serving.signatures import Steps
from keras_attn.text.codec import CopyCodec
from keras_attn.types import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

FORMAT = 1
# The oldest TensorFlow that passed with an architecture, by benchmarks/wheels.py.
OLDEST = json.loads(Path(__file__).with_name("oldest.json").read_text())
EXTRA = "assets.extra"
# As large as a request of `Client`; ids of unequal widths are merged only if the server pads them.
BATCHING = """max_batch_size { value: 256 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 1000 }
num_batch_threads { value: 2 }
pad_variable_length_inputs: true
"""
MODELS = """model_config_list {{
  config {{ name: "{0}" base_path: "/models/{0}" model_platform: "tensorflow" }}
}}
"""


def write(
    folder: Path, path: Path, name: str, model: Any, options: dict, functions: dict[str, Any]
) -> None:
    """Write all of it.

    Args:
        folder: Has the graph.
        path: Where the folder will be.
        name: The name that it is served by.
        model: A `Seq2Seq`, or an `Ensemble`, with tokenisers.
        options: Of the export: "runtime", "beam_size" and "rnn_kernel".
        functions: The concrete functions of the signatures, by name.
    """
    extra = folder / EXTRA
    extra.mkdir(exist_ok=True)
    golden = golden_rows(model)
    described = description(name, model, options, functions)
    texts = common(model, described, golden)
    texts |= {"models.config": MODELS.format(name), "batching.config": BATCHING}
    for file, text in texts.items():
        (extra / file).write_text(text, "utf-8")
    (folder / "README.md").write_text(readme(described, path.absolute()), "utf-8")
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as records:
        for signature, inputs in warm_up(golden, model, functions).items():
            records.write(messages.prediction_log(name, signature, inputs))


def common(model: Any, described: dict, golden: list[dict]) -> dict[str, str]:
    """Return the files, by name, that stand beside a graph of any format."""
    return {
        "keras_attn.json": json.dumps(described, indent=1, ensure_ascii=False) + "\n",
        "golden.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in golden),
        "source_vocabulary.json": _vocabulary(model.source),
        "target_vocabulary.json": _vocabulary(model.target),
    }


def description(name: str, model: Any, options: dict, functions: dict[str, Any]) -> dict:
    """Return what `keras_attn.json` says."""
    models = getattr(model, "models", (model,))
    needs_tf_text = model.source.needs_tf_text or model.target.needs_tf_text
    plain = len(models) == 1 and not needs_tf_text and options.get("rnn_kernel") == "cpu"
    oldest = OLDEST.get(models[0].name) if plain else None
    return {
        "format": FORMAT,
        "name": name,
        "kind": "ensemble" if hasattr(model, "models") else "seq2seq",
        "models": [{"name": each.name, "config": each.get_config()} for each in models],
        **options,
        "max_source": model.max_source,
        "max_target": model.max_target,
        "special_ids": dict(zip(SPECIAL_TOKENS, (PAD, BOS, EOS, UNK), strict=True)),
        "vocabularies": {
            side: {
                "tokeniser": type(tokeniser).__name__,
                "size": tokeniser.vocabulary_size,
                "cleaning": dataclasses.asdict(tokeniser.cleaning),
                "sha256": hashlib.sha256(_vocabulary(tokeniser).encode()).hexdigest(),
            }
            for side, tokeniser in (("source", model.source), ("target", model.target))
        },
        "copies": isinstance(model.codec, CopyCodec),
        "needs_tf_text": needs_tf_text,
        "lowest_tensorflow": oldest,
        "made_with": {
            "keras_attn": VERSION,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
        "signatures": {key: _table(function) for key, function in sorted(functions.items())},
    }


def _table(function) -> dict:
    """Return dtype and shape of what a signature takes and gives; -1 is any size."""

    def sizes(spec):
        return [spec.dtype.name, [-1 if size is None else size for size in spec.shape]]

    outputs = function.structured_outputs
    return {
        "inputs": {spec.name: sizes(spec) for spec in inputs_of(function)},
        "outputs": {key: sizes(outputs[key]) for key in sorted(outputs)},
    }


def inputs_of(function) -> tuple[tf.TensorSpec, ...]:
    """Return the named specs of what a signature takes."""
    return function.structured_input_signature[0]


def _vocabulary(tokeniser) -> str:
    return json.dumps(tokeniser.vocabulary, ensure_ascii=False, indent=0) + "\n"


def golden_rows(model: Any) -> list[dict]:
    """Return ten sources, and for each what the model says: target, score, ids and gap.

    It is asked as it is here, not as it is exported.
    """
    sources = golden_sources(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* were longer than")
        found = model.search(sources, num_return=1)
    targets = model.codec.text(found.token_ids[:, 0], tf.constant(sources)).numpy().tolist()
    ids = model.codec.source_ids(tf.constant(sources)).to_list()
    rows = [[*row[: model.max_source - 1], EOS] for row in ids]
    return [
        {
            "source": source,
            "target": target.decode("utf-8", "replace"),
            "score": float(score),
            "source_ids": row,
            "target_ids": found.token_ids[i, 0, : found.lengths[i, 0]].tolist(),
            "gap": gap,
        }
        for i, (source, target, score, row, gap) in enumerate(
            zip(
                sources,
                targets,
                found.scores[:, 0],
                rows,
                gaps(model, rows, found.token_ids[:, 0]),
                strict=True,
            )
        )
    ]


def gaps(model: Any, sources: list[list[int]], target_ids: np.ndarray) -> list[float | None]:
    """Return how far apart, in nats, the two best tokens of a step were where they were closest.

    Other rounding than that may turn them round. There is none of an empty source, whose answer is
    no choice.

    Args:
        model: Has `encode` and `step`.
        sources: Ids of B sources, EOS last.
        target_ids: What the model answers by greedy search, int (B, T), PAD behind EOS.
    """
    token = np.full(len(sources), BOS, np.int32)
    closest = np.full(len(sources), np.inf)
    memory, state = model.encode(tf.ragged.constant(sources, tf.int32).to_tensor(PAD))
    for following in target_ids.T:
        logits, _, state = model.step(tf.constant(token), state, memory)
        two = np.sort(np.array(logits)[:, EOS:])[:, -2:]
        closest = np.where(following == PAD, closest, np.minimum(closest, two[:, 1] - two[:, 0]))
        token = following
    return [
        float(gap) if row != [EOS] and np.isfinite(gap) else None
        for row, gap in zip(sources, closest, strict=True)
    ]


def golden_sources(model: Any) -> list[str]:
    """Return sources of the model's own tokens, and those that go wrong most easily."""
    random = np.random.default_rng(0)
    size, most = model.source.vocabulary_size, model.max_source
    lengths = (1, 2, 3, 5, 8, max(1, min(13, most - 1)), most + 9)
    if size <= UNK + 1:
        return ["", " ", "e\u0301 🙂", "\ufeffЖ", *("x" * length for length in lengths[:6])]
    rows = [random.integers(UNK + 1, size, length) for length in lengths]
    texts = [model.source.detokenize([row]).numpy()[0].decode("utf-8", "replace") for row in rows]
    return ["", " ", "e\u0301 🙂 Ж", *texts]


def warm_up(
    golden: list[dict], model: Any, functions: dict[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Return inputs of every signature: two sources each."""
    rows = golden[3:5]
    ids = [row["source_ids"] for row in rows]
    lengths = np.array([len(row) for row in ids], np.int32)
    padded = np.zeros((2, lengths.max()), np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(ids)
    given = {
        "source": np.array([row["source"].encode() for row in rows], object),
        "target": np.array([row["target"].encode() for row in rows], object),
        "source_ids": padded,
        "source_lengths": lengths,
        "beam_size": np.full(2, 2, np.int32),
        "max_length": np.full(2, 8, np.int32),
        "length_penalty": np.full(2, 0.6, np.float32),
        "seed": np.arange(2),
        "temperature": np.ones(2, np.float32),
        "top_k": np.zeros(2, np.int32),
        "top_p": np.ones(2, np.float32),
        "token": np.full(2, BOS, np.int32),
    }
    encoded = Steps(model).encode(tf.constant(padded))  # here, whatever the export runs on
    given |= {key: x.numpy() for key, x in encoded.items()}
    return {
        key: {spec.name: given[spec.name] for spec in inputs_of(function)}
        for key, function in functions.items()
    }
