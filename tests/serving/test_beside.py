"""What stands beside an exported graph."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import small_models
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import keras_attn
from keras_attn import text, zoo
from keras_attn.serving import beside, export
from keras_attn.serving.client import AT_A_TIME


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = small_models.small("attention", **small_models.CHEAP)
    path = tmp_path_factory.mktemp("models") / "my model" / "7"
    model.export(path, beam_size=4, verbose=False)
    return path


def described(path):
    return json.loads((path / "assets.extra/keras_attn.json").read_text())


def test_the_description_rebuilds_the_model_and_knows_its_vocabularies(path):
    found = described(path)
    (saved,) = found["models"]
    model = keras_attn.Seq2Seq.from_config(saved["config"])
    assert saved["name"] == "attention" and model.max_source == found["max_source"] == 12
    assert found["made_with"]["keras_attn"] == keras_attn.__version__
    assert (found["beam_size"], found["rnn_kernel"], found["needs_tf_text"]) == (4, "cpu", False)
    assert found["lowest_tensorflow"] == "2.14.1"
    assert found["special_ids"] == {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    for side in ("source", "target"):
        raw = (path / f"assets.extra/{side}_vocabulary.json").read_bytes()
        assert json.loads(raw) == list(getattr(model, side).vocabulary)
        expected = {"size": len(json.loads(raw)), "sha256": hashlib.sha256(raw).hexdigest()}
        assert expected.items() <= found["vocabularies"][side].items()


def test_signatures_are_described_as_the_graph_has_them(path):
    from keras_attn.serving.session import Session

    with Session(path) as session:
        for name, table in described(path)["signatures"].items():
            signature = session.signatures[name]
            for side in ("inputs", "outputs"):
                infos = getattr(signature, side)
                graph = {key: [info.dtype, list(info.shape)] for key, info in infos.items()}
                assert table[side] == graph, (name, side)
        assert set(described(path)["signatures"]) == set(session.signatures)


def test_configurations_are_what_the_server_reads(path):
    config = text_format.Parse(
        (path / "assets.extra/models.config").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )
    (served,) = config.model_config_list.config
    assert (served.name, served.base_path) == ("my_model", "/models/my_model")
    batching = (path / "assets.extra/batching.config").read_text()
    assert "\npad_variable_length_inputs: true\n" in batching  # ids of unequal widths
    (largest,) = re.findall(r"max_batch_size { value: (\d+) }", batching)
    assert int(largest) >= AT_A_TIME  # or a request of our client would be refused


def test_golden_rows_are_the_models_own(path):
    lines = (path / "assets.extra/golden.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [len(rows), rows[0]["source"], rows[0]["target"]] == [10, "", ""]
    assert max(len(row["source_ids"]) for row in rows) == 12  # one is cut
    assert len({row["source"] for row in rows}) == 10
    assert any(3 in row["source_ids"] for row in rows)  # and one has what is not known
    assert [i for i, row in enumerate(rows) if row["gap"] is None] == [0]


def test_every_kind_of_tokeniser_has_golden_sources():
    words = text.WhitespaceTokenizer.learn(["a b", "c"])
    for tokeniser in (text.ByteTokenizer(), words, text.CharacterTokenizer.learn(["a"])):
        model = zoo.build("attention", source=tokeniser, target=tokeniser, size="tiny")
        sources = beside.golden_sources(model)
        assert len(sources) == len(set(sources)) == 10 or tokeniser.vocabulary_size < 6


def test_ensembles_are_described(tmp_path):
    names = ("combined", "context_as_init")
    models = [small_models.small(name, **small_models.CHEAP) for name in names]
    zoo.ensemble(models).export(tmp_path / "1", verbose=False)
    found = described(tmp_path / "1")
    assert found["kind"] == "ensemble" and len(found["models"]) == 2
    assert found["lowest_tensorflow"] is None  # nobody has looked
    assert {"memory_0_summary", "memory_1_lengths", "state_0_recurrent_0_0"} <= set(
        found["signatures"]["step"]["inputs"]
    )


def test_the_oldest_tensorflow_is_told_where_it_was_looked_for():
    model = small_models.shared("combined")
    looked_at = {"runtime": "tensorflow", "beam_size": 4, "rnn_kernel": "cpu"}
    for name, options, oldest in (
        ("combined", looked_at, "2.14.1"),
        ("combined", looked_at | {"rnn_kernel": "portable"}, None),
        ("mine", looked_at, None),
    ):
        other = type(model).from_config(model.get_config() | {"name": name})
        assert beside.description("x", other, options, {})["lowest_tensorflow"] == oldest


def test_names_are_such_as_a_url_has(tmp_path):
    for name, expected in {"a b/1": "a_b", "m": "m", "g2p.v-1/12": "g2p.v-1", "é/3": "_"}.items():
        assert export.served_name(tmp_path / name) == expected
