"""Recipes: what they may say, and that they make and measure a model."""

from __future__ import annotations

import json
import sys

import pytest

from keras_attn import datasets, recipes, text, zoo

TOML = """
architecture = "attention"
data = "words"
seeds = [0, 3]

[source]
tokeniser = "character"
lowercase = true

[target]
tokeniser = "whitespace"

[options]
size = "tiny"
cell = "simple_rnn"
bidirectional = false

[training]
epochs = 2
batch_size = 8

[decoding]
beam_size = 2
"""
SEEDS = list(enumerate((3, 3, 0)))
SAID = {"c": "K", "a": "AE", "t": "T"}


class Words:
    """A data set of spelling."""

    ABOUT = datasets.cmudict.ABOUT

    @staticmethod
    def load(directory=None, first="", fold=0):
        Words.given = {"first": first, "fold": fold}
        words = ["cat", "act", "tact", "at", "cc", "aaaa", "tttttt"]
        pairs = datasets.Pairs(words * 4, [" ".join(SAID[x] for x in word) for word in words] * 4)
        held_out = datasets.Pairs(["cat", "tac", "tac", "catacata"], ["K AE T", "T AE K", "T", "K"])
        parts = datasets.Parts(pairs, held_out)
        Words.asked = directory
        return parts


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.DATA, "words", Words)
    path = tmp_path / "recipe.toml"
    path.write_text(TOML)
    return path


def test_a_recipe_is_read(file):
    recipe = recipes.read(file)
    assert (recipe.architecture, recipe.data, recipe.seeds) == ("attention", "words", [0, 3])
    assert recipe.source == {"tokeniser": "character", "lowercase": True}
    assert recipe.training == {"epochs": 2, "batch_size": 8}


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("epochs", "epoch", "training has no 'epoch'.* Did you mean 'epochs'"),
        ("epochs = 2\n", "", "training.epochs: expected an int, got none"),
        ("seeds", "seed", "a recipe has no 'seed'.* Did you mean 'seeds'"),
        ("[0, 3]", "[]", "seeds: expected ints from 0"),
        ("[0, 3]", "[true]", "seeds: expected ints from 0"),
        ("[0, 3]", "0", "seeds: expected a list, got 0"),
        ('"words"', '"word"', "data: expected one of .*'words'.*, got 'word'"),
        ('"attention"', '"atention"', "atention"),
        ('"attention"', "3", "architecture: expected a str, got 3"),
        ('"character"', '"letters"', "source.tokeniser: expected one of .*, got 'letters'"),
        ("lowercase", "lower", "source has no 'lower'"),
        ("beam_size", "beams", "decoding has no 'beams'"),
        ("bidirectional", "bidirection", "bidirection"),
        ("[target]", "[target", "recipe.toml"),
        ("[decoding]\nbeam_size = 2", "", None),
    ],
)
def test_what_a_recipe_may_say(file, old, new, message):
    text_of = TOML.replace(old, new)
    assert text_of != TOML
    file.write_text(text_of)
    if message is None:
        assert recipes.read(file).decoding == {}
        return
    with pytest.raises(ValueError, match=message) as error:
        recipes.read(file)
    assert str(error.value).startswith(str(file))


def test_a_table_is_a_table(file):
    file.write_text("options = 3\n" + TOML.replace("[options]", "[source.x]"))
    with pytest.raises(ValueError, match="options: expected a table"):
        recipes.read(file)
    with pytest.raises(FileNotFoundError):
        recipes.read(file.with_name("none.toml"))


def test_a_run_trains_measures_and_comes_again(file, tmp_path):
    recipe = recipes.read(file)
    model, found = recipes.run(recipe, tmp_path / "run", 3, "here")
    assert Words.asked == "here" and model.name == "attention"
    assert (found["seed"], found["weights"]) == (3, model.count_params())
    assert len(found["log"]) == 2 and found["best_epoch"] in (1, 2)
    assert found["minutes"] >= 0 and found["peak_memory_mb"] > 100
    measured = found["measured"]
    assert measured["sources"] == 3  # two targets of one source are one
    assert [(row["from"], row["to"], row["sources"]) for row in measured["by_length"]] == [
        (1, 3, 2),
        (8, 9, 1),
    ]
    json.dumps(found)
    once = recipe._replace(training={**recipe.training, "epochs": 1})
    losses = [recipes.run(once, tmp_path / f"{i}", seed)[1]["log"][0]["loss"] for i, seed in SEEDS]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("package", ["rapidfuzz", "sacrebleu"])
