"""The README.md of an exported model."""

from __future__ import annotations

from pathlib import Path

from keras_attn.serving.answer import readable

TEXT = """# {name}, served

A SavedModel for TensorFlow Serving, made by keras_attn {keras_attn}: strings in, strings out. Its
graph is all that a server needs; what else lies here says what it is and how to tell that it works.
Sources are cut at {max_source} tokens, targets end at {max_target}, the end token counted.
{text_ops}

## Serve it

In the folder that holds `{folder}/`, which {holds}:

```bash
docker run --rm -p 8500:8500 -p 8501:8501 \\
  --mount type=bind,source="$PWD/{folder}",target=/models/{name} \\
  -e MODEL_NAME={name} tensorflow/serving
```

or, with the server's binary:

```bash
tensorflow_model_server --port=8500 --rest_api_port=8501 \\
  --model_name={name} --model_base_path="$PWD/{folder}"
```

For the next two options, copy their files out of the version, which may be removed one day:
`cp "{folder}/{version}/assets.extra/"*.config "{folder}/"`. To merge requests into batches, add,
in the container:

```bash
  --enable_batching --batching_parameters_file=/models/{name}/batching.config
```

and for several models, in place of `MODEL_NAME`, a file with an entry for each folder, such as
`--model_config_file=/models/{name}/models.config`. The binary takes the same
options, with paths of this machine; a `base_path` has to be absolute. A request is answered alike
alone and in a batch. With batching on, one of more sources than `max_batch_size` is refused; and
one that the server cannot merge, of another rank or with rows of no ids, may fail with the others
of its batch. The server runs the requests of `tf_serving_warmup_requests` before it answers the
first one.

## Ask it

```bash
curl -d '{{"instances": [{{"source": "{example}"}}]}}' \\
  http://localhost:8501/v1/models/{name}:predict
curl -d '{{"signature_name": "options", "instances": [{{"source": "{example}", "beam_size": 5,
  "max_length": {max_target}, "length_penalty": 0.6}}]}}' \\
  http://localhost:8501/v1/models/{name}:predict
```

Of `score`, which has one output, REST gives the numbers alone. Where a beam has fewer targets than
{beam_size}, their scores are -Infinity, which strict parsers of JSON refuse: ask by gRPC there.

`assets.extra/golden.jsonl` has ten sources with the targets, scores and ids that the model gave
before it was exported: any server should give the same, but where `gap`, the least difference in
nats between the two best tokens of a step, is no more than rounding.

## Signatures

B is the number of sources, S the width of source ids; a number is fixed in this export. Scores are
log-probabilities in nats. Ids outside the vocabulary are read as `<unk>`, any byte string is
answered, and numbers outside their range are clamped: `max_length` from 1 to {max_target},
`beam_size` from 1 to {beam_size}, `length_penalty` from 0 (none) to 10, `temperature` from 0.0001
(1 is the model's own), `top_k` from 1 (0 and less are all), `top_p` from 0 (the best alone) to 1
(all). The same `seed` draws the same text. Nothing is optional.{copies}

| signature | inputs | outputs |
|---|---|---|
{signatures}

- `serving_default` gives the best target by greedy search; `beam` the {beam_size} best by a beam of
  {beam_size}, best first; `options` the best of a beam of at most {beam_size} with Wu's length
  penalty; `sample` draws, with `top_k` 0 and `top_p` 1 for all tokens.
- `score` gives log p(target | source).{attend}
- `ids` and `ids_beam` take and give token ids: {specials}. The tokens of all ids are in
  `assets.extra/source_vocabulary.json` and `target_vocabulary.json`. `source_lengths` counts the
  end token; a row without one gets one.
- `encode` and `step` are for searches of one's own: `encode` gives what decoding reads of the
  sources, `memory_*`, and the first state, `state_*`; `step` takes a token of each source, `<s>` at
  first, with all of these, and gives logits and the state to give next, with `memory_*` as it was.
  `<pad>` and `<s>` are never chosen; a target ends at `</s>`, or at {max_target} tokens. (An
  ensemble's logits are means of log p, to be taken as they are.) S is there the longest source of
  the batch, at most {max_source}.

## What has been run

Exports are tested on CPUs, through the C++ loader and session that the server has; {oldest}. They
have not been run under `tensorflow_model_server` itself, nor on a GPU.
{kernel}"""
COPIES = """

The model copies: a target id of V + j, with V = {target_size}, is the token at position j of the
source, from 0. So logits are V + S wide, and `target_vocabulary.json` has the ids below V alone. A
source id of Vs + j, with Vs = {source_size}, is a token that the source's vocabulary lacks, which
stands at position j for the first time; `<unk>` would be a token that cannot be copied."""
OLDEST = (
    "a small model of\nits architecture, with default options and random weights, passed in "
    "TensorFlow {}, the\noldest that was tried; this one was not tried there"
)
UNKNOWN = "the oldest TensorFlow\nthat runs it has not been looked for"
UNNUMBERED = "has no number: move it to `{folder}/1` first, since servers take numbered versions"
KERNELS = {
    "cpu": "Its recurrences are loops, which run on every device.\n",
    "portable": "LSTM and GRU read whole sequences, sources and in `score` targets, by cuDNN's\n"
    "kernel on GPUs, which none has run yet, and by a loop\nelsewhere: experimental.\n",
    "cudnn": "LSTM and GRU read whole sequences, sources and in `score` targets, by cuDNN's "
    "kernel, so\nthat it runs on GPUs alone; none has run it yet: experimental.\n",
}


