"""What the documents say is so: their code runs, their tables and figures are those of the data."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from keras_attn import recipes, zoo
from keras_attn.zoo import options, shipped

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# "run on" goes on with the names of the block before.
MARKED = re.compile(r"<!-- test: (run|run on) -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = {page: MARKED.findall(page.read_text()) for page in PAGES}
RUN = """
import json, os, sys
for page, blocks in json.load(sys.stdin).items():
    os.mkdir(page)
    os.chdir(page)
    for kind, block in blocks:
        print(page, block, sep="\\n", file=sys.stderr)
        names = {"__name__": "page"} if kind == "run" else names
        exec(block, names)
    os.chdir("..")
"""
# The pages of benchmarks by the script that makes them.
MEASURED = {
    name: f"benchmarks/{name}.md"
    for name in (
        *("convergence", "corpus", "costs", "decoding", "evidence", "formats", "learning", "load"),
        *("parts", "search", "soak", "starting", "training"),
    )
} | {"exports": "docs/exports.md"}


def results(name):
    return json.loads((ROOT / "zoo" / name / "results.json").read_text())


def test_every_block_of_python_is_run():
    for page, blocks in BLOCKS.items():
        assert len(blocks) == page.read_text().count("```python"), page
    assert sum(map(len, BLOCKS.values())) >= 4


def test_code_of_the_pages_runs(tmp_path):
    # One process for all, as importing TensorFlow takes long; each page has a folder of its own.
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", RUN],
        input=json.dumps({page.name: blocks for page, blocks in BLOCKS.items()}),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_options_are_those_of_the_code():
    assert options.table() in (ROOT / "docs" / "options.md").read_text()


@pytest.mark.parametrize("name", recipes.DATA)
def test_data_sets_are_what_they_say_they_are(name):
    about = recipes.DATA[name].ABOUT
    page = (ROOT / "docs" / "datasets.md").read_text()
    sizes = f"{about.sizes['train']:,}, {about.sizes['validation']:,}"
    said = f"| `{name}` | [{about.title}]({about.home}) | {sizes} | {about.licence} |"
    assert any(line.startswith(said) for line in page.splitlines())
    (rows,) = (line for line in page.splitlines() if "each row counts" in line)
    counting = rows.partition(" each row counts")[0].rpartition("Of ")[2]
    assert (f"`{name}`" in counting) == about.by_row


VARIANTS = ("context_every_step", "context_as_init", "combined", "attention")


@pytest.mark.parametrize("name", VARIANTS)
def test_figures_of_the_variants_are_those_of_the_runs(name):
    found = results(f"{name}.dates")
    mean, least, most = (
        100 * found["summary"]["exact_match"][key] for key in ("mean", "least", "most")
    )
    assert len(found["runs"]) == 3
    figure = f"{mean:.1f} % ({least:.1f}–{most:.1f})"
    rows = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
    assert any(figure in row for row in rows), figure


@pytest.mark.parametrize("name", [name for name in shipped.names() if name.endswith(".cmudict")])
def test_figures_of_trained_models_are_those_of_their_results(name):
    found = results(name)
    keys = ("sequence_error_rate", "token_error_rate")
    runs, of_package = list(found["runs"].values()), found["shipped"]["package"]
    cells = []
    for key in keys:
        values = [100 * run["measured"][key] for run in runs]
        several = f" ({min(values):.2f}–{max(values):.2f})" * (len(values) > 1)
        cells.append(f"{sum(values) / len(values):.2f}{several}")
        of_run = found["runs"][str(found["shipped"]["seed"])]["measured"]
        assert abs(of_package[key] - of_run[key]) * of_run["sources"] < 1.5  # a word, in float16
    row = f"| `{name.partition('.')[0]}` | {runs[0]['weights'] / 1e6:.1f} M | {' | '.join(cells)} |"
    assert row in README.splitlines()


def test_the_reading_of_cmudict_is_of_its_figures():
    folder = ROOT / "zoo" / "attention.cmudict"
    notes = (folder / "notes.md").read_text()
    found = json.loads((folder / "errors.json").read_text())
    wrong = found["words_by_edits"]
    assert 0.63 < wrong["1"] / sum(wrong.values()) < 0.67
    assert "Nearly two thirds of the wrong words" in notes
    assert max(found["edits"], key=found["edits"].get) == "vowel for vowel"
    common, others, names = (
        found["kinds"][kind]["wrong"] for kind in ("common words", "other words", "names")
    )
    assert 0.95 * others < names < others and "Names are no harder than other words" in notes
    assert f"which are {others / common:.1f} times as often wrong as common ones" in notes
    half = next(kept for kept in found["kept"] if kept["fraction"] == 0.5)
    assert f"the surer half of which is right at {100 * half['exact_match']:.0f} %" in notes
    searches = json.loads((folder / "searches.json").read_text())["searches"]
    five, ten, long, covering = (
        searches[name]["sequence_error_rate"]
        for name in (
            "beam 5",
            "beam 10",
            "beam 5, length penalty 1",
            "beam 5, coverage penalty 0.2",
        )
    )
    assert five == ten and long < five < covering
    assert round(2670 * (five - long)) == 3 and "A length penalty gains three words" in notes
    listed = searches["beam 5"]["in_the_list"]
    assert listed > 0.9
    assert f"One of five answers is right for {100 * listed:.0f} % of the words" in notes


def test_figures_of_searches_are_those_of_the_runs():
    page = (ROOT / "docs" / "search.md").read_text()
    found = json.loads((ROOT / "zoo" / "attention.cmudict" / "searches.json").read_text())
    searches = found["searches"]
    names = "greedy", "beam 5", "beam 5, length penalty 1"
    greedy, beam, penalised = (searches[name] for name in names)
    wrong = [f"{100 * found['sequence_error_rate']:.2f}" for found in (beam, greedy, penalised)]
    told = f"it is no better: {wrong[0]} % of words come out wrong where greedy search has "
    assert f"{told}{wrong[1]} %, and {wrong[2]} % with a length penalty of 1" in page
    assert abs(beam["sequence_error_rate"] - greedy["sequence_error_rate"]) < 0.001
    assert beam["lower"] == 0 and beam["mean_score"] > greedy["mean_score"]
    run = results("attention.cmudict")["shipped"]
    recipe = tomllib.loads((ROOT / "zoo" / "attention.cmudict" / "recipe.toml").read_text())
    (same,) = (of for of in searches.values() if of["options"] == recipe["decoding"])
    for key in ("sequence_error_rate", "token_error_rate"):
        assert same[key] == pytest.approx(run["package"][key])
    costs = json.loads((ROOT / "benchmarks" / "search.json").read_text())["ratios"]
    step, whole = costs["step 5"][0], costs["whole 5"][0]
    assert f"at {step:.1f} times the time of a step and {whole:.1f} times that of a" in page
    assert f"| 5 | {step:.2f} (" in (ROOT / "benchmarks" / "search.md").read_text()


def shown_ratio(contestant):
    times = contestant["times_as_fast"]
    mark = "" if contestant["counted"]["good"] else " †"
    return f"{times['median']:.2f} ({times['least']:.2f}–{times['most']:.2f}){mark}"


def test_figures_of_training_are_those_that_were_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    measuring = importlib.import_module("measuring")
    page = (ROOT / "docs" / "speed.md").read_text()
    sections = json.loads((ROOT / "benchmarks" / "training.json").read_text())
    titles = {"Luong": "luong", "Bahdanau": "bahdanau", "Input feeding": "feeding"}
    for title, name in titles.items():
        for size in ("small", "medium"):
            found = {c["label"]: c for c in sections[f"{name} {size}"]["contestants"]}
            shown = [shown_ratio(found[f"keras_attn{x}"]) for x in ("", ", configured", ", fast")]
            assert f"| {title}, {size} | {' | '.join(shown)} |" in page
    told = []
    for size in ("small", "medium"):
        found = {c["label"]: c for c in sections[f"luong {size}"]["contestants"]}
        labels = "Keras", "keras_attn", "keras_attn, configured", "keras_attn, fast"
        jit = found["Keras, jit"]["samples"]
        without, *ours = (measuring.ratio(found[x]["samples"], jit)["median"] for x in labels)
        told += [f"{1 / without:.2f} times the {size}", "{:.2f}, {:.2f} and {:.2f}".format(*ours)]
    assert all(figures in page for figures in told)


def test_fast_training_ends_where_plain_training_does(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    convergence = importlib.import_module("convergence")
    results = json.loads(convergence.RESULTS.read_text())
    right = {
        name: {
            mode: [run["measured"]["exact_match"] for run in runs]
            for mode, runs in convergence.modes(results, name).items()
        }
        for name in results["plain"]
    }
    for mode in ("plain", "fast"):
        for name, runs in results[mode].items():
            digest = recipes.digest(convergence.recipe_of(mode, name))
            assert {run["recipe_sha256"] for run in runs.values()} == {digest}
    dates, words = right["attention.dates"], right["attention.cmudict"]
    for mode, other in (("plain", "fast"), ("fast", "plain")):
        mean = sum(dates[mode]) / len(dates[mode])
        assert len(dates[mode]) == 5 and min(dates[other]) <= mean <= max(dates[other])
    error = (words["fast"][0] * (1 - words["fast"][0]) / 2670) ** 0.5
    assert abs(words["plain"][0] - words["fast"][0]) <= error


def test_where_fast_training_ends_is_told_as_it_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    convergence = importlib.import_module("convergence")
    results = json.loads(convergence.RESULTS.read_text())
    page = (ROOT / "docs" / "speed.md").read_text()
    dates, words = (convergence.modes(results, name) for name in convergence.NAMES.values())
    exact = {
        mode: convergence.shown([run["measured"]["exact_match"] for run in runs])
        for mode, runs in dates.items()
    }
    fast, plain = (exact[mode].replace(" (", " % (") for mode in ("fast", "plain"))
    assert f"at {fast} exact against {plain} by Keras' own layers in float32" in page
    for key in ("sequence_error_rate", "token_error_rate"):
        fast, plain = (100 * words[mode][0]["measured"][key] for mode in ("fast", "plain"))
        assert f"{fast:.2f} % of the development words against {plain:.2f} %" in page or (
            f"{fast:.2f} against {plain:.2f} %" in page
        )
    of = results["decoding"]
    assert f"changes {of['differ']} words of {of['words']:,}." in page


def test_figures_of_other_runtimes_are_those_that_were_measured():
    found = json.loads((ROOT / "benchmarks" / "formats.json").read_text())
    own, lite, small = (
        found["runtimes"][name]
        for name in ("TensorFlow, `model.generate`", "LiteRT", "LiteRT, 8 bits")
    )
    assert (
        f"takes {small['bytes'] / 1e6:.1f} MB instead of {lite['bytes'] / 1e6:.1f}, "
        f"{small['ms_a_word']:.1f} ms a word instead of {lite['ms_a_word']:.1f} "
        f"({own['ms_a_word']:.1f} by `generate` itself), and says another thing for "
        f"{small['differ']} of {found['words']:,} words"
    ) in (ROOT / "docs" / "serving.md").read_text()
    spelt = [of["differ"] for name, of in found["runtimes"].items() if "8 bits" not in name]
    assert spelt == [0, 0, 0, 0]
    onnx = [found["runtimes"][name]["ms_a_word"] for name in ("ONNX", "ONNX, `whole=True`")]
    told = "in ONNX {:.1f} ms a word, with `whole=True` {:.1f}".format(*onnx)
    assert told in (ROOT / "docs" / "serving.md").read_text()
    assert abs(small["wer"] - own["wer"]) < 0.1  # nearly the same


@pytest.mark.parametrize("name", MEASURED)
def test_pages_are_what_their_scripts_make_of_the_data(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    results = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    assert importlib.import_module(name).page(results) == (ROOT / MEASURED[name]).read_text()


def test_what_is_told_of_the_larger_model_of_cmudict_is_so():
    found = {
        name: results(name)["runs"]["0"] for name in ("attention.cmudict", "attention.cmudict_best")
    }
    plain, best = found.values()
    notes = (ROOT / "zoo" / "attention.cmudict_best" / "notes.md").read_text()
    assert best["weights"] <= 2_500_000 and best["minutes"] <= 120
    assert 1.3 < best["weights"] / plain["weights"] < 1.36 and "a third more weights" in notes
    assert len(best["log"]) == 2 * len(plain["log"])
    wrong, edits = (best["measured"][key] for key in ("sequence_error_rate", "token_error_rate"))
    assert wrong <= 0.225 and edits <= 0.053 and "and does" in notes
    main, page = ((ROOT / name).read_text() for name in ("README.md", "zoo/README.md"))
    assert f"has {100 * wrong:.2f} % of the words and {100 * edits:.2f} % of the phonemes" in main
    assert f"reaches {100 * wrong:.2f} and {100 * edits:.2f}." in page
    assert "attention.cmudict_best" in zoo.names(weights=True)
    published = json.loads((ROOT / "zoo" / "published.json").read_text())["cmudict"]["rows"]
    others = [float(row[1]) for row in published if "3 x" in row[0]]
    assert [f"{100 * wrong - other:.1f}" for other in others] == ["0.0", "1.1"]
    assert "about as many words wrong as the first, and 1.1 points more than the second" in notes


def test_what_was_wanted_stands_beside_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    targets = importlib.import_module("targets")
    assert targets.page() == (ROOT / "benchmarks" / "targets.md").read_text()
    small = targets.reporting.load("training")["luong small"]
    keras = next(c for c in small["contestants"] if c["label"] == "Keras, jit")
    forms = (targets.AS_IS, targets.CONFIGURED, targets.FAST)
    found = [f"{targets.times(small, form, (keras['label'],))[0]['median']:.2f}" for form in forms]
    sentence = f"the first row is {found[0]}, {found[1]} and {found[2]}"
    assert sentence in (ROOT / "docs" / "speed.md").read_text()


def test_files_and_sections_that_are_linked_exist():
    cards = [*ROOT.glob("zoo/*/*.md"), *ROOT.glob("saved_models/*/1/*.md")]
    for file in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *cards]:
        # a card shows its notes, whose links to sections are the card's
        card = file.with_name("card.md") if file.name == "notes.md" else file
        for link, section in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", file.read_text()):
            if link.startswith("https://"):
                continue
            linked = file.parent / link if link else card
            assert linked.exists(), (file, link)
            assert not section or section in sections(linked), (file, link, section)
    assert len(cards) >= 15


def sections(page):
    """Return the anchors of a page's headings, as GitHub names them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_every_export_that_is_published_is_on_the_page():
    told = json.loads((ROOT / "benchmarks" / "exports.json").read_text())["shipped"]
    assert set(told) == {path.name for path in (ROOT / "saved_models").glob("*.*")}


