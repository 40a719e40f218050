"""The C library is never loaded here: sessions live in processes without Python's TensorFlow."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SESSION = Path(__file__).parents[2] / "keras_attn" / "serving" / "session.py"

BUILD = """
import sys
import tensorflow as tf

NUMBERS = ["float16", "float32", "float64", "complex64", "complex128", "bool"]
NUMBERS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
texts = tf.TensorSpec([None], tf.string, "source")
function = lambda *specs: tf.function(input_signature=specs, autograph=False)


class Model(tf.Module):
    def __init__(self):
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2]))
        self.table = tf.lookup.StaticHashTable(pairs, -1)
        self.factor = tf.Variable(2.0)
        self.text = tf.Variable(["nothing"], shape=[None])

    @function(texts)
    def default(self, source):
        lengths = tf.cast(tf.strings.length(source), tf.float32)
        return {
            "target": tf.strings.upper(source, encoding=""),
            "score": self.factor * lengths,
            "id": self.table.lookup(source),
        }

    @function(texts)
    def chars(self, source):
        return {"chars": tf.strings.bytes_split(source).to_tensor("", shape=[None, 4])}

    @function({number: tf.TensorSpec(None, number, number) for number in NUMBERS})
    def numbers(self, given):
        return {name: tf.identity(number) for name, number in given.items()}

    @function(texts, tf.TensorSpec([], tf.int32, "times"))
    def repeat(self, source, times=tf.constant(2)):
        return {"target": tf.repeat(source, times)}

    @function(tf.TensorSpec([None, 2], tf.int32, "pairs"))
    def checked(self, pairs):
        checks = [tf.debugging.assert_less(pairs, 100, message="too large")]
        with tf.control_dependencies(checks):
            return {"sum": tf.reduce_sum(tf.ensure_shape(pairs, [None, 2]), axis=1)}

    @function(texts)
    def keep(self, source):
        self.text.assign(source)
        return {"size": tf.size(source)}

    @function(tf.TensorSpec([], tf.bool, "yes"))
    def kept(self, yes):
        return {"text": self.text.read_value()}

    @function(tf.TensorSpec([None], tf.float32, "x"))
    def brain(self, x):
        return {"y": tf.cast(x, tf.bfloat16)}  # a type that numpy has not


model = Model()
names = "chars numbers repeat checked keep kept brain".split()
signatures = {name: getattr(model, name) for name in names}
tf.saved_model.save(model, sys.argv[1], {"serving_default": model.default, **signatures})

if len(sys.argv) > 2:
    import tensorflow_text

    class Splitter(tf.Module):
        @function(texts)
        def split(self, source):
            return {"words": tensorflow_text.WhitespaceTokenizer().tokenize(source).to_tensor()}

    splitter = Splitter()
    tf.saved_model.save(splitter, sys.argv[2], {"serving_default": splitter.split})
"""

PREAMBLE = f"""
import importlib.util, os, sys
import numpy as np