def test_what_measures_is_looked_for_before_the_training(file, tmp_path, monkeypatch, package):
    module = {"rapidfuzz": "rapidfuzz.distance", "sacrebleu": "sacrebleu.metrics"}[package]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(Words, "ABOUT", Words.ABOUT._replace(translation=True))
    with pytest.raises(ImportError, match=package):
        recipes.run(recipes.read(file), tmp_path / "run", 0)
    assert not (tmp_path / "run").exists()


def test_trained_models_may_teach(file, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="training.teacher: expected a list of models of the pack"):
        file.write_text(TOML.replace("epochs = 2", 'epochs = 2\nteacher = ["attention.nowhere"]'))
        recipes.read(file)
    with pytest.raises(ValueError, match="training.teacher: expected a list of models of the pack"):
        file.write_text(TOML.replace("epochs = 2", 'epochs = 2\nteacher = "attention.cmudict"'))
        recipes.read(file)
    file.write_text(TOML)
    alone = recipes.read(file)
    teachers = [recipes.build(alone, Words.load().train, seed) for seed in (5, 6)]
    built = zoo.build
    trained = dict(zip(("attention.cmudict", "combined.cmudict"), teachers, strict=True))
    monkeypatch.setattr(zoo, "build", lambda name, **x: trained.get(name) or built(name, **x))
    losses = []
    for number in range(3):
        names = list(trained)[:number]
        recipe = alone._replace(training={**alone.training, "epochs": 1, "teacher": names})
        _, found = recipes.run(recipe, tmp_path / str(number), 3)
        losses.append(found["log"][0]["loss"])
    assert len(set(losses)) == 3
    with pytest.raises(ValueError, match="holds a run with .'teacher': "):
        recipes.run(recipe._replace(training={**recipe.training, "teacher": []}), tmp_path / "2", 3)


def test_targets_are_those_that_the_model_has_learnt_to_write(file):
    recipe = recipes.read(file)
    pairs = datasets.Pairs(["a", "bb", "bb", "ccccc"], ["A", "B", "b b", "C D"])
    cleaning = text.WhitespaceTokenizer.learn(["a"], lowercase=True).cleaning
    asked = []

    def generate(sources, **options):
        asked.append(options)
        return {"a": ["a"], "bb": ["b b"], "ccccc": ["c"]}[sources[0]]

    done = []
    found = recipes.measured(
        lambda sources, **options: [generate([source], **options)[0] for source in sources],
        cleaning,
        pairs,
        recipe,
        done.append,
    )
    assert asked == [{"beam_size": 2}] * 3 and done == [3]
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["token_error_rate"] == pytest.approx(1 / 5)
    assert [row["exact_match"] for row in found["by_length"]] == [1.0, 0.0]


def test_generated_data_lies_nowhere(file):
    recipe = recipes.read(file)._replace(data="dates")
    with pytest.raises(ValueError, match="directory: 'dates' is generated"):
        recipes.pairs_of(recipe, "here")


def test_data_has_options(file):
    file.write_text(
        TOML.replace("[source]", '[data_options]\nfirst = "c"\nfold = "seed"\n[source]', 1)
    )
    recipe = recipes.read(file)
    recipes.pairs_of(recipe, "here", 3)
    assert Words.given == {"first": "c", "fold": 3} and Words.asked == "here"
    file.write_text(TOML.replace("[source]", "[data_options]\ndirectory = 1\n[source]", 1))
    with pytest.raises(
        ValueError, match="data_options has no 'directory'; it has .'first', 'fold'"
    ):
        recipes.read(file)


@pytest.mark.parametrize("by_row", [False, True])
def test_rows_count_where_the_data_is_running_text(by_row):
    pairs = datasets.Pairs(["a", "b", "a", "a"], ["A", "B", "A", "Ä"])
    cleaning = text.CharacterTokenizer.learn(["A"]).cleaning
    rows, said = recipes.answered(
        lambda chunk: [x.upper() for x in chunk], cleaning, pairs, by_row=by_row
    )
    if by_row:
        assert rows.sources == ["a", "b", "a", "a"] and said == ["A", "B", "A", "A"]
        assert rows.references == [["A"], ["B"], ["A"], ["Ä"]]
    else:
        assert rows.sources == ["a", "b"] and rows.references == [["A", "A", "Ä"], ["B"]]


def test_translations_are_measured_by_bleu(file):
    recipe = recipes.read(file)._replace(
        data="multi30k", source={"tokeniser": "whitespace"}, target={"tokeniser": "whitespace"}
    )
    pairs = datasets.Pairs(["ein hund rennt dort", "ja"], ["A dog runs over there .", "Yes ."])
    cleaning = text.WhitespaceTokenizer.learn(["a"]).cleaning
    said = {"ein hund rennt dort": "a dog runs over there .", "ja": "yes ."}
    found = recipes.measured(lambda xs, **_: [said[x] for x in xs], cleaning, pairs, recipe)
    assert found["bleu"] == pytest.approx(100) and found["exact_match"] == 0
    assert "case:lc" in found["bleu_signature"]