def test_every_target_that_is_missed_is_explained():
    missed = [row for row in page_rows("targets.md") if "**missed**" in row]
    explained = (ROOT / "benchmarks" / "README.md").read_text().partition("## What limits what")[2]
    heads = {
        "luong small | keras_attn, fast": "- **Luong, small, fast**",
        "luong medium | keras_attn, fast": "- **Luong, medium, fast**",
        "bahdanau small | keras_attn, fast": "- **Bahdanau, small, fast**",
        "luong small greedy, batch of 1": "- **Greedy search, batch of one, small, frozen**",
        "bahdanau small greedy, batch of 1": "- **The same in Bahdanau's order**",
        "100,000 words": "- **Corpora**",
    }
    assert missed
    for row in missed:
        found = [told for case, told in heads.items() if row.startswith(f"| {case} ")]
        assert len(found) == 1 and found[0] in explained, row


def page_rows(name):
    return (ROOT / "benchmarks" / name).read_text().splitlines()


def test_the_oldest_tensorflow_is_the_one_that_passed(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    wheels = importlib.import_module("wheels")
    failed = json.loads(wheels.RESULTS.read_text())["failed"]
    assert wheels.oldest(failed) == json.loads(wheels.OLDEST.read_text())
    assert set(failed) == set(zoo.names())
    page = (ROOT / "docs" / "serving.md").read_text()
    for version in {version for versions in failed.values() for version in versions}:
        assert version in page
    made_up = {"a": {"2.9.0": None, "2.10.0": "it broke", "2.11.0": None}, "b": {"2.11.0": "no"}}
    assert wheels.oldest(made_up) == {"a": "2.11.0"}


def test_evidence_is_kept_if_all_of_it_passed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    evidence = importlib.import_module("evidence")
    one, other = '<testcase classname="tests.a.test_b" name="x"', '<testcase classname="tests.c"'
    report = tmp_path / "report.xml"
    skips = f'{one}><skipped/></testcase>{one} time="2"/>{one}/>{other} name="y"/>'
    report.write_text(f'<testsuites><testsuite time="90.5">{skips}</testsuite></testsuites>')
    found = evidence.counted(report)
    files = {"tests/a/test_b.py": 2, "tests/c.py": 1}
    assert found == {"passed": 3, "skipped": 1, "seconds": 90.5, "files": files}
    for wrong in ("failure", "error"):
        report.write_text(f"<testsuite>{one}/>{other} name='y'><{wrong}/></testcase></testsuite>")
        with pytest.raises(SystemExit, match=r"tests\.c\.y failed"):
            evidence.counted(report)
    report.write_text("<testsuites/>")
    with pytest.raises(SystemExit, match="no test passed"):
        evidence.counted(report)
    report.write_text(f"<testsuite time='60'>{one}/></testsuite>")
    monkeypatch.setattr(evidence, "HERE", tmp_path)
    monkeypatch.setattr(evidence, "BEGUN", tmp_path / "build" / "evidence.commit")
    commits = iter(["abc", "abc+", "abc+", *["abc"] * 3])
    monkeypatch.setattr(evidence, "commit", lambda: next(commits))
    monkeypatch.setattr("sys.argv", ["evidence.py", "begin"])
    evidence.main()
    monkeypatch.setattr("sys.argv", ["evidence.py", str(report)])
    with pytest.raises(SystemExit, match="began with commit abc, now it is abc+"):
        evidence.main()
    evidence.main()
    page = (tmp_path / "evidence.md").read_text()
    assert page == evidence.page(json.loads((tmp_path / "evidence.json").read_text()))
    assert "of commit abc: 1 passed, 0 were" in " ".join(page.split())
    assert "| tests/a/test_b.py | 1 |" in page


def test_products_of_onednn_are_products_on_a_trace(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    gpu = importlib.import_module("gpu")

    def faults(*ran):
        operations = {"cpu:0": dict.fromkeys(ran, 1)}
        found = {"tf32": {}, "check": {}, "equal": 1, "ties": 0, "texts": 1}
        found["ran"] = {"cudnn_calls": 0, "operations": operations}
        return list(gpu.faults({"cpu": found}, gpu=False))

    assert faults("Add") == ["cpu: the trace shows no product, so that it says nothing"]
    assert not faults("Add", "_MklNativeFusedMatMul") and not faults("MatMul")


def test_nothing_faults_and_no_word_is_spelt_otherwise():
    soak = json.loads((ROOT / "benchmarks" / "soak.json").read_text())
    assert {what: len(ends) for what, ends in soak.items() if what.startswith("fresh")} == {
        "fresh starts, float32": 60,
        "fresh starts, fast": 60,
    }
    assert any(what.startswith("run, fast, 60 minutes") for what in soak)
    assert all(end["code"] == 0 for ends in soak.values() for end in ends)
    compared = json.loads((ROOT / "benchmarks" / "corpus.json").read_text())
    assert compared["checked"] == 1000
    assert compared["compared"]["differing"] == compared["compared"]["near"]


def test_reruns_come_again():
    again = set()
    for file in (ROOT / "zoo").glob("*/results.json"):
        found = json.loads(file.read_text())
        for seed, run in [*found.get("reruns", {}).items(), *found.get("earlier", {}).items()]:
            again.add(file.parent.name)
            now, then = (of["measured"] for of in (run, found["runs"][seed]))
            if file.parent.name.endswith(".dates"):
                of = found["summary"]["exact_match"]
                assert of["least"] <= now["exact_match"] <= of["most"]
            else:
                assert abs(now["sequence_error_rate"] - then["sequence_error_rate"]) <= 0.007
    names = (path.parent.name for path in (ROOT / "zoo").glob("*/results.json"))
    assert {name for name in names if name.endswith((".dates", ".cmudict", "_best"))} <= again


def test_mistakes_are_those_of_the_recipes_search():
    for file in (ROOT / "zoo").glob("*/errors.json"):
        recipe = tomllib.loads((file.parent / "recipe.toml").read_text())
        assert json.loads(file.read_text())["options"] == recipe["decoding"]
