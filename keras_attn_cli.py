"""The command line: a thin shell that imports keras_attn only inside commands."""

from __future__ import annotations

import contextlib
import enum
import itertools
import json as jsons
import os
import signal
import sys
import tempfile
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Classic sequence-to-sequence learning on Keras 3: train on pairs of strings, generate, "
    "evaluate, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# The tokenisers of their sources and targets.
DATASETS = {
    "cmudict": ("character", "whitespace"),
    "dates": ("character", "character"),
    "g2p": ("character", "whitespace"),
    "geo880": ("whitespace", "whitespace"),
    "inflection": ("whitespace", "whitespace"),
    "multi30k": ("whitespace", "whitespace"),
    "scan": ("whitespace", "whitespace"),
    "slovene": ("character", "character"),
}


class Kind(enum.StrEnum):
    """The tokenisers."""

    CHARACTER = "character"
    WHITESPACE = "whitespace"
    BYTE = "byte"
    WORDPIECE = "wordpiece"
    SENTENCEPIECE = "sentencepiece"


class Format(enum.StrEnum):
    """Formats of exported models."""

    TF_SAVED_MODEL = "tf_saved_model"
    ONNX = "onnx"
    LITERT = "litert"


class RnnKernel(enum.StrEnum):
    """What runs the recurrences of an exported model."""

    CPU = "cpu"
    PORTABLE = "portable"
    CUDNN = "cudnn"


class Monitor(enum.StrEnum):
    """What can say which epoch is best."""

    LOSS = "loss"
    PERPLEXITY = "perplexity"
    EXACT_MATCH = "exact_match"
    EDIT_DISTANCE_RATE = "edit_distance_rate"
    BLEU = "bleu"


LINES = 128  # of standard input, read before they are answered
DRAW, RULES = "Draw instead", "What targets may be"


class Stop(Exception):
    """Something a user can mend, in one line."""


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error, and TensorFlow's log.")
    ] = False,
) -> None:
    """Set what goes for all commands."""
    if not debug:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Model = Annotated[
    Path,
    typer.Argument(
        help="A .keras file, the folder of a run that `train` finished, or a trained model that "
        "comes with the package, such as attention.dates."
    ),
]


@app.command()
def names(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'attention*'.")] = "*",
    json: AsJson = False,
) -> None:
    """List the architectures of the zoo."""
    _import_quietly()
    from keras_attn import zoo

    found = zoo.names(pattern)
    if not found:
        raise Stop(f"no architecture matches {pattern!r}; `keras-attn names` lists all.")
    typer.echo(jsons.dumps(found) if json else "\n".join(found))


@app.command()
def card(
    name: Annotated[str, typer.Argument(help="An architecture.")], json: AsJson = False
) -> None:
    """Show what an architecture is: equations, paper, deviations, options, parameters, recipe."""
    _import_quietly()
    from keras_attn import zoo

    found = zoo.card(name)
    if not json:
        typer.echo(str(found))
        return
    shown = {field: getattr(found, field) for field in found.__dataclass_fields__}
    shown["options"] = zoo.config(name)
    del shown["changes"]
    typer.echo(jsons.dumps(shown, ensure_ascii=False, default=str))