def test_one_tokeniser_may_be_for_both_sides(file):
    file.write_text(
        TOML.replace('[target]\ntokeniser = "whitespace"', '[target]\ntokeniser = "joint"').replace(
            "[options]", "[options]\nshare_embeddings = true"
        )
    )
    recipe = recipes.read(file)
    model = recipes.build(recipe, recipes.pairs_of(recipe)[0], 0)
    assert model.source is model.target
    assert {*"cat", *"k"} <= {*model.source.vocabulary}  # it is one of lower case
    file.write_text(
        TOML.replace('[source]\ntokeniser = "character"', '[source]\ntokeniser = "joint"')
    )
    with pytest.raises(ValueError, match="source.tokeniser: expected one of .* got 'joint'"):
        recipes.read(file)


@pytest.mark.parametrize(
    "given, message",
    [
        ("beam_size = 0", "decoding.beam_size: expected a positive int, got 0"),
        ("beam_size = true", "decoding.beam_size: expected a positive int, got True"),
        ("length_penalty = -1.0", "decoding.length_penalty: expected a number from 0, got -1.0"),
    ],
)
def test_decoding_is_checked_before_the_training(file, given, message):
    file.write_text(TOML.replace("beam_size = 2", given))
    with pytest.raises(ValueError, match=message):
        recipes.read(file)


def test_a_digest_is_of_all_but_the_seeds(file):
    recipe = recipes.read(file)
    digest = recipes.digest(recipe)
    assert digest == recipes.digest(recipe._replace(seeds=[7]))
    other = recipe._replace(decoding={"beam_size": 3})
    assert digest != recipes.digest(other)
    assert recipes.digest(recipe, "decoding") == recipes.digest(other, "decoding") != digest


def test_what_a_recipe_leaves_to_defaults_is_told_too(file):
    recipe = recipes.read(file)
    told = recipes.resolved(recipe)
    assert told["options.size"] == "tiny" and told["options.bridge"] == "linear"
    assert (told["training.clip"], told["decoding.length_penalty"]) == (1.0, 0.0)
    assert told["source.tokeniser"] == recipe.source["tokeniser"]
    assert told["source.min_count"] == 1 and "data_options.directory" not in told
    assert not any("seeds" in key or key == "training.seed" for key in told)
    assert json.loads(json.dumps(told)) == told


def test_what_has_changed_since_is_named(file):
    recipe = recipes.read(file)
    before = recipes.resolved(recipe)
    assert recipes.changed(recipe._replace(seeds=[7]), before) == []
    other = recipe._replace(training=recipe.training | {"clip": 2.0}, decoding={"beam_size": 3})
    assert recipes.changed(other, before) == ["decoding.beam_size", "training.clip"]
    assert recipes.changed(recipe, before | {"options.bridge": "dense"}) == ["options.bridge"]
    assert recipes.changed(recipe, before | {"options.gone": 1}) == ["options.gone"]
    later = {key: x for key, x in before.items() if key != "options.copy"}
    assert recipes.changed(recipe, later) == []
    copying = recipe._replace(options=recipe.options | {"copy": "gate"})
    assert recipes.changed(copying, later) == ["options.copy"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 3]", "seeds = [0, 0]", r"seeds: expected each once, got \[0, 0\]"),
        ("seeds = [0, 3]", "seeds = [4294967296]", r"seeds: expected ints from 0 to 2\*\*32 - 1"),
        ('"whitespace"', '["whitespace"]', "target.tokeniser: expected one of"),
        ("lowercase = true", 'lowercase = "yes"', "source.lowercase: expected a bool, got 'yes'"),
        ("epochs = 2", 'epochs = "two"', "training.epochs: expected an int, got 'two'"),
        ("epochs = 2", "epochs = 2\nmonitor = [1]", "training.monitor: expected a str"),
        ("epochs = 2", "epochs = 2\nclip = true", "training.clip: expected a float, got True"),
        ("epochs = 2", "epochs = 2\nteacher_weight = 0.5", "teacher_weight: expected a teacher"),
        ('size = "tiny"', "size = 2026-01-01", "size: expected one of"),
        ('size = "tiny"', "max_source = 2026-01-01", "options.max_source: expected a string"),
        ('size = "tiny"', 'name = "x"', "unknown option 'name'"),
    ],
)
def test_values_of_another_kind_are_refused(file, old, new, message):
    assert old in TOML
    file.write_text(TOML.replace(old, new))
    with pytest.raises(ValueError, match=f"{file.name}: .*{message}"):
        recipes.read(file)
