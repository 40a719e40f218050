"""The command line."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import keras_attn_cli
from keras_attn import recipes
from keras_attn.datasets import dates
from keras_attn.serving import publishing
from keras_attn.training import locks

ZOO = Path(__file__).parent.parent / "zoo"
WORDS = ["cat", "act", "tack", "at", "kit", "tick", "kick", "taka", "itta", "aki"]
SAID = {"c": "K", "k": "K", "a": "AE", "t": "T", "i": "IH"}
PAIRS = [(word, " ".join(SAID[letter] for letter in word)) for word in WORDS]
CHEAP = ["-o", "size=tiny", "-o", "cell=simple_rnn", "-o", "bidirectional=false"]
SMALL = [*CHEAP, "--epochs", "3", "--target-tokeniser", "whitespace"]


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the command line, and return its exit code, output and error."""

    def call(*arguments, typed=None):
        monkeypatch.setattr(sys, "argv", ["keras-attn", *map(str, arguments)])
        if typed is not None:
            lines = SimpleNamespace(buffer=io.BytesIO(typed), isatty=lambda: False)
            monkeypatch.setattr(sys, "stdin", lines)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            keras_attn_cli.main()
        out, error = capfd.readouterr()
        return SimpleNamespace(code=stopped.value.code or 0, out=out, error=error)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `pairs.tsv` and a trained `run`."""
    folder = tmp_path_factory.mktemp("a folder")
    rows = "".join(f"{word}\t{phones}\n" for word, phones in PAIRS * 3)
    (folder / "pairs.tsv").write_text(rows)
    arguments = ["train", "attention", folder / "pairs.tsv", "--out", folder / "run", *SMALL]
    command = [sys.executable, "-m", "keras_attn_cli", *map(str, arguments)]
    root = str(Path(keras_attn_cli.__file__).parent)
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    (folder / "train.out").write_text(done.stdout)
    (folder / "train.err").write_text(done.stderr)
    return folder


def test_names(call):
    found = call("names", "context*")
    assert found.out.split() == ["context_as_init", "context_every_step"]
    assert json.loads(call("names", "context*", "--json").out) == found.out.split()
    assert "no architecture matches 'x*'" in call("names", "x*").error


def test_card(call):
    assert "arXiv:1406.1078" in call("card", "combined").out
    assert json.loads(call("card", "combined", "--json").out)["options"]["units"] == 256


def test_doctor(call):
    told = call("doctor").out
    found = json.loads(call("doctor", "--json").out)
    assert [finding["name"] for finding in found][:2] == ["GPU", "cores"]
    for finding in found:
        assert finding["found"] in told and finding["advice"] in told


def test_help_imports_no_tensorflow():
    code = (
        "import sys, keras_attn_cli\n"
        "for arguments in (['--help'], ['train', '--help']):\n"
        "    try: keras_attn_cli.app(arguments)\n"
        "    except SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'keras_attn', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_top_imports_nothing_heavy():
    tree = ast.parse(Path(keras_attn_cli.__file__).read_text())
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in top for a in n.names} | {getattr(n, "module", "") for n in top}
    assert not any(name and name.startswith("keras_attn") for name in names)


def test_choices_are_those_of_the_library():
    from keras_attn import datasets, text
    from keras_attn.training import runs

    assert [kind.value for kind in keras_attn_cli.Kind] == list(text.KINDS)
    assert [monitor.value for monitor in keras_attn_cli.Monitor] == list(runs.MONITORS)
    assert all(hasattr(datasets, name) for name in keras_attn_cli.DATASETS)


def test_train_tells_what_it_does(folder):
    error, out = (folder / "train.err").read_text(), (folder / "train.out").read_text()
    assert "27 pairs to train on, 3 to choose by" in error
    assert error.count("val loss") == 3
    assert "next: keras-attn generate" in out and "model.keras" in out
    assert (folder / "run" / "model.keras").exists()


def test_the_same_command_again_is_done_at_once(call, folder):
    before = (folder / "run" / "state.npz").read_bytes()
    arguments = ["train", "attention", folder / "pairs.tsv", "--out", folder / "run", *SMALL]
    found = call(*arguments, "--json")
    assert found.code == 0, found.error
    shown = json.loads(found.out)
    assert len(shown["log"]) == 3 and shown["best"] in shown["log"]
    assert (folder / "run" / "state.npz").read_bytes() == before


def test_another_run_in_the_folder_is_refused(call, folder):
    arguments = ["train", "attention", folder / "pairs.tsv", "--out", folder / "run", *SMALL]
    found = call(*arguments, "--seed", "5")
    assert found.code == 2 and found.error.count("\n") == 1
    assert "holds another run (seed 0 -> 5); give another folder" in found.error
    assert call(*arguments[:3], "--out", folder).code == 2


def test_generate_keeps_order(call, folder, tmp_path):
    run = folder / "run"
    lines = [*WORDS * 30, "", "tack"]
    (tmp_path / "words.txt").write_bytes("\r\n".join(lines).encode())
    by_file = call("generate", run, "--file", tmp_path / "words.txt")
    assert by_file.code == 0 and by_file.error == ""
    by_pipe = call("generate", run, typed="\n".join(lines).encode())
    assert by_pipe.out == by_file.out
    answers = by_file.out.split("\n")[:-1]
    assert len(answers) == len(lines) and answers[-2] == ""
    few = call("generate", run / "model.keras", *WORDS, "--json")
    shown = [json.loads(line) for line in few.out.splitlines()]
    assert [one["source"] for one in shown] == WORDS
    assert [one["target"] for one in shown] == answers[: len(WORDS)]
    assert all(one["score"] < 0 for one in shown)


def test_what_is_too_long_is_told_once_in_one_line(call, folder, monkeypatch):
    monkeypatch.setattr(keras_attn_cli, "_warned", set())
    monkeypatch.setattr("warnings.showwarning", None)  # main sets it
    long = [letter * 100 for letter in "cat"] + ["cat"]
    found = call("generate", folder / "run", *long)
    (told,) = [line for line in found.error.splitlines() if line.startswith("keras-attn")]
    assert told.startswith("keras-attn: warning: 3 of 4 sources were longer than")
    assert len(found.out.splitlines()) == 4


def test_references_are_cleaned_as_targets_are(call, folder, tmp_path):
    loud = "".join(f"{word.upper()}\t{word.upper()}\n" for word in WORDS * 20)
    (tmp_path / "loud.tsv").write_text(loud)
    out = tmp_path / "run"
    arguments = ["--joint", "--lowercase", "-o", "size=tiny", "--epochs", "10", "--average", "0"]
    arguments += ["--learning-rate", "0.02", "--validation", tmp_path / "loud.tsv"]
    arguments += ["--batch-size", "16"]
    done = call("train", "attention", tmp_path / "loud.tsv", "--out", out, *arguments, "--json")
    best = json.loads(done.out)["best"]["val_exact_match"]
    found = json.loads(call("evaluate", out, tmp_path / "loud.tsv", "--json").out)
    assert found["exact_match"] == pytest.approx(best) and best > 0.5


def test_trained_models_of_the_package_are_taken_by_name(call):
    found = call("generate", "attention.dates", "29. Mai 1975", "mercredi 3 juin 1987")
    assert (found.code, found.out) == (0, "1975-05-29\n1987-06-03\n"), found.error


def test_generate_takes_any_bytes(call, folder):
    found = call("generate", folder / "run", "--json", typed=b"\xff\xfe\x00a\n\xf0\x9f\x98\x80\n")
    assert found.code == 0 and len(found.out.splitlines()) == 2


def test_generate_takes_the_options_of_a_search(call, folder, tmp_path, monkeypatch):
    run = folder / "run"
    beams = call("generate", run, *WORDS, "--beam-size", "3", "--num-return", "2")
    rows = [line.split("\t") for line in beams.out.splitlines()]
    assert [source for source, _, _ in rows] == [word for word in WORDS for _ in range(2)]
    best = call("generate", run, *WORDS, "--beam-size", "3").out.splitlines()
    assert [target for _, _, target in rows[::2]] == best
    several = call("generate", run, "cat", "--beam-size", "3", "--num-return", "2", "--json")
    targets = json.loads(several.out)["targets"]
    assert [t["target"] for t in targets] == [target for _, _, target in rows[:2]]
    draw = ["generate", run, *WORDS, "--temperature", "1.5", "--seed", "4"]
    drawn = call(*draw).out
    monkeypatch.setattr(keras_attn_cli, "LINES", 3)
    assert call(*draw).out == drawn  # whatever the batches
    (tmp_path / "allowed.txt").write_text("K AE T\nT AE K\n")
    member = call("generate", run, *WORDS, "--allowed", tmp_path / "allowed.txt")
    assert set(member.out.splitlines()) <= {"K AE T", "T AE K"}
    ruled = call("generate", run, "cat", "--prefix", "T", "--banned", "AE", "--min-length", "3")
    assert ruled.out.startswith("T ") and "AE" not in ruled.out
    never = ["--allowed", tmp_path / "allowed.txt", "--banned", "AE", "--json"]
    assert json.loads(call("generate", run, "cat", *never).out)["score"] is None
    wrong = call("generate", run, "cat", "--beam-size", "2", "--temperature", "1")
    assert wrong.code == 2 and "a beam keeps the best hypotheses" in wrong.error


def test_evaluate(call, folder, tmp_path):
    from keras_attn import scoring

    found = json.loads(call("evaluate", folder / "run", folder / "pairs.tsv", "--json").out)
    said = call("generate", folder / "run", *WORDS).out.splitlines()
    expected = scoring.sequence_scores(said, [[phones] for _, phones in PAIRS])
    assert found == {"sources": 10, "tokens": "words", **expected}
    beam = ["--beam-size", "3", "--length-penalty", "0.5", "--json"]
    found = json.loads(call("evaluate", folder / "run", folder / "pairs.tsv", *beam).out)
    said = call("generate", folder / "run", *WORDS, *beam[:-1]).out.splitlines()
    assert (
        found["exact_match"]
        == scoring.sequence_scores(said, [[p] for _, p in PAIRS])["exact_match"]
    )
    several = "".join(f"{word}\t{phones}\n{word}\tX\n" for word, phones in PAIRS)
    (tmp_path / "several.tsv").write_text(several)
    again = call("evaluate", folder / "run", tmp_path / "several.tsv", "--bleu")
    assert "chrf signature:" in again.out and "sources:               10" in again.out


RECIPE = """
architecture = "attention"
data = "dates"
seeds = [0]
source = { tokeniser = "character" }
target = { tokeniser = "character" }
options = { size = "tiny", cell = "simple_rnn", bidirectional = false }
training = { epochs = 1 }
"""


def test_train_by_a_recipe(call, tmp_path, monkeypatch):
    load = dates.load
    monkeypatch.setattr(dates, "load", lambda: load(64, 8, 8, locales=["en_US"]))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    given = ("train", recipe, "--out", tmp_path / "run")
    found = call(*given, "--json")
    assert found.code == 0 and json.loads(found.out)["measured"]["sources"] == 8, found.error
    assert (tmp_path / "run" / "model.keras").exists()
    measured = json.loads(found.out)["measured"]
    assert json.loads(call("evaluate", tmp_path / "run", recipe, "--json").out) == measured
    assert (
        f"exact match:           {measured['exact_match']:.2%}" in call(*given).out
    )  # there already
    assert json.loads(call("evaluate", tmp_path / "run", "--json").out) == measured
    found = call("evaluate", tmp_path / "run", recipe, "--beam-size", "3")
    assert found.code == 2 and "--beam-size: a recipe says that itself" in found.error
    for others, message in (
        (("--epochs", "3"), "--epochs: a recipe says that itself"),
        (("dates",), "DATA: a recipe says that itself"),
        (("--seed", "1"), "holds another run"),
    ):
        found = call(*given, *others)
        assert found.code == 2 and message in found.error, found.error
    recipe.write_text(RECIPE.replace("tiny", "small"))
    assert "holds a run of another recipe" in call(*given).error
    recipe.write_text(RECIPE.replace("epochs", "epoch"))
    assert "Did you mean 'epochs'" in call(*given).error
    assert "--out: expected" in call("train", recipe).error
    assert "DATA: expected" in call("train", "attention", "--out", tmp_path / "other").error
    assert "its recipe is" in call("train", tmp_path, "--out", tmp_path / "other").error
    words = RECIPE.replace(
        'target = { tokeniser = "character"', 'target = { tokeniser = "whitespace"'
    )
    recipe.write_text(words)
    found = call("evaluate", tmp_path / "run", recipe)
    assert found.code == 2 and "writes characters, and the targets" in found.error
    recipe.write_text(RECIPE)
    noted = tmp_path / "run" / "run.json"
    whole = noted.read_text()
    noted.write_text('{"decoding": {}}')
    found = call("evaluate", tmp_path / "run")
    assert found.code == 2 and "run.json is damaged: it has no recipe and seed" in found.error
    for damaged in (whole[:40], "[]"):
        noted.write_text(damaged)
        for found in (call(*given), call("evaluate", tmp_path / "run")):
            assert found.code == 2 and "run.json is damaged: " in found.error, found.error
    noted.unlink()
    assert "holds a run that this command did not make" in call(*given).error
    found = call("evaluate", tmp_path / "run")
    assert found.code == 2 and "is no run that notes its recipe" in found.error
    (tmp_path / "run" / "model.keras").write_text("PK")
    found = call("evaluate", tmp_path / "run", recipe)
    assert found.code == 2 and "model.keras is no .keras file, or a damaged one" in found.error


def test_what_cannot_be_trained_leaves_no_note_of_a_run(call, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    for folder in ("first", "other"):
        (tmp_path / folder).mkdir()
    noted = tmp_path / "first" / "run.json"
    noted.write_text("{}")
    given = "train", recipe, "--out"
    with locks.alone(tmp_path / "first"):
        found = call(*given, tmp_path / "first", "--seed", "4")
    assert found.code == 2 and "another process trains there" in found.error
    assert noted.read_text() == "{}"
    found = call(*given, tmp_path / "new", "--data-dir", tmp_path)
    assert found.code == 2 and "directory: " in found.error
    assert not (tmp_path / "new").exists()


def test_what_a_fold_was_trained_on_does_not_measure_it(tmp_path):
    by_fold = recipes.read(ZOO / "attention.geo880" / "recipe.toml")
    with pytest.raises(keras_attn_cli.Stop, match="--seed: the data of this recipe goes by"):
        keras_attn_cli._seed_of(by_fold, tmp_path, None)
    assert keras_attn_cli._seed_of(by_fold, tmp_path, 3) == 3
    (tmp_path / "run.json").write_text('{"seed": 2}')
    assert [keras_attn_cli._seed_of(by_fold, tmp_path, seed) for seed in (None, 2)] == [2, 2]
    with pytest.raises(keras_attn_cli.Stop, match="what seed 3 holds out; it is of 2"):
        keras_attn_cli._seed_of(by_fold, tmp_path, 3)
    with pytest.raises(keras_attn_cli.Stop, match="what seed 3 holds out; it is of 2"):
        keras_attn_cli._seed_of(by_fold, tmp_path / "model.keras", 3)
    plain = recipes.read(ZOO / "attention.dates" / "recipe.toml")
    assert [keras_attn_cli._seed_of(plain, tmp_path, seed) for seed in (None, 1)] == [0, 1]


def test_export(call, folder, tmp_path):
    served = [str(tmp_path / "served" / version) for version in "12"]
    Path(served[0]).mkdir(parents=True)
    Path(served[0], "saved_model.pb").touch()
    found = call("export", folder / "run", tmp_path / "served", "--keep", "1", "--json")
    said = {"path": served[1], "needs_tf_text": False, "removed": served[:1]}
    assert json.loads(found.out) == said
    assert Path(served[1], "saved_model.pb").exists() and not Path(served[0]).exists()
    found = call("inspect", served[1])
    assert "served: seq2seq, RNN kernel cpu" in found.out and "ids: source_ids" in found.out
    inspected = json.loads(call("inspect", served[1], "--json").out)
    about = inspected["about"]
    assert about["name"] == "served" and not inspected["pinned"] and inspected["weights"]
    assert {"op", "dtypes", "kind", "looped", "nodes"} == set(inspected["operations"]["ids"][0])
    here, there = (
        json.loads(call("evaluate", path, folder / "pairs.tsv", "--beam-size", "3", "--json").out)
        for path in (folder / "run", tmp_path / "served")
    )
    assert here == there
    found = call("evaluate", served[1], folder / "pairs.tsv", "--coverage-penalty", "1")
    assert found.code == 2 and "exported models have none" in found.error
    found = call("evaluate", served[1], folder / "pairs.tsv", "--beam-size", "6")
    assert found.code == 2 and "was exported with a beam of 5, got 6" in found.error
    of_base = json.loads(call("inspect", tmp_path / "served", "--json").out)
    assert of_base["about"] == about  # the newest of its versions
    found = call("inspect", tmp_path)
    assert found.code == 2 and "there is no saved_model.pb" in found.error
    older = ("--version", "1", "--keep", "1")
    found = call("export", folder / "run", tmp_path / "served", *older)
    assert found.code == 2 and "--keep: 1 would remove version 1 itself" in found.error
    found = call("export", folder / "run", tmp_path / "served", "--version", "2")
    assert found.code == 2 and "exists" in found.error
    found = call("generate", tmp_path / "served" / "2", "cat")
    assert found.code == 2 and "is an exported model" in found.error
    weights = next(Path(served[1], "variables").glob("*.data-*"))
    weights.write_bytes(weights.read_bytes()[:-100])
    found = call("evaluate", served[1], folder / "pairs.tsv")
    assert found.code == 2 and f"{served[1]} does not load; is it whole?" in found.error


def test_an_export_takes_the_next_number_if_another_took_its_own(
    call, folder, tmp_path, monkeypatch
):
    served = tmp_path / "served"
    (served / "1").mkdir(parents=True)
    (served / "1" / "saved_model.pb").touch()
    numbers = iter("12")  # 1 was not there when it was asked for
    monkeypatch.setattr(publishing, "next_version", lambda base: base / next(numbers))
    found = call("export", folder / "run", served)
    assert (found.code, found.out) == (0, f"saved {served / '2'}\n"), found.error


def test_export_for_another_runtime(call, folder, tmp_path, monkeypatch):
    found = call("export", folder / "run", tmp_path / "lite", "--format", "litert")
    assert found.code == 0 and found.out == f"saved {tmp_path / 'lite' / '1'}\n", found.error
    assert (tmp_path / "lite" / "1" / "encode.int8.tflite").exists()
    found = call("export", folder / "run", tmp_path / "lite")
    assert found.code == 2 and "holds versions for litert, beside which one for tens" in found.error
    assert os.listdir(tmp_path / "lite") == ["1"]
    found = call("export", folder / "run", tmp_path / "2", "--format", "litert", "--beam-size", "3")
    assert "beam_size: format 'litert' has none, got 3" in found.error
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    found = call("export", folder / "run", tmp_path / "other", "--format", "onnx")
    assert found.code == 2 and "pip install tf2onnx" in found.error


def test_serve_and_check(call, folder, tmp_path):
    """A server in a process of its own, asked and stopped as on a terminal."""
    path = tmp_path / "letters" / "1"
    assert call("export", folder / "run", path.parent).code == 0
    command = [sys.executable, "-m", "keras_attn_cli", "serve", path.parent]
    command += ["--rest-port", "0", "--grpc-port", "0"]
    env = {**os.environ, "PYTHONPATH": str(Path(keras_attn_cli.__file__).parent)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("REST "):
                break
        assert process.poll() is None, lines
        assert "serving version 1 of 'letters'\n" in lines
        rest, also = lines[-1].removeprefix("REST ").split(", gRPC ")
        for url in (rest.rpartition("/v1")[0], f"grpc://{also.strip()}"):
            found = call("check", url, path)
            assert (found.code, found.out) == (0, ""), found.error
            assert "10 golden answers, 0 differences, 0 ties" in found.error
        golden = path / "assets.extra" / "golden.jsonl"
        url, rows = rest.rpartition("/v1")[0], golden.read_text("utf-8").splitlines()
        for gap, tolerance, code, counted in (
            (1e-6, "1e-5", 0, "0 differences, 2 ties"),
            (1e-3, "1e-3", 0, "0 differences, 2 ties"),
            (1e-3, "1e-5", 1, "2 differences, 0 ties"),
            (None, "1e-5", 1, "2 differences, 0 ties"),
            (1e-6, "0", 2, "tolerance: expected a positive number"),
        ):
            other = json.loads(rows[3]) | {"target": "other", "target_ids": [2], "gap": gap}
            golden.write_text("\n".join([*rows[:3], json.dumps(other), *rows[4:]]), "utf-8")
            found = call("check", url, path, "--tolerance", tolerance)
            assert found.code == code and counted in found.error, found.error
        golden.write_text("\n".join(rows).replace('"score": -', '"score": -1'), "utf-8")
        found = call("check", url, path)
        assert found.code == 1 and "score of texts: expected -1" in found.out
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and "stopping" in process.stderr.read()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        lines = iter(process.stderr.readline, "")
        line = next(line for line in lines if line.startswith("REST "))
        port = int(re.search(r":(\d+)/", line)[1])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /v1/models/letters:predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
            time.sleep(0.5)  # until it is under way
            process.send_signal(signal.SIGTERM)
            assert "stopping; once more ends it" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == -signal.SIGTERM
    found = call("check", rest.rpartition("/v1")[0], path)
    assert found.code == 2 and "UNAVAILABLE" in found.error
    found = call("serve", tmp_path)
    assert found.code == 2 and "there is no exported model" in found.error


def test_attend(call, folder, tmp_path):
    found = json.loads(call("attend", folder / "run", "tack", "--json").out)
    assert found["source_tokens"] == ["t", "a", "c", "k", "</s>"]
    assert len(found["matrix"]) == len(found["target_tokens"])
    files = tmp_path / "a.png", tmp_path / "a.html"
    shown = call("attend", folder / "run", "a[b]", "--png", files[0], "--html", files[1])
    assert shown.code == 0 and "<unk>" in shown.out
    assert files[0].read_bytes()[:4] == b"\x89PNG" and "<table" in files[1].read_text()


REFUSED = {
    "a name misspelt": (["card", "atention"], "Did you mean 'attention'"),
    "no data": (["train", "attention", "cmudcit", "--out", "x"], "neither a data set (cmudict,"),
    "no file": (["train", "attention", "no.tsv", "--out", "x"], "no.tsv"),
    "no model": (
        ["generate", "nothing", "a"],
        "nothing: no such file or folder; trained models are attention.",
    ),
    "an option without a value": (
        ["train", "attention", "{pairs}", "--out", "x", "-o", "units"],
        "--option: expected name=value, such as units=128, got 'units'",
    ),
    "an unknown option": (
        ["train", "attention", "{pairs}", "--out", "x", "-o", "unit=3"],
        "unknown option 'unit'",
    ),
    "columns": (
        ["train", "attention", "{pairs}", "--out", "x", "--columns", "a"],
        "--columns: expected two names or numbers",
    ),
    "a split of all": (
        ["train", "attention", "{pairs}", "--out", "x", "--validation-split", "1.5"],
        "--validation-split 1.5: fraction: expected a number between 0 and 1",
    ),
    "a file beside arguments": (
        ["generate", "{run}", "a", "--file", "{pairs}"],
        "not both",
    ),
    "validation of a data set": (
        ["train", "attention", "dates", "--out", "x", "--validation", "{pairs}"],
        "go with files",
    ),
    "a vocabulary as an option": (
        ["train", "attention", "{pairs}", "--out", "x", "-o", "source=8"],
        "--option: source is no option of an architecture",
    ),
    "validation on a data set": (
        ["train", "attention", "{pairs}", "--out", "x", "--validation", "cmudict"],
        "--validation: expected a file, got the data set 'cmudict'",
    ),
    "two tokenisers in one": (
        ["train", "attention", "{pairs}", "--out", "x", "--joint", "--target-tokeniser", "byte"],
        "--joint: there is one tokeniser",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_errors_are_one_line_and_leave_nothing(call, folder, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[what]
    places = {"pairs": folder / "pairs.tsv", "run": folder / "run"}
    found = call(*(argument.format(**places) for argument in arguments))
    assert (found.code, found.out) == (2, "")
    lines = [line for line in found.error.splitlines() if line.startswith("keras-attn:")]
    assert len(lines) == 1 and message in lines[0], found.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flag, number",
    [("--epochs", "0"), ("--batch-size", "0"), ("--patience", "0"), ("--seed", "-1")],
)
def test_nothing_is_no_number_of_epochs(call, folder, tmp_path, flag, number):
    arguments = ["train", "attention", folder / "pairs.tsv", "--out", tmp_path / "run"]
    found = call(*arguments, flag, number)
    assert found.code == 2 and flag in found.error and not (tmp_path / "run").exists()


def test_debug_shows_the_trace(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["keras-attn", "card", "atention", "--debug"])
    with pytest.raises(ValueError, match="Did you mean"):
        keras_attn_cli.main()


def test_faults_of_ours_are_told_apart(call, monkeypatch):
    from keras_attn import zoo

    monkeypatch.setattr(zoo, "names", lambda pattern: 1 / 0)
    found = call("names")
    assert found.code == 1 and "ZeroDivisionError" in found.error and "--debug" in found.error


MALFORMED = {
    "empty": (b"", "no pairs"),
    "one column": (b"a\tb\nonly\n", ":2: "),
    "wrong encoding": ("é\tb\n".encode("latin-1"), ":1: "),
    "utf-16": ("a\tb\n".encode("utf-16"), ":1: "),
    "a line of 10 MB": (b"a\tb\n" + b"x" * 10_000_000 + b"\ty\n", ":2: "),
    "NUL": (b"a\tb\nc\0\td\n", ":2: "),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_files_are_named_with_their_line(call, tmp_path, what):
    content, message = MALFORMED[what]
    (tmp_path / "bad.tsv").write_bytes(content)
    found = call("train", "attention", tmp_path / "bad.tsv", "--out", tmp_path / "run")
    assert found.code == 2 and found.error.count("\n") == 1
    assert f"{tmp_path / 'bad.tsv'}" in found.error and message in found.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"a\tb\r\nc\td\r\n", b"\xef\xbb\xbfa\tb\nc\td\n"])
def test_line_ends_and_bom_are_read_rightly(tmp_path, content):
    (tmp_path / "good.tsv").write_bytes(content)
    left, held_out = keras_attn_cli._training_data(
        str(tmp_path / "good.tsv"), None, 0.5, None, None
    )
    assert sorted(left.sources + held_out.sources) == ["a", "c"]
    assert sorted(left.targets + held_out.targets) == ["b", "d"]


def test_standard_input_is_answered_before_more_of_it_is_read(call, folder, monkeypatch):
    monkeypatch.setattr(keras_attn_cli, "LINES", 2)
    read, answered = [], []

    def lines(file):
        for word in ["cat", "act", "tack", "cat"]:
            assert len(read) - len(answered) <= 2
            read.append(word)
            yield word

    monkeypatch.setattr(keras_attn_cli, "_lines", lines)
    monkeypatch.setattr(keras_attn_cli, "_write_targets", lambda *x: answered.append(x))
    call("generate", folder / "run", "--temperature", "1", "--seed", "3")
    assert [x[0] for x in answered] == read == ["cat", "act", "tack", "cat"]
    piped, answered[:] = [x[1] for x in answered], []
    monkeypatch.undo()
    listed = call("generate", folder / "run", *read, "--temperature", "1", "--seed", "3").out
    assert listed.splitlines() == piped