@app.command()
def train(
    context: typer.Context,
    architecture: Annotated[
        str, typer.Argument(help="A name of the zoo, such as attention; or a recipe, FILE.toml.")
    ],
    data: Annotated[
        str | None,
        typer.Argument(help=f"{', '.join(DATASETS)}, or a TSV, CSV or JSONL file (.gz too)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the run. Run again to resume.", show_default="needed"),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="A file to choose by, instead of a part of the data.", rich_help_panel="Data"
        ),
    ] = None,
    validation_split: Annotated[
        float,
        typer.Option(
            help="The fraction of the sources of a file to choose by.", rich_help_panel="Data"
        ),
    ] = 0.05,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Two columns of the file, as names or numbers from 0: a,b.", rich_help_panel="Data"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where a data set lies, if it is not to be downloaded.", rich_help_panel="Data"
        ),
    ] = None,
    source_tokeniser: Annotated[
        Kind | None,
        typer.Option(help="By default character; a data set has its own.", rich_help_panel="Text"),
    ] = None,
    target_tokeniser: Annotated[
        Kind | None,
        typer.Option(help="By default character; a data set has its own.", rich_help_panel="Text"),
    ] = None,
    source_vocabulary: Annotated[
        int | None,
        typer.Option(
            help="Most ids of sources; by default no limit, 8000 for subwords.",
            rich_help_panel="Text",
        ),
    ] = None,
    target_vocabulary: Annotated[
        int | None,
        typer.Option(
            help="Most ids of targets; by default no limit, 8000 for subwords.",
            rich_help_panel="Text",
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint",
            help="One tokeniser, learnt from sources and targets.",
            rich_help_panel="Text",
        ),
    ] = False,
    lowercase: Annotated[
        bool,
        typer.Option(
            "--lowercase", help="Lowercase sources (--joint: targets too).", rich_help_panel="Text"
        ),
    ] = False,
    nfkc: Annotated[
        bool,
        typer.Option(
            "--nfkc",
            help="Normalise sources to NFKC (with --joint, targets too).",
            rich_help_panel="Text",
        ),
    ] = False,
    casefold: Annotated[
        bool,
        typer.Option(
            "--casefold",
            help="Fold the case of sources (with --joint, of targets too).",
            rich_help_panel="Text",
        ),
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="An option of the architecture, such as units=128."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="By default as make about 12,000 batches, 20 to 200.",
            rich_help_panel="Training",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="By default 32 below 10,000 pairs, else 128.", rich_help_panel="Training"
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="The peak of the rate.", rich_help_panel="Training")
    ] = 2e-3,
    label_smoothing: Annotated[
        float, typer.Option(help="0 for none.", rich_help_panel="Training")
    ] = 0.1,
    average: Annotated[
        float,
        typer.Option(
            help="The fraction of the run that averaged weights reach back.",
            rich_help_panel="Training",
        ),
    ] = 0.08,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after so many epochs without a better one.",
            rich_help_panel="Training",
        ),
    ] = None,
    monitor: Annotated[
        Monitor, typer.Option(help="What says which epoch is best.", rich_help_panel="Training")
    ] = Monitor.EDIT_DISTANCE_RATE,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="For weights, dropout and the order of pairs.",
            rich_help_panel="Training",
        ),
    ] = 0,
    json: AsJson = False,
) -> None:
    """Train a model on pairs of strings. Killed, it resumes when the same command is run again.

    A recipe says all itself but where the data lies (--data-dir), where the run shall live (--out)
    and its --seed.
    """
    given = locals()
    if out is None:
        raise Stop("--out: expected the folder of the run.")
    if (Path(architecture) / "recipe.toml").exists():
        raise Stop(f"ARCHITECTURE: a folder; its recipe is {Path(architecture) / 'recipe.toml'}.")
    if architecture.endswith(".toml"):
        _refuse_beside_recipe(context)
        _train_recipe(architecture, out, seed, data_dir, json)
        return
    if data is None:
        raise Stop(f"DATA: expected {', '.join(DATASETS)} or a file of pairs.")
    settings = {key: given[key] for key in given if key not in ("context", "out", "json")}
    settings = {key: str(v) if isinstance(v, Path) else v for key, v in settings.items()}
    _import_quietly()
    _use_all_cores()
    from keras_attn import training
    from keras_attn.text import pipeline

    pairs, held_out = _training_data(
        data, validation, validation_split, _columns(columns), data_dir
    )
    settings["data_sha256"] = _digest(pairs, held_out)
    _refuse_other_run(out, settings)
    import keras

    keras.utils.set_random_seed(seed)
    source, target = _tokenisers(data, pairs, settings)
    _warm(source, target)
    model = _built(architecture, source, target, _assignments(option or []))
    batch_size = batch_size or (32 if len(pairs.sources) < 10_000 else 128)
    limits = model.max_source, model.max_target
    batches = pipeline.count(source, target, pairs, *limits, batch_size)
    epochs = epochs or min(max(round(12_000 / batches), 20), 200)
    _note_run(out, settings)
    _tell(
        f"{len(pairs.sources):,} pairs to train on, {len(held_out.sources):,} to choose by\n"
        f"{architecture}: {model.count_params():,} weights; {source.vocabulary_size:,} source ids, "
        f"{target.vocabulary_size:,} target ids\n"
        f"{epochs} epochs of {batches:,} batches of up to {batch_size}; the run is in {out}"
    )
    log = training.train(
        model,
        pairs,
        held_out,
        out,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        label_smoothing=label_smoothing,
        average=average,
        patience=patience,
        monitor=str(monitor),
        seed=seed,
        callbacks=[training.Progress()],
    )
    best = training.best(log, str(monitor))
    if json:
        entries = [training.finite(entry) for entry in log]
        shown = {"model": str(out / "model.keras"), "best": training.finite(best), "log": entries}
        typer.echo(jsons.dumps(shown))
        return
    typer.echo(
        f"best epoch {best['epoch']:.0f} of {len(log)}: exact match "
        f"{best['val_exact_match']:.2%}, edits {best['val_edit_distance_rate']:.2%} of the tokens\n"
        f"saved {out / 'model.keras'}\n"
        f'next: keras-attn generate {out} "{_shortened(held_out.sources[0])}"\n'
        f"      keras-attn export {out} saved_models/{out.name}"
    )


@app.command()
def doctor(json: AsJson = False) -> None:
    """Show what makes training fast on this machine, what is on, and what would help."""
    _import_quietly()
    from keras_attn.kernels import doctor

    found = doctor.findings()
    if json:
        typer.echo(jsons.dumps([finding._asdict() for finding in found]))
        return
    for finding in found:
        typer.echo(f"{finding.name:<10} {finding.found}")
        if finding.advice:
            typer.echo(f"{'':<10} -> {finding.advice}")