PORTABLE = """# {name}, for {runtime}

Made by keras_attn {keras_attn}. {graphs}

```bash
pip install numpy {package}
```

{use}

`golden.jsonl` has ten sources with the targets, scores in nats and ids that the model gave before
it was exported, and the `gap` in nats between the two best tokens where it is least. Sources are
cut at {max_source} tokens, targets end at {max_target}, the end token counted.

## The graphs

| graph | inputs | outputs |
|---|---|---|
{signatures}

B is the number of sources{rows}, S the width of source ids. Rows of `source_ids` are ids of tokens,
then the end token, and behind it `<pad>`; nothing is checked in the graph. `encode` gives the
memory of sources, which stays as it is, and the first state; `step` takes both, with the tokens
chosen last, at first `<s>`, and gives the logits of the next ones and the state that follows, as
`next_state_...`. `<pad>` and `<s>` are never chosen. {specials}; the tokens of all ids are in
`source_vocabulary.json` and `target_vocabulary.json`.
"""
GRAPHS = {
    "onnx": "`encode.onnx` and `step.onnx` are what a search needs; `greedy.onnx` is a whole one, "
    "for\n`python answer.py --whole`.",
    "litert": "`encode.tflite` and `step.tflite` are what a search needs; those named `.int8.` are "
    "the\nsame with weights of 8 bits (dynamic range), for `python answer.py --int8`.",
}
RUNTIMES = {"onnx": ("ONNX", "onnxruntime"), "litert": ("LiteRT", "ai-edge-litert")}
TEXTS = """```bash
python answer.py "a text"
```

`answer.py` turns text into ids, searches greedily, and turns ids into text, with no more than that.
From Python: `from answer import Model`, then `Model(folder).generate(["a text"])`, `search` for log
p too, `stream` for a token at a time, `search_ids` for lists of ids."""
IDS_ALONE = """`answer.py` searches greedily with no more than that. The text of this model becomes
ids by TensorFlow's operations alone, so that only ids are answered here: `from answer import
Model`, then `Model(folder).search_ids([[5, 4, 6]])`, which gives ids and log p of each source."""


def portable_readme(described: dict) -> str:
    """Return the text for a model of another runtime, given what its `keras_attn.json` says."""
    runtime, package = RUNTIMES[described["runtime"]]
    rows, sides = described["batch_size"], described["vocabularies"].values()
    texts = all(readable(side["tokeniser"], side["cleaning"]) for side in sides)
    return PORTABLE.format(
        name=described["name"],
        runtime=runtime,
        package=package,
        keras_attn=described["made_with"]["keras_attn"],
        graphs=GRAPHS[described["runtime"]],
        use=TEXTS if texts else IDS_ALONE,
        rows=f", {rows} in this export" if rows else "",
        signatures=_rows(described["signatures"], described["copies"]),
        specials=_specials(described),
        **{key: described[key] for key in ("max_source", "max_target")},
    )


def readme(described: dict, path: Path) -> str:
    """Return the text, given what `keras_attn.json` says, and where the version is written."""
    tables, sizes = described["signatures"], described["vocabularies"]
    attends, numbered = "attend" in tables, path.name.isdigit()
    folder = path.parent.name if numbered else path.name
    copies = COPIES.format(**{f"{side}_size": sizes[side]["size"] for side in sizes})
    return TEXT.format(
        name=described["name"],
        folder=folder,
        holds="holds this version" if numbered else UNNUMBERED.format(folder=folder),
        copies=copies if described["copies"] else "",
        keras_attn=described["made_with"]["keras_attn"],
        example="text",
        text_ops=(
            "\nIts tokenisers use tensorflow-text's operations, which the stock server has; other "
            "runtimes\nhave to load them."
            if described["needs_tf_text"]
            else "\nIt uses TensorFlow's core operations alone."
        ),
        signatures=_rows(tables, described["copies"]),
        attend="\n- `attend` shows what each target token looked at." if attends else "",
        specials=_specials(described),
        **{key: described[key] for key in ("max_source", "max_target", "beam_size")},
        kernel=KERNELS[described["rnn_kernel"]],
        oldest=OLDEST.format(oldest) if (oldest := described["lowest_tensorflow"]) else UNKNOWN,
        version=path.name if numbered else 1,
    )


def _specials(described: dict) -> str:
    return ", ".join(f"`{token}` is {i}" for token, i in described["special_ids"].items())


def _rows(tables: dict, copies: bool = False) -> str:
    return "\n".join(
        f"| `{key}` | {_tensors(table['inputs'])} | {_tensors(table['outputs'], copies)} |"
        for key, table in tables.items()
    )


def _tensors(specs: dict, copies: bool = False) -> str:
    return ", ".join(
        f"`{name}` {dtype} {_shape(sizes, 'V + S' if copies and name == 'logits' else 'S')}"
        for name, (dtype, sizes) in specs.items()
    )


def _shape(sizes: list[int], width: str) -> str:
    """Return a shape with letters: the first axis is B, others that vary are as wide as is said."""
    letters = ["B", *(width if size < 0 else str(size) for size in sizes[1:])]
    return f"[{', '.join(letters)}]"
