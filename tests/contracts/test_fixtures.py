"""What earlier versions wrote still loads, answers the same, trains on and is served.

The files are made by tests/fixtures/make.py, once a version.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from small_models import SPOKEN, WORDS

import keras_attn.serving.session
from keras_attn.serving import Client, checking, inspection
from keras_attn.serving.servable import Servable
from keras_attn.serving.server import Server

TESTS = Path(__file__).parent.parent
VERSIONS = sorted(folder for folder in (TESTS / "fixtures").glob("v*"))
MODELS = [file for folder in VERSIONS for file in sorted(folder.glob("*.keras"))]


def test_there_are_some():
    assert {folder.name for folder in VERSIONS} >= {"v0.1"}
    assert len(MODELS) >= 3


@pytest.mark.parametrize("file", MODELS, ids=lambda file: f"{file.parent.name} {file.stem}")
def test_a_model_answers_as_it_did_and_trains_on(file):
    expected = json.loads((file.parent / "expected.json").read_text())[file.stem]
    model = keras.saving.load_model(file)
    assert model.generate(WORDS) == expected["greedy"]
    assert model.generate(WORDS, beam_size=3) == expected["beam"]
    scores = model.search(WORDS, num_return=1).scores[:, 0]
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.score(WORDS, SPOKEN), expected["log_p"], rtol=1e-5, atol=1e-5)
    assert int(model.optimizer.iterations) == expected["steps"]
    history = model.fit(WORDS, SPOKEN, epochs=8, seed=0, verbose=0).history["loss"]
    assert history[-1] < history[0] and int(model.optimizer.iterations) > expected["steps"]


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def exported(request, tmp_path):
    with tarfile.open(request.param / "letters.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "letters" / "1"


def test_an_export_runs_without_this_package(exported):
    session = keras_attn.serving.session.__file__
    command = [sys.executable, str(TESTS / "check_export.py"), session, str(exported)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["golden"] == 10 and len(counts["warm-up"]) == 10


def test_an_export_is_served_and_inspected(exported):
    rows = checking.golden(exported)
    with Server(Servable(exported.parent, tell=lambda _: None), 0, 0) as server:
        for url in (f"http://127.0.0.1:{server.rest_port}", f"grpc://127.0.0.1:{server.grpc_port}"):
            client = Client(url, "letters", folder=exported)
            assert list(checking.differences(client, rows)) == []
            assert list(client.stream(rows[3]["source"])) == rows[3]["target"].split()
    found = inspection.inspect(exported)
    assert found.about["name"] == "letters" and not found.pinned