BeamSize = Annotated[
    int, typer.Option(min=1, help="Hypotheses kept at each step; 1 is greedy search.")
]
LengthPenalty = Annotated[
    float, typer.Option(min=0, help="Wu's alpha: larger favours longer targets.")
]
CoveragePenalty = Annotated[
    float, typer.Option(min=0, help="Wu's beta: what it costs to leave source tokens unread.")
]


@app.command()
def generate(
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Sources.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A text file, one source a line; - is standard input.")
    ] = None,
    beam_size: BeamSize = 1,
    num_return: Annotated[
        int | None,
        typer.Option(min=1, help="Several targets: a line each, of source, log p and target."),
    ] = None,
    length_penalty: LengthPenalty = 0.0,
    coverage_penalty: CoveragePenalty = 0.0,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a target.")] = None,
    min_length: Annotated[int | None, typer.Option(help="Fewest tokens of a target.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Draw tokens, with log p over this.", rich_help_panel=DRAW)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from so many tokens.", rich_help_panel=DRAW)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Draw from tokens of so much probability.", rich_help_panel=DRAW),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same draws every time.", rich_help_panel=DRAW)
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="What targets start with.", rich_help_panel=RULES)
    ] = None,
    banned: Annotated[
        list[str] | None,
        typer.Option(help="A token never chosen; give it again for more.", rich_help_panel=RULES),
    ] = None,
    no_repeat_ngram_size: Annotated[
        int, typer.Option(help="No n tokens twice in a target.", rich_help_panel=RULES)
    ] = 0,
    allowed: Annotated[
        Path | None,
        typer.Option(help="A file of the only targets, one a line.", rich_help_panel=RULES),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write the best target of each source, one a line, in order.

    Sources are the arguments, the lines of a file, or those of standard input, of which 128 are
    read before they are answered; what is typed is answered line by line.
    """
    if texts and file:
        raise Stop("give sources either as arguments or as --file, not both.")
    _import_quietly()
    loaded = _loaded(model)
    options = {
        "beam_size": beam_size,
        "num_return": num_return,
        "length_penalty": length_penalty,
        "coverage_penalty": coverage_penalty,
        "max_length": max_length,
        "min_length": min_length,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "prefix": prefix,
        "banned": banned,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "allowed": allowed and loaded.trie([_text(line) for line in _lines(allowed)]),
    }
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise Stop(f"--seed: expected an int of 64 bits, got {seed}.")
    options |= {"return_scores": True, "seed": seed}
    sources, shown = itertools.tee(iter(texts or _lines(file)))
    if texts or (file is not None and str(file) != "-"):
        found = loaded.generate(sources, **options)
    else:
        found = _answers(loaded, sources, options, 1 if sys.stdin.isatty() else LINES)
    for source, (targets, scores) in zip(shown, found, strict=False):
        _write_targets(_text(source), targets, scores, json)


def _answers(model, sources, options, size):
    """Yield what `generate` gives of each of `size` sources before more are read."""
    from keras_attn.search import fold

    for start in itertools.count(0, size):
        chunk = list(itertools.islice(sources, size))
        if not chunk:
            return
        seed = options["seed"]
        if seed is not None:
            seed = fold(seed, range(start, start + len(chunk))).numpy()
        yield from zip(*model.generate(chunk, **{**options, "seed": seed}), strict=True)


def _write_targets(source, targets, scores, json):
    """Write the target of a source, or all of a list of them."""
    if isinstance(targets, str):
        possible = scores > float("-inf")  # which JSON has no number for
        shown = {"source": source, "target": targets, "score": scores if possible else None}
        typer.echo(jsons.dumps(shown, ensure_ascii=False) if json else targets)
    elif json:
        pairs = zip(targets, scores, strict=True)
        listed = [{"target": target, "score": score} for target, score in pairs]
        typer.echo(jsons.dumps({"source": source, "targets": listed}, ensure_ascii=False))
    else:
        for target, score in zip(targets, scores, strict=True):
            typer.echo(f"{source}\t{score:.4f}\t{target}")


@app.command()
def evaluate(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            help="A .keras file, the folder of a run, a trained model of the package, or an "
            "exported model, which is then asked through TensorFlow's C++ session."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(DATASETS)}, or a file of pairs; or a recipe, FILE.toml; by default "
            "the recipe of the run."
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Two columns of the file: a,b.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a data set lies.")] = None,
    bleu: Annotated[bool, typer.Option(help="BLEU and chrF too, by sacrebleu.")] = False,
    beam_size: BeamSize = 1,
    length_penalty: LengthPenalty = 0.0,
    coverage_penalty: CoveragePenalty = 0.0,
    seed: Annotated[
        int | None, typer.Option(help="Of the run, where a recipe's data goes by it.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Score generated targets against those of the data; equal sources share theirs.

    Not so in running text, of which each row counts. Of a data set it is the part that chooses
    the best epoch that is scored; of dates, the test part. A recipe is measured as its training
    measures: by the part that chose the best epoch, with the beam that it says.
    """
    if data is None or data.endswith(".toml"):
        _refuse_beside_recipe(context)
        _evaluate_by_recipe(model, data, data_dir, seed, json)
        return
    if seed is not None:
        raise Stop("--seed: goes with a recipe.")
    _import_quietly()
    from keras_attn import recipes, scoring

    pairs = _held_out(data, _columns(columns), data_dir)
    by_row = data in DATASETS and _about(data).by_row
    asked, cleaning, whole = _evaluated(model)
    options = {"beam_size": beam_size, "length_penalty": length_penalty}
    if coverage_penalty:  # which exported models do not have
        options["coverage_penalty"] = coverage_penalty
    with _bar("generating", len(set(pairs.sources))) as advance:
        (sources, references), hypotheses = recipes.answered(
            lambda chunk: asked(chunk, **options), cleaning, pairs, advance, by_row
        )
    found = scoring.sequence_scores(hypotheses, references, list if whole else str.split)
    unit = "characters" if whole else "words"
    scores: dict[str, Any] = {"sources": len(sources), "tokens": unit, **found}
    if bleu:
        scores |= scoring.translation_scores(hypotheses, references)
    if json:
        typer.echo(jsons.dumps(scores))
        return
    for key, value in scores.items():
        shown = f"{value:.2%}" if isinstance(value, float) and key in found else value
        shown = f"{shown:.2f}" if isinstance(shown, float) else shown
        typer.echo(f"{key.replace('_', ' ') + ':':22} {shown}")


@app.command()
def export(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="TF Serving's model_base_path.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="By default one more than the last.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace that version if it exists.")] = False,
    beam_size: Annotated[
        int, typer.Option(min=1, help="Of the signature `beam`, and the most of `options`.")
    ] = 5,
    format: Annotated[Format, typer.Option(help="What runs it.")] = Format.TF_SAVED_MODEL,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Sources that LiteRT's graphs take at a time.")
    ] = 1,
    rnn_kernel: Annotated[
        RnnKernel, typer.Option(help="Of recurrences; portable and cudnn are experimental.")
    ] = RnnKernel.CPU,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but so many of the newest versions.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a model as the next version in a folder: strings in and strings out.

    That is a SavedModel for TF Serving; or, for ONNX and LiteRT, graphs of ids beside a script that
    answers texts by them.
    """
    _import_quietly()
    from keras_attn.serving.publishing import newer_versions, next_version, prune, runtimes

    runtime = "tensorflow" if format is Format.TF_SAVED_MODEL else format.value
    if others := sorted(runtimes(folder) - {runtime}):
        raise Stop(
            f"{folder} holds versions for {', '.join(others)}, beside which one for {runtime} "
            "would be taken for the newest of the same; export to another folder."
        )
    if version and keep and newer_versions(folder, version) >= keep:
        raise Stop(
            f"--keep: {keep} would remove version {version} itself, as {folder} has newer ones."
        )
    loaded = _loaded(model)
    options = {"beam_size": beam_size, "batch_size": batch_size, "rnn_kernel": rnn_kernel.value}
    options |= {"overwrite": overwrite, "verbose": False}

    def exported(path):
        try:
            with _standard_error_aside():
                return loaded.export(path, format.value, **options)
        except ImportError as error:
            raise Stop(str(error)) from error
        except FileExistsError:
            if version or not path.exists():
                raise
            return exported(next_version(folder))  # another process has just made that one

    path = exported(folder / str(version) if version else next_version(folder))
    removed = [str(old) for old in prune(folder, keep)] if keep else []
    needs = loaded.source.needs_tf_text or loaded.target.needs_tf_text
    if json:
        said = {"path": str(path), "needs_tf_text": needs, "removed": removed}
        typer.echo(jsons.dumps(said))
        return
    typer.echo(f"saved {path}" + (" (its server needs tensorflow-text's operations)" * needs))
    if removed:
        typer.echo(f"removed {', '.join(removed)}")


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="An exported model, or a folder of versions: the newest.")
    ],
    placer: Annotated[
        bool,
        typer.Option("--placer", help="Ask TensorFlow's placer, given a GPU; needs g++."),
    ] = False,
    json: AsJson = False,
) -> None:
    """Show an exported model's signatures, files and weights, and what of it a GPU would run."""
    _import_quietly()
    from keras_attn.serving import inspection, placement

    path = _newest(path)
    found = inspection.inspect(path)
    places = placement.placed(path, list(found.operations)) if placer else None
    if not json:
        for line in inspection.lines(found, places):
            typer.echo(line)
        return
    operations = {
        name: [{**op._asdict(), "nodes": number} for op, number in sorted(counted.items())]
        for name, counted in found.operations.items()
    }
    said = found._asdict() | {"operations": operations, "places": places}
    typer.echo(jsons.dumps(said, ensure_ascii=False))


@app.command()
def serve(
    path: Annotated[Path, typer.Argument(help="An exported model, or a folder of versions.")],
    name: Annotated[str | None, typer.Option(help="What it is served as.")] = None,
    host: Annotated[str, typer.Option(help="By default nobody else can reach it.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any.")] = 8501,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any.")] = 8500,
    grpc: Annotated[
        bool, typer.Option(help="Serve gRPC too; needs tensorflow-serving-api.")
    ] = True,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Of a request.")] = 16,
    warm_up: Annotated[
        bool, typer.Option(help="Answer a version's warm-up requests before it serves.")
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds to answer what has begun when it is stopped.")
    ] = 30.0,
) -> None:
    """Serve an exported model on this machine by TF Serving's REST and gRPC.

    For laptops and tests: there is no batching and no TLS. For more, run TF Serving itself; the
    README.md in an exported model has the commands.
    """
    _import_quietly()
    from keras_attn.serving.rpc import bracketed
    from keras_attn.serving.servable import Servable
    from keras_attn.serving.server import Server
    from keras_attn.serving.session import SessionError

    try:
        servable = Servable(path, name, _tell, warm_up)
    except SessionError as error:
        raise Stop(f"{path}: {error}") from error
    ports = rest_port, grpc_port if grpc else None
    try:
        server = Server(servable, *ports, host=host, max_bytes=max_megabytes * 2**20)
    except ImportError as error:
        raise Stop(f"{error}; or serve REST alone: --no-grpc") from error
    stopped = threading.Event()
    ends = signal.SIGINT, signal.SIGTERM
    for number in ends:
        signal.signal(number, lambda *_: stopped.set())
    at = bracketed(host)
    also = f", gRPC {at}:{server.grpc_port}" if grpc else ""
    _tell(f"REST http://{at}:{server.rest_port}/v1/models/{servable.name}{also}")
    try:
        stopped.wait()
        for number in ends:
            signal.signal(number, signal.SIG_DFL)
        _tell("stopping; once more ends it at once")
    finally:
        server.stop(grace)


@app.command()
def check(
    url: Annotated[str, typer.Argument(help="http://host:port or grpc://host:port.")],
    folder: Annotated[Path, typer.Argument(help="The exported model, or its versions' folder.")],
    model: Annotated[
        str | None, typer.Option(help="By default the name that the folder gives it.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="By default the newest.")] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            help="How far scores may be off, nats, relative beyond 1; try 1e-3 for a GPU with TF32."
        ),
    ] = 1e-5,
) -> None:
    """Ask a running server what a model answered before it was exported, and report differences."""
    _import_quietly()
    from keras_attn.serving import Client, ServerError, checking

    folder = _newest(folder)
    rows = checking.golden(folder)
    try:
        client = Client(url, model or checking.name(folder), version=version)
        found = list(checking.differences(client, rows, tolerance))
    except ServerError as error:
        raise Stop(f"{url}: {error}") from error
    for difference in found:
        typer.echo(difference.text)
    ties = sum(difference.tie for difference in found)
    _tell(f"{len(rows)} golden answers, {len(found) - ties} differences, {ties} ties")
    if len(found) > ties:
        raise typer.Exit(1)


@app.command()
def attend(
    model: Model,
    text: Annotated[str, typer.Argument(help="A source.")],
    png: Annotated[Path | None, typer.Option(help="Draw it to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it to this file.")] = None,
    json: AsJson = False,
) -> None:
    """Show which source token each target token looked at."""
    _import_quietly()
    found = _loaded(model).attend(text)
    if png:
        found.plot(png)
    if html:
        html.write_text(f'<!doctype html>\n<meta charset="utf-8">\n{found.to_html()}\n', "utf-8")
    if json:
        shown = found._asdict() | {"matrix": found.matrix.round(4).tolist()}
        typer.echo(jsons.dumps(shown, ensure_ascii=False))
        return
    _show_alignments(found)


# === Recipes ===

UNMADE = ("seeds", "decoding")  # what of a recipe a run does not depend on
BESIDE_RECIPE = ("architecture", "out", "seed", "model", "data_dir", "json")


def _refuse_beside_recipe(context):
    beside = {*BESIDE_RECIPE, *(["data"] if "model" in context.params else [])}
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in beside and source is not None and source.name == "COMMANDLINE":
            shown = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
            raise Stop(f"{shown}: a recipe says that itself; change it there.")


def _train_recipe(file, out, seed, data_dir, json):
    """Train by a recipe, and show what the best epoch reaches."""
    _import_quietly()
    _use_all_cores()
    from keras_attn import recipes, training

    recipe = recipes.read(file)
    made = {key: value for key, value in recipe._asdict().items() if key not in UNMADE}
    settings = {"recipe": made, "seed": seed}
    _refuse_other_run(out, settings)
    recipes.pairs_of(recipe, data_dir, seed)  # raises before anything is written
    _note_run(out, settings | {"decoding": recipe.decoding})
    _, found = recipes.run(recipe, out, seed, data_dir, [training.Progress()])
    if json:
        typer.echo(jsons.dumps(found))
        return
    _show_measured(found["measured"])
    typer.echo(f"saved {out / 'model.keras'}, best epoch {found['best_epoch']}")


def _evaluate_by_recipe(model, file, data_dir, seed, json):
    """Measure a model as its recipe does, and show what was found."""
    _import_quietly()
    from keras_attn import recipes

    recipe = _recipe_of(model) if file is None else recipes.read(file)
    seed = _seed_of(recipe, model, seed)
    asked, cleaning, whole = _evaluated(model, in_full_precision=True)
    if whole != (recipes.tokens_of(recipe, "target") is list):
        kinds = ("characters", "words") if whole else ("words", "characters")
        raise Stop(f"{model} writes {kinds[0]}, and the targets of the recipe are {kinds[1]}.")
    _, held_out = recipes.pairs_of(recipe, data_dir, seed)
    with _bar("generating", len(set(held_out.sources))) as advance:
        found = recipes.measured(asked, cleaning, held_out, recipe, advance)
    if json:
        typer.echo(jsons.dumps(found))
        return
    _show_measured(found)


def _recipe_of(model):
    """Return the recipe that a run was made by, with the decoding that it said then."""
    from keras_attn import recipes

    file = _run_of(model)
    noted = _read_json(file) if file.exists() else {}
    if "decoding" not in noted:
        raise Stop(
            f"DATA: expected {', '.join(DATASETS)}, a file of pairs, or a recipe, such as "
            f"zoo/attention.dates/recipe.toml; {model} is no run that notes its recipe."
        )
    if not {"recipe", "seed"} <= set(noted):
        raise Stop(f"{file} is damaged: it has no recipe and seed.")
    seeds = {"seeds": [noted["seed"]], "decoding": noted["decoding"]}
    return recipes.checked(noted["recipe"] | seeds)


def _run_of(model):
    """Return the file that says how a run was made, if a model is in a run's folder."""
    return (model if model.is_dir() else model.parent) / "run.json"


def _read_json(file):
    """Return what a file of ours holds, a dict."""
    return _json_of(file.read_text("utf-8"), file)


def _json_of(text, file):
    """Return the dict that the text of a file of ours is."""
    try:
        found = jsons.loads(text)
    except ValueError as error:
        raise Stop(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise Stop(f"{file} is damaged: expected a dict, got {type(found).__name__}.")
    return found


def _seed_of(recipe, model, seed):
    """Return the seed of a run, which decides what it was trained on, if the data goes by it."""
    from keras_attn import recipes

    if recipes.OF_SEED not in recipe.data_options.values():
        return recipe.seeds[0] if seed is None else seed
    file = _run_of(model)
    of_run = _read_json(file).get("seed") if file.exists() else seed
    if of_run is None:
        raise Stop("--seed: the data of this recipe goes by the seed of the run; give that.")
    if seed not in (None, of_run):
        raise Stop(f"--seed: {model} was trained on what seed {seed} holds out; it is of {of_run}.")
    return of_run


def _show_measured(found):
    for key in ("exact_match", "sequence_error_rate", "token_error_rate"):
        typer.echo(f"{key.replace('_', ' ') + ':':22} {found[key]:.2%}")
    for key in ("bleu", "chrf"):
        if key in found:
            typer.echo(f"{key + ':':22} {found[key]:.2f}  {found[key + '_signature']}")


# === Data and models ===


def _newest(path):
    """Return the newest version in a folder of versions, or else the path."""
    from keras_attn.serving.publishing import newest

    return newest(path)


def _training_data(data, validation, split, columns, data_dir):
    """Return the pairs to train on and those to choose by."""
    if data in DATASETS:
        if validation or columns:
            raise Stop(f"--validation and --columns go with files; {data!r} brings its own parts.")
        found = _dataset(data, data_dir)
        about = _about(data)
        _tell(f"{about.title}; {about.licence}")
        return found.train, found.validation
    from keras_attn import datasets

    pairs = datasets.pairs(_file(data), columns=columns)
    if validation:
        if validation in DATASETS:
            raise Stop(f"--validation: expected a file, got the data set {validation!r}.")
        return pairs, datasets.pairs(_file(validation), columns=columns)
    try:
        return datasets.split(pairs, split)
    except ValueError as error:
        raise Stop(f"{data}, --validation-split {split}: {error}") from error


def _held_out(data, columns, data_dir):
    """Return the pairs that `evaluate` scores."""
    from keras_attn import datasets

    if data not in DATASETS:
        return datasets.pairs(_file(data), columns=columns)
    found = _dataset(data, data_dir)
    return getattr(found, "test", found.validation)


def _dataset(name, data_dir):
    from keras_attn import datasets

    if name == "dates" and data_dir:
        raise Stop(f"--data-dir: {name!r} is generated, not read.")
    given = {"directory": data_dir} if data_dir else {}
    return getattr(datasets, name).load(**given)


def _about(name):
    from keras_attn import datasets

    return getattr(datasets, name).ABOUT


def _file(path):
    if not Path(path).exists() and not Path(path).suffix:
        raise Stop(f"{path!r} is neither a data set ({', '.join(DATASETS)}) nor a file.")
    return path


def _columns(given):
    if given is None:
        return None
    parts = given.split(",")
    if len(parts) != 2 or not all(parts):
        raise Stop(f"--columns: expected two names or numbers, such as word,phones; got {given!r}.")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _digest(*parts):
    import hashlib

    return hashlib.sha256(jsons.dumps(parts).encode()).hexdigest()


def _refuse_other_run(out, settings):
    """Raise unless a folder is new, or holds a run of the same settings."""
    if (out / "state.npz").exists():
        if not (out / "run.json").exists():
            raise Stop(f"--out: {out} holds a run that this command did not make; give another.")
        before = _read_json(out / "run.json")
        names = [key for key in settings if key not in ("data", "validation", "data_dir")]
        changed = [key for key in names if before.get(key) != settings[key]]
        for key, what in (("data_sha256", "on other data"), ("recipe", "of another recipe")):
            if changed == [key]:
                raise Stop(f"--out: {out} holds a run {what}; give another folder.")
        if changed:
            was = ", ".join(
                f"{key} {before.get(key)} -> {settings[key]}"
                for key in changed
                if key != "data_sha256"
            )
            raise Stop(f"--out: {out} holds another run ({was}); give another folder.")
    elif out.exists() and not (out / "run.json").exists():
        if not out.is_dir() or any(out.iterdir()):
            raise Stop(f"--out: {out} exists and holds no run; give another folder.")


def _note_run(out, settings):
    """Write what a run is of, unless another process trains there."""
    from keras_attn.training import locks

    with locks.alone(out):
        aside = out / ".run.json"
        aside.write_text(jsons.dumps(settings, indent=1) + "\n")
        os.replace(aside, out / "run.json")


def _tokenisers(data, pairs, settings):
    """Learn the tokenisers of sources and targets."""
    kinds = [
        settings[f"{side}_tokeniser"] or default
        for side, default in zip(
            ("source", "target"), DATASETS.get(data, ("character", "character")), strict=True
        )
    ]
    sizes = settings["source_vocabulary"], settings["target_vocabulary"]
    cleaning = {key: settings[key] for key in ("lowercase", "nfkc", "casefold")}
    if data == "cmudict":
        cleaning["lowercase"] = True  # its words are
    if not settings["joint"]:
        return (
            _learnt(kinds[0], pairs.sources, sizes[0], cleaning),
            _learnt(kinds[1], pairs.targets, sizes[1], {}),
        )
    if settings["target_tokeniser"] not in (None, kinds[0]) or sizes[1] is not None:
        raise Stop("--joint: there is one tokeniser; set that of the source alone.")
    both = _learnt(kinds[0], [*pairs.sources, *pairs.targets], sizes[0], cleaning)
    return both, both


def _learnt(kind, texts, size, cleaning):
    from keras_attn import text

    given = {} if size is None else {"vocabulary_size": size}
    return text.KINDS[kind].learn(texts, **given, **cleaning)


def _assignments(given):
    """Turn ["units=128"] into {"units": 128}; values are JSON, or else text."""
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise Stop(f"--option: expected name=value, such as units=128, got {item!r}.")
        if name in ("name", "source", "target", "weights"):
            raise Stop(f"--option: {name} is no option of an architecture; see docs/options.md.")
        with contextlib.suppress(ValueError):
            value = jsons.loads(value.lower() if value in ("True", "False") else value)
        found[name] = value
    return found


def _built(architecture, source, target, options):
    from keras_attn import zoo

    return zoo.build(architecture, source=source, target=target, **options)


def _evaluated(path, in_full_precision=False):
    """Return what generates, the cleaning of targets, and whether these are of characters."""
    from keras_attn import text

    exported = _newest(path)
    if not (exported / "saved_model.pb").exists():
        loaded = _loaded(path)
        loaded = loaded.in_full_precision() if in_full_precision else loaded
        whole = isinstance(loaded.target, text.CharacterTokenizer | text.ByteTokenizer)
        return loaded.generate, loaded.target.cleaning, whole
    from keras_attn.serving import Client, ServerError, checking
    from keras_attn.text.cleaning import Cleaning

    told = checking.beside(exported, "keras_attn.json")
    described = _json_of(told, f"keras_attn.json of {exported}")
    about = described["vocabularies"]["target"]
    try:
        client = Client(exported.absolute().as_uri(), "")
    except ServerError as error:  # such as weights that were cut off
        raise Stop(f"{exported} does not load; is it whole? {error.message}") from error

    def generate(sources, **options):
        if "coverage_penalty" in options:
            raise Stop("--coverage-penalty: exported models have none; give the .keras file.")
        if options.get("beam_size", 1) > described["beam_size"]:  # which a server would clamp
            raise Stop(
                f"--beam-size: {exported} was exported with a beam of {described['beam_size']}, "
                f"got {options['beam_size']}."
            )
        return client.generate(sources, **options)

    whole = about["tokeniser"] in ("CharacterTokenizer", "ByteTokenizer")
    return generate, Cleaning(**about["cleaning"]), whole


def _loaded(path):
    """Return the model of a file, of a run's folder, or of the package."""
    if path.is_dir():
        if (_newest(path) / "saved_model.pb").exists():
            raise Stop(f"{path} is an exported model; give the .keras file or the run's folder.")
        if not (path / "model.keras").exists():
            raise Stop(f"{path} holds no model.keras; has its training ended?")
        path = path / "model.keras"
    from keras_attn import Seq2Seq, zoo  # registers what a file is made of

    if path.exists():
        model = _read_model(path)
    elif str(path) in (trained := zoo.names(weights=True)):
        model = zoo.build(str(path))
    else:
        raise Stop(f"{path}: no such file or folder; trained models are {', '.join(trained)}.")
    if not isinstance(model, Seq2Seq) or isinstance(model.source, int):
        raise Stop(f"{path} holds no model with tokenisers, but {type(model).__name__}.")
    _warm(model.source, model.target)
    return model


def _read_model(path):
    """Return what a file of Keras holds."""
    import keras

    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise Stop(f"{path} is no .keras file, or a damaged one.")
    return keras.saving.load_model(path, compile=False)


def _import_quietly():
    """Import the library: TensorFlow's own write about the machine while they look at it."""
    with _standard_error_aside():
        import tensorflow as tf

        import keras_attn  # noqa: F401

        tf.config.list_physical_devices()


def _use_all_cores():
    """Split training batches over the cores, unless a GPU takes them or TensorFlow runs already."""
    import tensorflow as tf

    import keras_attn

    if not tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            keras_attn.configure_cpu()


def _warm(*tokenisers):
    """Use tokenisers once: tensorflow-text writes of a SentencePiece model when it is loaded."""
    with _standard_error_aside():
        for tokeniser in tokenisers:
            tokeniser.tokenize(["a"])


# === Lines in, lines out ===


def _lines(file):
    """Yield the lines of a file, or of standard input, without their ends, as bytes."""
    if file is not None and str(file) != "-":
        with file.open("rb") as lines:
            yield from (line.rstrip(b"\r\n") for line in lines)
        return
    if file is None and sys.stdin.isatty():
        _tell("reading sources from the keyboard, one a line; end with Ctrl-D")
    yield from (line.rstrip(b"\r\n") for line in sys.stdin.buffer)


def _text(source):
    return source.decode("utf-8", "replace") if isinstance(source, bytes) else source


def _shortened(text):
    return text if len(text) <= 60 else text[:57] + "..."


def _tell(message):
    typer.echo(message, err=True)


@contextlib.contextmanager
def _standard_error_aside():
    """Hold back what libraries write to standard error, but not if they raise or --debug is on."""
    if "--debug" in sys.argv:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _bar(description, total):
    """Show a progress bar on standard error, and give the function that moves it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)


def _show_alignments(found):
    """Print alignments as a table: percent, on a ground the darker the more."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(_visible(token) for token in found.source_tokens), padding=(0, 0))
    for token, row in zip(found.target_tokens, found.matrix.tolist(), strict=True):
        cells = []
        for value in row:
            red, green, blue = (round(255 - value * (255 - full)) for full in (8, 81, 156))
            ink = "white" if value > 0.5 else "black"
            cells.append(f"[{ink} on rgb({red},{green},{blue})]{100 * value:3.0f}[/]")
        table.add_row(_visible(token), *cells)
    Console().print(table)


def _visible(token):
    from rich.markup import escape

    return escape("␣" if token == " " else token)


def main() -> None:
    """Run the command line; errors that a user can mend are one line.

    Exit codes: 0 done, 1 differences found by `check`, a fault of ours or a broken pipe, 2
    something to mend, 130 interrupted.
    """
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    arguments = [argument for argument in given[:end] if argument != "--debug"] + given[end:]
    if not debug:
        warnings.showwarning = _warn
    try:
        app([*["--debug"] * debug, *arguments])
    except (Stop, ImportError, OSError, TypeError, ValueError, FloatingPointError) as error:
        if debug:
            raise
        _fail(" ".join(str(error).split()), 2)
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)", 1)


def _fail(message, code):
    for python, flag in (("`columns=`", "--columns"), ("give overwrite=True", "give --overwrite")):
        message = message.replace(python, flag)
    _tell(f"keras-attn: {message}")
    sys.exit(code)


_warned: set[str] = set()


def _warn(message, category, *place):
    """Show a warning in one line, and once, whatever numbers it has."""
    text = " ".join(str(message).split())
    kind = "".join(character for character in text if not character.isdigit())
    if kind not in _warned:
        _warned.add(kind)
        _tell(f"keras-attn: warning: {text}")


if __name__ == "__main__":
    main()
