"""The zoo's pages say what its results say, and its recipes can be read."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import keras
import pytest

from keras_attn import recipes, zoo
from keras_attn.zoo import shipped

ZOO = Path(__file__).parent.parent.parent / "zoo"
RECIPES = sorted(ZOO.glob("*/recipe.toml"))


@pytest.fixture
def pages():
    spec = importlib.util.spec_from_file_location("zoo_pages", ZOO / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_those_of_the_results(pages):
    for file, text in pages.pages().items():
        assert file.read_text() == text, f"{file}: run python zoo/pages.py"


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.parent.name)
def test_recipes_are_of_what_their_folder_says(file):
    architecture, _, data = file.parent.name.partition(".")
    recipe = recipes.read(file)
    assert (recipe.architecture, recipe.data) == (architecture, data.partition("_")[0])
    results = file.with_name("results.json")
    if results.exists():
        found = json.loads(results.read_text())
        assert recipes.changed(recipe, found["made_of"]) == []
        assert set(found["runs"]) == set(map(str, recipe.seeds))
    for found in (file.with_name("errors.json"), file.with_name("searches.json")):
        if found.exists():
            of = json.loads(found.read_text())
            assert of["weights_sha256"] == shipped.digest(file.parent.name)


@pytest.mark.parametrize("name", shipped.names())
def test_published_weights_are_of_the_recipe(name):
    recipe, model = recipes.read(ZOO / name / "recipe.toml"), zoo.build(name)
    options = recipe.options | {"dtype": "float32"}
    again = zoo.build(recipe.architecture, source=model.source, target=model.target, **options)
    made = [
        json.dumps(keras.saving.serialize_keras_object(x), sort_keys=True) for x in (model, again)
    ]
    shipped_as, told = (
        re.sub(r'("name": "\w+?)_\d+"', r'\1"', x) for x in made
    )  # Keras counts layers
    assert shipped_as == told


def test_a_card_says_where_its_equations_do_not_hold(pages):
    best = recipes.read(ZOO / "attention.cmudict_best" / "recipe.toml")
    assert pages.otherwise(best) == (
        "**Otherwise than `attention`.** `order` is 'attend_update', not 'update_attend'; `scorer` "
        "is 'additive', not 'general': the equations above have the step of Bahdanau et al. 2015, "
        "arXiv:1409.0473, sec. A.2. `bridge` is 'dense', not 'linear', which they do not show.\n\n"
    )
    luong = best._replace(options={"bridge": "dense"})
    assert pages.otherwise(luong) == (
        "**Otherwise here.** `bridge` is 'dense', not 'linear', which the equations above do not "
        "show.\n\n"
    )
    own = pages.otherwise(best, own=True)
    assert own.startswith("**Otherwise than `attention`.** `order` is") and "above" not in own
    assert pages.otherwise(recipes.read(ZOO / "attention.dates" / "recipe.toml")) == ""


def test_a_card_says_when_teachers_have_been_trained_anew(pages):
    names = ["attention.cmudict", "combined.cmudict"]
    recipe = recipes.read(ZOO / "attention.cmudict_best" / "recipe.toml")
    recipe = recipe._replace(training=recipe.training | {"teacher": names})
    now = {name: shipped.digest(name) for name in names}
    told = pages.taught(recipe, {"0": {"teachers": now}})
    assert told.startswith("**Teachers.** [attention.cmudict](../attention.cmudict/card.md), [c")
    assert "learnt from earlier" not in told
    before = {"teachers": now | {names[1]: "another"}}
    told = pages.taught(recipe, {"0": before, "1": {"teachers": now}, "2": before})
    assert "Seeds 0, 2 learnt from earlier models of these names" in told
    assert pages.taught(recipe._replace(training={}), {"0": {}}) == ""


def test_what_others_report_is_of_a_task_that_is_here(pages):
    groups = {pages.group(file.parent.name) for file in RECIPES}
    # Nobody reports dates and grouped questions; of words and spellings no source was found.
    g2p = {name for name in groups if name.startswith("g2p_")}
    assert groups - set(pages.PUBLISHED) == {
        "dates",
        "geo880_grouped",
        "inflection",
        "scan_length",
        "slovene",
        *g2p,
    }
    assert set(pages.PUBLISHED) <= groups
    assert pages.published("geo880").count("\n| ") == 4  # heads, the line below, two models
    assert "| LSTM with attention | 84.6 |" in pages.published("geo880")
    assert pages.published("dates") == ""


def test_what_others_report_has_a_source(pages):
    for task, found in pages.PUBLISHED.items():
        for row in found["rows"]:
            told = f"{found['parts']} {row[0]}"
            assert re.search(r"arXiv:\d{4}\.\d{5}|\]\(https://|\w+/\w+, a model card", told), (
                task,
                row,
            )
            assert len(row) == 1 + len(found["columns"]), (task, row)


def run(exact, seconds):
    rows = [{"from": 1, "to": 3, "sources": 4, "exact_match": exact}]
    measured = {"sources": 4, "exact_match": exact, "by_length": rows}
    measured |= {"sequence_error_rate": 1 - exact, "token_error_rate": (1 - exact) / 2}
    log = [
        {"epoch": 1.0, "val_exact_match": exact / 2, "val_loss": 0.5},
        {"epoch": 2.0, "val_exact_match": exact, "val_loss": 0.75},
        {"epoch": 3.0, "val_exact_match": exact / 4, "val_loss": 0.625},
    ]
    return {
        "measured": measured,
        "fitted": {"sources": 1000, "exact_match": 0.875},
        "log": log,
        "weights": 1234,
        "best_epoch": 2,
        "minutes": seconds / 60,
        "peak_memory_mb": 700,
        "commit": "abc",
        "machine": "a processor",
        "versions": {"keras": "3"},
        "command": "keras-attn train x",
    }


def test_figures_are_those_of_the_runs(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "HERE", tmp_path)
    recipe = (ZOO / "attention.dates" / "recipe.toml").read_text()
    for name in ("attention.dates", "attention.dates_long"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(recipe)
    rates = {"exact_match": 0.75, "sequence_error_rate": 0.25, "token_error_rate": 0.125}
    whole = {key: {"mean": x, "least": x, "most": x + 0.01} for key, x in rates.items()}
    results = {"runs": {"0": run(0.75, 120), "1": run(0.5, 660)}, "summary": whole}
    results["reruns"] = {"1": run(0.625, 60)}
    (tmp_path / "attention.dates" / "results.json").write_text(json.dumps(results))
    (tmp_path / "README.md").write_text("# Z\n<!-- table dates -->\nold\n<!-- end -->\nmore\n")
    (tmp_path / "attention.dates" / "notes.md").write_text("## Reading\n\nSo it is.\n")
    ideas = {"wider": run(0.625, 180) | {"weights": 2345}}
    (tmp_path / "attention.dates" / "ideas.json").write_text(json.dumps(ideas))
    pages.main()
    readme = (tmp_path / "README.md").read_text()
    shown = "75.00 (75.00–76.00) | 25.00 (25.00–26.00) | 12.50 (12.50–13.50) | 2–11 |"
    assert f"| [attention.dates](attention.dates/card.md) | 1,234 | 2 | {shown}" in readme
    assert "old" not in readme and readme.endswith("<!-- end -->\nmore\n")
    card = (tmp_path / "attention.dates" / "card.md").read_text()
    assert "| 1 | 50.00 | 50.00 | 25.00 | 2 of 3 | 11.0 | 700 | abc |" in card
    assert (
        "| 1–3 | 4 | 62.5 |" in card
        and "by seed: 0: 87.5, 1: 87.5." in card
        and "| 0 | 75.00 (2) | 18.75 (3) | 37.50 (1) |" in card
        and "So it is." in card
        and "| wider | 2,345 | 37.50 | 18.75 | 87.5 | 3 | 3 |" in card
        and "Unicode License" in card
        and "| 1 | 50.00 then 62.50 | 50.00 then 37.50 | 25.00 then 18.75 | 1.0 | abc |" in card
        and "It reads the first 63 characters of a source," in card
        and "it writes at most 64 characters." in card
    )
    assert (tmp_path / "dates_learning.png").stat().st_size > 5000
    assert not (tmp_path / "attention.dates_long" / "card.md").exists()  # it has no results
    before = pages.pages()
    pages.main()
    assert pages.pages() == before


def test_limits_are_those_of_the_recipe(pages):
    recipe = pages.recipes.read(ZOO / "attention.cmudict" / "recipe.toml")
    said = pages.limits(recipe)
    assert "first 39 characters of a source" in said and "most 40 tokens between blanks." in said
    assert "It knows sources in lower case alone. Characters that were not" in said
    recipe = pages.recipes.read(ZOO / "attention.multi30k" / "recipe.toml")
    said = pages.limits(recipe)
    assert "first 95 pieces of words" in said and "most 96 pieces of words." in said
    assert "It knows sources and targets in lower case alone." in said and "copy" not in said
    assert pages.notice(recipe) == ""
    recipe = pages.recipes.read(ZOO / "attention_copy.inflection" / "recipe.toml")
    assert pages.limits(recipe).endswith("unknown token to it. It can copy them.\n\n")
    plain = recipe._replace(source={"tokeniser": "byte"})
    assert "know" not in pages.limits(plain) and "copy" not in pages.limits(plain)


def test_folds_are_called_folds(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "HERE", tmp_path)
    folder = tmp_path / "attention.geo880"
    folder.mkdir()
    (folder / "recipe.toml").write_text((ZOO / folder.name / "recipe.toml").read_text())
    whole = {key: {"mean": 0.5, "least": 0.5, "most": 0.5} for key in pages.RATES}
    results = {"runs": {"0": run(0.75, 120), "1": run(0.5, 60)}, "summary": whole}
    (folder / "results.json").write_text(json.dumps(results))
    (tmp_path / "README.md").write_text("<!-- table geo880 -->\n<!-- end -->\n")
    found = pages.pages()
    assert "| model | weights | folds | exact, % |" in found[tmp_path / "README.md"]
    card = found[folder / "card.md"]
    assert "| fold | exact, % |" in card and "%, by fold: 0: 87.5, 1: 87.5." in card
    assert "all folds:" in card and "seed" not in card.partition("## Results")[2].partition("![")[0]


def summary(mean, least, most, **others):
    found = {key: {"mean": mean, "least": least, "most": most} for key in ("exact_match",)}
    zero = {"mean": 0.0, "least": 0.0, "most": 0.0}
    rates = {"sequence_error_rate": zero, "token_error_rate": zero}
    translations = {key: {"mean": x, "least": x, "most": x} for key, x in others.items()}
    return found | rates | translations


@pytest.mark.parametrize(
    "runs, least, ahead", [(3, 0.8, True), (3, 0.7, False), (3, 0.75, False), (2, 0.8, False)]
)
def test_a_variant_is_ahead_whose_range_lies_above(pages, runs, least, ahead):
    attention = {"summary": summary(0.875, least, 0.9), "runs": dict.fromkeys(range(3))}
    combined = {"summary": summary(0.7, 0.6, 0.75), "runs": dict.fromkeys(range(runs))}
    found = {
        "attention.x": attention,
        "attention.x_best": attention,  # alone: nothing is compared with it
        "combined.x": combined,
        "attention.y": {"summary": summary(0, 0, 0, bleu=33.5), "runs": {0: None}},
        "combined.y": {"summary": summary(0, 0, 0, bleu=20.25), "runs": {0: None}},
    }
    said = f"87.50 ({100 * least:.2f}–90.00)"
    assert pages.variants(found).splitlines() == [
        "| task | measure | combined | attention |",
        "| --- | --- | --- | --- |",
        f"| x | exact, % | 70.00 (60.00–75.00) | {f'**{said}**' if ahead else said} |",
        "| y | BLEU | 20.25 | 33.50 |",
    ]


@pytest.mark.parametrize("file", sorted(ZOO.glob("attention_copy.*")), ids=lambda file: file.name)
def test_what_copies_is_trained_as_what_it_is_compared_with(file):
    with_it = recipes.read(file / "recipe.toml")
    without = recipes.read(ZOO / f"attention.{file.name.partition('.')[2]}" / "recipe.toml")
    # What these two have otherwise their notes say.
    if file.name == "attention_copy.g2p_hun":
        without.training["learning_rate"] = 3e-3
    if file.name == "attention_copy.slovene":
        without.training["epochs"] = 30
        without.target["tokeniser"], without.options["share_embeddings"] = "joint", True
    assert with_it == without._replace(architecture="attention_copy")


def test_equations_have_the_step_of_the_recipe(pages):
    own = recipes.read(ZOO / "attention.g2p_fre" / "recipe.toml")
    assert pages.equations_of(own)[2:-2] == [
        "e_tj = v_a^T tanh(W_a s_{t-1} + U_a h_j)",
        "a_tj = exp(e_tj) / sum_k exp(e_tk)",
        "c_t = sum_j a_tj h_j",
        "s_t = f([E y_{t-1}; c_t], s_{t-1})",
    ]
    assert "the equations above have the step of Bahdanau et al. 2015" in pages.otherwise(own)
    usual = recipes.read(ZOO / "attention.g2p_hun" / "recipe.toml")
    assert pages.equations_of(usual) == list(zoo.card("attention").equations)
    copying = recipes.read(ZOO / "attention_copy.inflection" / "recipe.toml")
    assert "bilinear" not in pages.deviations(copying)
    assert "`share_embeddings` is True, not False, which they do not show" in pages.otherwise(
        copying
    )
    assert "bilinear" in pages.deviations(copying._replace(options={}))


def test_short_and_long_sources_are_those_that_are_many_enough(pages, monkeypatch):
    monkeypatch.setattr(pages, "sharing", lambda name, of: 1)
    lengths = ((1, 3, 40), (4, 5, 57), (6, 7, 3))

    def learnt(*right):
        rows = [
            {"from": of[0], "to": of[1], "sources": of[2], "exact_match": x}
            for of, x in zip(lengths, right, strict=True)
        ]
        return {"runs": {"0": {"measured": {"by_length": rows}}}}

    # Another first class: what is compared is told apart by lengths, not by places.
    other_classes = [{"from": 0, "to": 0, "sources": 1, "exact_match": 1.0}]
    other_classes += learnt(0.6, 0.4, 0.6)["runs"]["0"]["measured"]["by_length"]
    found = {
        "attention.x": learnt(0.9, 0.8, 0.7),
        "combined.x": learnt(0.5, 0.6, 0.6),
        "context_as_init.x": {"runs": {"0": {"measured": {"by_length": other_classes}}}},
        "attention_copy.x": learnt(1, 1, 1),  # attends
        "attention.y": learnt(1, 1, 1),  # nothing is compared with it
    }
    assert pages.short_and_long(found).splitlines()[2:] == [
        "| x | exact, % | 1–3: 40 | 90.0 | 60.0 (context_as_init) "
        "| 4–5: 57 | 80.0 | 60.0 (combined) |"
    ]


def test_translations_have_a_column_of_bleu(pages):
    one = {"mean": 0.5, "least": 0.5, "most": 0.5}
    bleu = {"mean": 33.456, "least": 33.0, "most": 34.0}
    shown = pages.rates({**dict.fromkeys(pages.RATES, one), "bleu": bleu})
    assert shown["BLEU"] == "33.46 (33.00–34.00)" and "chrF" not in shown


@pytest.mark.parametrize(
    "name, group, label",
    [
        ("attention_copy.g2p_vie_hanoi", "g2p_vie_hanoi", "attention_copy"),
        ("attention.scan", "scan", "attention"),
        ("attention.scan_tanh", "scan", "attention tanh"),
        ("attention.scan_p4", "scan_p4", "attention"),
        ("attention.geo880", "geo880", "attention"),
        ("attention.geo880_grouped", "geo880_grouped", "attention"),
        ("context_as_init.cmudict", "cmudict", "context_as_init"),
    ],
)
def test_models_are_compared_within_a_part_of_the_data(pages, name, group, label):
    assert (pages.group(name), pages.label(name)) == (group, label)


def test_folds_of_other_lengths_are_brought_together(pages):
    folds = [
        [{"from": 4, "to": 5, "sources": 3, "exact_match": 1.0}],
        [
            {"from": 1, "to": 3, "sources": 2, "exact_match": 0.5},
            {"from": 4, "to": 5, "sources": 1, "exact_match": 0.0},
        ],
    ]
    of = {"runs": {i: {"measured": {"by_length": rows}} for i, rows in enumerate(folds)}}
    assert pages.by_length(of) == [
        {"from": 1, "to": 3, "sources": 2, "right": 50.0},
        {"from": 4, "to": 5, "sources": 4, "right": 75.0},
    ]
    assert folds[0][0]["sources"] == 3
    seeds = {"runs": {i: {"measured": {"by_length": folds[0]}} for i in range(3)}}
    once = [{"from": 4, "to": 5, "sources": 3, "right": 100.0}]
    assert pages.by_length(seeds, pages.sharing("attention.dates", seeds)) == once
    assert pages.sharing("attention.geo880", seeds) == 1
    assert [pages.lengths_of({"from": 4, "to": to}) for to in (4, 5)] == ["4", "4–5"]


def test_translations_are_told_and_drawn_by_bleu(pages, tmp_path, monkeypatch):
    recipe = (ZOO / "attention.multi30k" / "recipe.toml").read_text()
    (tmp_path / "attention.multi30k").mkdir()
    (tmp_path / "attention.multi30k" / "recipe.toml").write_text(recipe)
    monkeypatch.setattr(pages, "HERE", tmp_path)
    rows = [{"from": 4, "to": 5, "sources": 3, "exact_match": 0.0, "bleu": 31.5}]
    log = [{"val_exact_match": 0.0, "val_bleu": bleu} for bleu in (12.5, 30.25)]
    of = {"runs": {"0": {"measured": {"bleu": 30.0, "by_length": rows}, "log": log}}}
    assert pages.by_length(of) == [{"from": 4, "to": 5, "sources": 3, "right": 31.5}]
    drawn = []
    axes_of = pages.axes_of

    def noted(title, x, y):
        figure, axes = axes_of(title, x, y)
        drawn.append(axes)
        return figure, axes

    monkeypatch.setattr(pages, "axes_of", noted)
    pages.draw("multi30k", {"attention.multi30k": of})
    learning, lengths = drawn
    assert learning.get_lines()[0].get_ydata().tolist() == [12.5, 30.25]
    assert lengths.get_lines()[0].get_ydata().tolist() == [31.5]
    assert "BLEU" in learning.get_ylabel() and lengths.get_ylabel() == "BLEU"
    assert learning.get_yscale() == "linear"
    assert {file.name for file in tmp_path.glob("*.png")} == {
        "multi30k_learning.png",
        "multi30k_lengths.png",
    }


@pytest.mark.parametrize("teacher, told", [("a", "nothing:"), ("b", ", by other models of its")])
def test_a_rerun_stands_beside_the_run_and_tells_of_other_teachers(pages, teacher, told):
    rates = ("exact_match", "sequence_error_rate", "token_error_rate")
    first, again = (
        {"measured": dict.fromkeys(rates, rate), "minutes": 82.04, "commit": "c0ffee"}
        for rate in (0.25, 0.5)
    )
    first["teachers"], again["teachers"] = (
        {"attention.cmudict": "a"},
        {"attention.cmudict": teacher},
    )
    name, row = "attention.cmudict_best", "| 0 | {0} | {0} | {0} | 82.0 | c0ffee |"
    after = pages.trained_again(name, {"runs": {"0": first}, "reruns": {"0": again}})
    assert row.format("25.00 then 50.00") in after and told in after
    before = pages.trained_again(name, {"runs": {"0": first}, "earlier": {"0": again}})
    assert row.format("50.00 then 25.00") in before and "Trained before" in before
    assert pages.trained_again(name, {"runs": {"0": first}}) == ""


def test_a_card_says_how_a_model_is_built_and_what_is_otherwise_than_the_paper(pages):
    told = pages.built(recipes.read(ZOO / "attention.scan_tanh" / "recipe.toml"))
    assert told.startswith("**As built.** f is a plain recurrent cell with tanh, 1 layer of 128 un")
    assert (
        "embeddings of 64; a dropout of 0." in told and "7 epochs in batches of 1, by Adam" in told
    )
    assert "learning rate of up to 0.001, without label smoothing" in told
    assert "with label smoothing of 0.1" in pages.built(
        recipes.read(ZOO / "attention.cmudict" / "recipe.toml")
    )
    card = pages.card("combined.dates", pages.results()["combined.dates"])
    assert "**Otherwise than the paper.** c is the final state itself, without tanh(V h)." in card
    best = pages.card("attention.cmudict_best", pages.results()["attention.cmudict_best"])
    first, own = best.split("## Equations")  # of its own
    assert "Otherwise than the paper" not in best and "s_t = " not in first and "s_t = " in own
    assert "every step. Its equations are [below](#equations)." in first