spec = importlib.util.spec_from_file_location("session", {str(SESSION)!r})
session = sys.modules["session"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(session)


def raises(kind, words, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        assert words in str(error), error
        return error
    raise AssertionError(f"{{kind}} was not raised")


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


"""

AFTERWARDS = """
assert not {"tensorflow", "keras", "keras_attn"} & set(sys.modules)
print("fine")
"""

HAS_TEXT = importlib.util.find_spec("tensorflow_text") is not None


def python(*arguments, folder, stdin=None):
    """Runs Python somewhere else than in the checkout."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": ""}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=folder,
        env=os.environ | quiet,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder, é")
    paths = [folder / "tiny model" / "1"] + [folder / "splitter" / "1"] * HAS_TEXT
    result = python("-c", BUILD, *paths, folder=folder)
    assert result.returncode == 0, result.stderr.decode()
    return folder


@pytest.fixture
def check(folder):
    """Runs code with `session` and `model`, an open one, in a process of its own."""

    def run(code):
        path = folder / "tiny model" / "1"
        code = f"{PREAMBLE}model = session.Session({str(path)!r})\n{textwrap.dedent(code)}"
        result = python("-c", code + AFTERWARDS, folder=folder)
        assert result.stdout.endswith(b"fine\n"), result.stderr.decode()[-3000:]

    return run


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("session_under_test", SESSION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# === What comes back ===


def test_signatures(check):
    check("""
        expected = "brain chars checked keep kept numbers repeat serving_default".split()
        assert list(model.signatures) == expected
        default = model.signatures["serving_default"]
        assert list(default.inputs) == ["source"]
        assert list(default.outputs) == ["id", "score", "target"]
        assert default.inputs["source"].dtype == default.outputs["target"].dtype == "string"
        assert default.outputs["score"][1:] == ("float32", (-1,))
        assert default.outputs["id"].dtype == "int32" and not default.optional
        assert default.method == "tensorflow/serving/predict"
        assert model.signatures["repeat"].optional == {"times"}
        assert model.signatures["repeat"].inputs["times"].shape == ()
        assert model.signatures["checked"].inputs["pairs"].shape == (-1, 2)
        assert model.signatures["numbers"].inputs["int8"][1:] == ("int8", None)
        assert model.signatures["chars"].outputs["chars"].shape == (-1, 4)
        assert "bfloat16" not in model.signatures["brain"].outputs["y"].dtype

        results = model.run(source=["a", b"b", "ccc"])
        assert results["target"].tolist() == [b"A", b"B", b"CCC"]
        assert results["score"].tolist() == [2.0, 2.0, 6.0] and results["score"].dtype == np.float32
        assert results["id"].tolist() == [1, 2, -1] and results["id"].dtype == np.int32
        assert list(results) == list(default.outputs)
        assert list(model.run("serving_default", ["score"], source=["a"])) == ["score"]
        assert model.run("repeat", source=["x"])["target"].tolist() == [b"x"] * 2
        assert model.run("repeat", source=["x"], times=5)["target"].tolist() == [b"x"] * 5
        chars = model.run("chars", source=["ab", ""])["chars"]
        assert chars.shape == (2, 4) and chars.tolist() == [[b"a", b"b", b"", b""], [b""] * 4]
    """)


def test_texts(check):
    """Short ones are stored in place, long ones elsewhere: 22 bytes is the border."""
    check("""
        texts = [b"", b"\\0", b"a\\0b\\0", b"\\xff\\xfe\\x80", "é".encode()[:1], b"x" * 100_000]
        texts += [b"y" * length for length in (21, 22, 23, 24, 127, 128, 16_383, 16_384)]
        run = lambda source: model.run(source=source, outputs=["target"])["target"]
        assert run(texts).tolist() == [text.upper() for text in texts]
        assert run(texts * 100).tolist() == [text.upper() for text in texts] * 100
        unicode = ["日本", "😀\\ufeff", "\\u202e"]
        assert run(unicode).tolist() == [text.encode() for text in unicode]
        for empty in ([], (), np.zeros(0, object), np.zeros(0, "S1"), np.zeros(0)):
            assert run(empty).shape == (0,) and run(empty).dtype == object
        for array in (["a", "bc"], [b"a", b"bc"], np.array(["a", b"bc"], object)):
            assert run(np.array(array)).tolist() == [b"A", b"BC"]
        assert run([np.bytes_(b"a\\0"), np.str_("b\\0")]).tolist() == [b"A\\0", b"B\\0"]
        many = [b"%d" % n for n in range(20_000)]
        assert run(many).tolist() == many
        assert run(np.array([["a", "b"], ["c", "d"]])[:, 1]).tolist() == [b"B", b"D"]
    """)


def test_numbers(check):
    check("""
        names = model.signatures["numbers"].inputs
        for shape in [(), (1,), (0,), (2, 0, 3), (2, 3, 4)]:
            given = {}
            for name in names:
                values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
                values = values * (1 - 2j) if name.startswith("complex") else values
                given[name] = values.astype(name)
            results = model.run("numbers", **given)
            for name, array in given.items():
                assert results[name].dtype == np.dtype(name) and results[name].shape == shape, name
                np.testing.assert_array_equal(results[name], array)
                results[name][...] = 0  # the caller's own
        whole = [n for n in names if "int" in n]
        lowest = {"bool": True} | {n: np.iinfo(n).min for n in whole}
        highest = {"bool": False} | {n: np.iinfo(n).max for n in whole}
        rest = {n: [np.inf, -0.0, 1e-3] for n in names if n not in lowest}
        for extreme in (lowest, highest):
            results = model.run("numbers", **extreme, **rest)
            assert {n: results[n].item() for n in extreme} == extreme
            assert results["float64"].tolist() == [np.inf, -0.0, 1e-3]
            assert results["float16"].tolist() == np.array(rest["float16"], "float16").tolist()
        transposed = np.arange(6, dtype="int32").reshape(3, 2).T
        zeros = {n: 0 for n in names if n not in ("int32", "int64")}
        results = model.run("numbers", **zeros, int32=transposed, int64=transposed[:, ::-1])
        np.testing.assert_array_equal(results["int32"], transposed)
        np.testing.assert_array_equal(results["int64"], transposed[:, ::-1])
    """)


def test_a_graph_may_keep_what_it_is_fed(check):
    """A variable holds the fed tensor itself: its texts must outlive the call."""
    check("""
        for n in range(200):
            texts = [f"{n} of a long text that is stored elsewhere {'.' * n}".encode(), b"short"]
            assert model.run("keep", source=texts)["size"] == 2
            model.run(source=["something else " * 10])
            assert model.run("kept", yes=True)["text"].tolist() == texts
    """)


# === What is refused ===


def test_wrong_arguments(check):
    check("""
        run = model.run
        raises(ValueError, "Unknown signature 'beam'. Expected one of ['brain', ", run, "beam")
        raises(ValueError, "Unknown input 'text'. Expected one of ['source']", run, text=["a"])
        raises(ValueError, "also wants the inputs ['source']", run)
        unknown = "Unknown output 'ids'. Expected one of ['id', 'score', 'target']"
        raises(ValueError, unknown, run, source=["a"], outputs=["ids"])
        for wrong in ([1], [None], [["a"], ["b", "c"]], [True], np.ones(2)):
            raises(ValueError, "'source' wants texts. Received: <class", run, source=wrong)
        raises(ValueError, "surrogates not allowed", run, source=["\\ud800"])
        for wrong in (1.5, 2**31, -(2**31) - 1, np.nan, 1e300, [2, 0.1]):
            raises(ValueError, "'pairs' wants int32, which cannot", run, "checked", pairs=wrong)
        for wrong in ([["a", "b"]], [[2**70, 0]], [[1j, 0]], [[None, 0]]):
            raises(ValueError, "'pairs' wants int32. Received: ", run, "checked", pairs=wrong)
        raises(ValueError, "inhomogeneous", run, "checked", pairs=[[1], [2, 3]])
        raises(ValueError, "Numpy has no type for tensors of type 14", run, "brain", x=[1.0])
        for right in ([[1.0, 2.0]], [[True, 2]], np.array([[1, 2]], "uint8"), [np.array([1, 2])]):
            assert run("checked", pairs=right)["sum"].tolist() == [3]
        assert run(source=["a"])["id"].tolist() == [1]
    """)


def test_errors_of_tensorflow(check, folder):
    (folder / "broken").mkdir()
    (folder / "broken" / "saved_model.pb").write_bytes(b"not a model")
    (folder / "empty").mkdir()
    check("""
        import pickle
        error = raises(session.SessionError, "too large", model.run, "checked", pairs=[[1, 100]])
        assert error.code == "INVALID_ARGUMENT" and "too large" in error.message
        assert str(error).startswith("Running: INVALID_ARGUMENT: ")
        assert pickle.loads(pickle.dumps(error)).code == error.code
        shape = raises(session.SessionError, "shape", model.run, "checked", pairs=[[1, 2, 3]])
        assert shape.code == "INVALID_ARGUMENT" and isinstance(shape, RuntimeError)
        assert model.run("checked", pairs=[[1, 2]])["sum"].tolist() == [3]  # no harm done
        for missing in ("nowhere", "empty", "broken/saved_model.pb"):
            raises(FileNotFoundError, f"no SavedModel in '{missing}'", session.Session, missing)
        broken = raises(session.SessionError, "Loading 'broken'", session.Session, "broken")
        assert broken.code in session._CODES[1:] and broken.message
        library = raises(
            session.SessionError, "no.so", session.Session, "tiny model/1", op_libraries=["no.so"]
        )
        assert library.code == "NOT_FOUND"
        import shutil
        shutil.copytree("tiny model/1", "bare")
        shutil.rmtree("bare/variables")
        with session.Session("bare") as bare:  # the loader lets it pass
            error = raises(session.SessionError, "", bare.run, source=["a"])
            assert error.code == "FAILED_PRECONDITION"
            assert bare.run("chars", source=["ab"])["chars"].tolist() == [[b"a", b"b", b"", b""]]
    """)


def test_closing(check):
    check("""
        import gc, pathlib, weakref
        with session.Session(pathlib.Path("tiny model/1")) as other:
            assert other.run(source=["a"])["id"].tolist() == [1]
        other.close()
        raises(ValueError, "The session is closed", other.run, source=["a"])
        assert list(other.signatures) == list(model.signatures)
        assert model.run(source=["b"])["id"].tolist() == [2]
        dropped = session.Session("tiny model/1")
        gone = weakref.ref(dropped)
        del dropped
        gc.collect()
        assert gone() is None
    """)


@pytest.mark.skipif(not HAS_TEXT, reason="needs tensorflow-text")
def test_op_libraries(check):
    check("""
        words = "Op type not registered"
        error = raises(session.SessionError, words, session.Session, "splitter/1")
        assert error.code == "NOT_FOUND"
        found = importlib.util.find_spec("tensorflow_text").submodule_search_locations[0]
        library = f"{found}/python/ops/_whitespace_tokenizer_v2.so"
        with session.Session("splitter/1", op_libraries=[library]) as splitter:
            assert splitter.run(source=["a bc"])["words"].tolist() == [[b"a", b"bc"]]
    """)


def test_tensorflow_is_missing(module, tmp_path, monkeypatch):
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").touch()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="TensorFlow is not installed"):
        module.Session(model)
    elsewhere = importlib.machinery.ModuleSpec("tensorflow", None, is_package=True)
    elsewhere.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: elsewhere)
    with pytest.raises(OSError, match="libtensorflow_framework.* and .*libtensorflow_cc.*"):
        module.Session(model)


# === Many calls ===


def test_threads_answer_as_one_does(check):
    check("""
        import threading
        from concurrent.futures import ThreadPoolExecutor

        def ask(n):
            texts = [f"{'ab'[n % 2]}", f"text {n} " * (n % 7)]
            results = model.run(source=texts)
            return [results[name].tolist() for name in sorted(results)]

        expected = [ask(n) for n in range(800)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(800))) == expected

        started, closed = threading.Barrier(9), []
        def until_closed():
            started.wait()
            try:
                while True:
                    ask(1)
            except ValueError as error:
                closed.append(str(error))
        threads = [threading.Thread(target=until_closed) for _ in range(8)]
        for thread in threads:
            thread.start()
        started.wait()
        model.close()
        for thread in threads:
            thread.join()
        assert closed == ["The session is closed"] * 8
    """)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat(check):
    """3,000 calls that are fed 75 MB of texts, 1,500 that fail, and 15 sessions."""
    check("""
        def calls(count):
            texts = [b"x" * 20_000, *[b"x" * 100] * 50]
            for n in range(count):
                model.run(("keep", "serving_default")[n % 2], source=texts)
                if n % 2:
                    raises(session.SessionError, "", model.run, "checked", pairs=[[1, 100]])

        def sessions(count):
            for _ in range(count):
                with session.Session("tiny model/1") as other:
                    other.run(source=["a"])

        calls(300)
        before = resident()
        calls(3_000)
        assert resident() - before < 10, (before, resident())
        sessions(3)
        before = resident()
        sessions(15)
        assert resident() - before < 20, (before, resident())
    """)


# === As a script ===


def test_script(folder):
    path = "tiny model/1"
    result = python(SESSION, path, "a", "bé", "", folder=folder)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode() == "A\t1\t2.0\nBé\t-1\t6.0\n\t-1\t0.0\n"
    given = b"a\nb\r\nx\ty\r\xff\n\nlast"
    result = python(SESSION, "--output", "target", path, folder=folder, stdin=given)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode() == "A\nB\nX Y �\n\nLAST\n"
    result = python(SESSION, "nowhere", "a", folder=folder)
    assert result.returncode == 1 and not result.stdout
    assert result.stderr == b"session.py: There is no SavedModel in 'nowhere'\n"


def test_script_options(check):
    check("""
        import contextlib, io, json

        def lines(*arguments, fails=False):
            out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    session.main(["tiny model/1", *arguments])
                except SystemExit as error:
                    assert fails and error.code == 1
                    return err.getvalue()
            return out.buffer.getvalue().decode().splitlines()

        assert lines("--signature", "repeat", "x") == ["x"]
        assert lines("x", "--output", "score", "--output", "target") == ["X\\t2.0"]
        (chars,) = lines("--signature", "chars", "ab")
        assert json.loads(chars) == ["a", "b", "", ""]
        assert "Unknown signature 'beam'" in lines("--signature", "beam", "a", fails=True)
        assert "Unknown output 'ids'" in lines("--output", "ids", "a", fails=True)
        assert "does not take one text a row" in lines("--signature", "checked", "a", fails=True)
    """)
