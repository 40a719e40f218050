import csv
import gzip
import io
import json
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn import datasets
from keras_attn.datasets import files
from keras_attn.datasets.about import Pairs

CATS = Pairs(["un chat", "deux chats"], ["a cat", "two cats"])


@pytest.fixture
def written(tmp_path):
    """Writes bytes, or text as UTF-8, into a file and returns its path."""

    def write(content, name="data.tsv"):
        path = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def complaint(path, **options):
    """The one line that is said about a file, without the file's name."""
    with pytest.raises(ValueError) as caught:
        files.pairs(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}:") and "\n" not in message
    return message.removeprefix(f"{path}:")


# === Formats ===

CONTENTS = {
    "tsv": "un chat\ta cat\ndeux chats\ttwo cats\n",
    "csv": 'un chat,a cat\n"deux chats",two cats\n',
    "jsonl": '{"source": "un chat", "target": "a cat"}\n'
    '{"target": "two cats", "more": [1], "source": "deux chats"}\n',
}
NAMES = [("tsv", ".tsv"), ("tsv", ".txt"), ("csv", ".csv"), ("jsonl", ".jsonl")]
NAMES += [("jsonl", ".ndjson"), ("tsv", ".TSV")]
NAMES += [(kind, f"{ending}.gz") for kind, ending in NAMES]


@pytest.mark.parametrize("kind, ending", NAMES)
def test_format_is_told_by_the_name(written, kind, ending):
    path = written(CONTENTS[kind], f"da.ta{ending}")
    assert datasets.pairs(path) == datasets.pairs(str(path)) == CATS


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\r\n", "\r\n \n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_blank_lines_and_marks(written, kind, end, mark):
    lines = CONTENTS[kind].split("\n")
    name = f"data.{kind}"
    assert files.pairs(written(mark + end.join(lines), name)) == CATS
    assert files.pairs(written(mark + end + end.join(lines[:-1]), name)) == CATS
    assert files.pairs(written(f"{mark}{lines[0]}\r\n{lines[1]}\n", name)) == CATS


@pytest.mark.parametrize("name", ["data", "data.gz", "data.xlsx", "data.tsv.bz2", "tsv"])
def test_other_endings(written, name):
    assert ".tsv, .txt, .csv, .jsonl, .ndjson, or one of them and .gz" in complaint(
        written("a\tb\n", name)
    )


def test_fields_are_kept_as_they_are(written):
    fields = [" a ", '"b', 'c"d"', "e,f", "\u00e9", "e\u0301", "\u3000g", "\u2028h\x85", "İ"]
    path = written("".join(f"{field}\t{field}\n" for field in fields))
    assert files.pairs(path) == Pairs(fields, fields)


def test_csv_fields_with_line_ends_and_quotes(written):
    path = written('"a\nb","c\r\n\r\nd"\r\n\n"e ""f""", g\n', "data.csv")
    assert files.pairs(path) == Pairs(["a\nb", 'e "f"'], ["c\r\n\r\nd", " g"])


def test_mark_belongs_to_the_first_line_alone(written):
    path = written("\ufeff\ufeffa\tb\n\ufeffc\td\n")
    assert files.pairs(path).sources == ["\ufeffa", "\ufeffc"]


# === Property ===

BLANKLESS = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text)
WITHOUT = {"tsv": "[\t\n\r]", "csv": "\0", "jsonl": "\0"}


def as_text(kind, rows, quoting, ascii_only):
    if kind == "tsv":
        return "".join(f"{source}\t{target}\n" for source, target in rows)
    if kind == "csv":
        file = io.StringIO(newline="")
        csv.writer(file, quoting=quoting).writerows(rows)
        return file.getvalue()
    objects = [{"source": source, "target": target} for source, target in rows]
    return "".join(json.dumps(each, ensure_ascii=ascii_only) + "\n" for each in objects)


@pytest.mark.parametrize("kind", CONTENTS)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_what_was_written_is_read(kind, data):
    field = BLANKLESS.filter(lambda text: not re.search(WITHOUT[kind], text))
    rows = data.draw(st.lists(st.tuples(field, field), min_size=1, max_size=6))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    text = as_text(kind, rows, quoting, data.draw(st.booleans()))
    if text.startswith("\ufeff") or data.draw(st.booleans()):
        text = "\ufeff" + text
    zipped = data.draw(st.booleans())
    content = gzip.compress(text.encode()) if zipped else text.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"data.{kind}{'.gz' * zipped}")
        path.write_bytes(content)
        assert files.pairs(path) == Pairs([s for s, _ in rows], [t for _, t in rows])


@pytest.mark.parametrize("kind", CONTENTS)
@given(content=st.binary() | st.text(alphabet='a\t,"\n\r{}: é\0').map(str.encode))
@settings(deadline=None, max_examples=100)
def test_any_bytes_are_read_or_refused_with_the_line(kind, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"data.{kind}")
        path.write_bytes(content)
        try:
            found = files.pairs(path)
        except ValueError as error:
            number = re.match(
                r"(?:(\d+): expected .+, came .+| no pairs)\Z", str(error)[len(f"{path}:") :]
            )
            assert number and int(number[1] or 1) in range(1, content.count(b"\n") + 2)
        else:
            assert len(found.sources) == len(found.targets) > 0
            assert all(text.strip() for text in found.sources + found.targets)


# === Columns ===


@pytest.mark.parametrize("columns", [(2, 0), [2, 0]])
def test_columns_by_place(written, columns):
    assert files.pairs(written("a\tb\tc\nd\te\tf\tg\n"), columns=columns) == Pairs(
        ["c", "f"], ["a", "d"]
    )
    assert files.pairs(written("a,b,c\n", "a.csv"), columns=columns) == Pairs(["c"], ["a"])


def test_columns_by_name(written):
    rows = [["id", "en", "fr"], ["1", "a cat", "un chat"], ["2", "two cats", "deux chats"]]
    tsv = "\n".join("\t".join(row) for row in rows)
    for content, name in [(tsv, "a.tsv"), ("\ufeff\n" + tsv, "b.tsv.gz")]:
        assert files.pairs(written(content, name), columns=("fr", "en")) == CATS
    path = written("\n".join(",".join(f'"{field}"' for field in row) for row in rows), "c.csv")
    assert files.pairs(path, columns=["fr", "en"]) == CATS
    path = written('{"fr": "un chat", "en": "a cat", "id": 1}\n', "d.jsonl")
    assert files.pairs(path, columns=("fr", "en")) == Pairs(["un chat"], ["a cat"])


@pytest.mark.parametrize(
    "columns", ["ab", (0,), (0, 1, 2), (0, "b"), (-1, 0), (True, 0), (0.0, 1), 3, {0, 1}, ()]
)
@pytest.mark.parametrize("kind", CONTENTS)
def test_columns_are_two_places_or_names(written, columns, kind):
    with pytest.raises(ValueError, match=r"`columns` must be None.* Received: "):
        files.pairs(written(CONTENTS[kind], f"data.{kind}"), columns=columns)


def test_columns_of_json_have_names(written):
    with pytest.raises(ValueError, match="two names in JSON. Received: .0, 1."):
        files.pairs(written(CONTENTS["jsonl"], "data.jsonl"), columns=(0, 1))


@pytest.mark.parametrize(
    "content, name, columns, said",
    [
        ("a\tb\n\na\n", "tsv", None, "3: expected 2 columns, came 1 column; .*`columns=`"),
        ("a\tb\na\tb\tc\n", "tsv", None, "2: expected 2 columns, came 3 columns; .*`columns=`"),
        ("a b\n", "txt", None, "1: expected 2 columns, came 1 column; .*`columns=`"),
        ("a;b\n", "csv", None, "1: expected 2 columns, came 1 column; .*`columns=`"),
        ('"a\n\n",b\nc\n', "csv", None, "4: expected 2 columns, came 1 column; .*`columns=`"),
        ('a,b\n"c\nd"\n', "csv", None, "2: expected 2 columns, came 1 column; .*`columns=`"),
        ('""\n', "csv", None, "1: expected 2 columns, came 1 column; .*`columns=`"),
        ("a\tb\n", "tsv", (0, 2), "1: expected columns 0 and 2, from 0, came 2 columns"),
        ("x\ty\n", "tsv", ("x", "z"), "1: expected a header with one column 'z', came 'x', 'y'"),
        ("\nx,x\n", "csv", ("x", "x"), "2: expected a header with one column 'x', came 'x', 'x'"),
        ("x\ty\na\n", "tsv", ("x", "y"), "2: expected 2 columns, as in the header, came 1 column"),
        ("x,y\na,b,c\n", "csv", ("x", "y"), "2: expected 2 columns, as in .*, came 3 columns"),
        ('{"source": "a"}\n', "jsonl", None, "1: expected a key 'target', came 'source'"),
        ("{}\n", "jsonl", ("x", "y"), "1: expected a key 'x', came none"),
    ],
)
def test_missing_columns(written, content, name, columns, said):
    assert re.fullmatch(said, complaint(written(content, f"data.{name}"), columns=columns))


def test_long_headers_are_cut(written):
    path = written("\t".join(f"column {place}" for place in range(1000)))
    said = complaint(path, columns=("x", "y"))
    assert said.endswith("'column 19' and 980 more")


# === Contents ===


@pytest.mark.parametrize(
    "content, said",
    [
        ("a\tb\ncafé\td\n".encode("latin-1"), "2: expected UTF-8, came 0xE9 as byte 4 of the line"),
        ("\ufeff".encode() + b"a\tb\xff\n", "1: expected UTF-8, came 0xFF as byte 7 of the line"),
        ("a\tb\n".encode("utf-16"), "1: expected UTF-8, came UTF-16: save it as UTF-8"),
        (b"\xfe\xff" + "a\tb\n".encode("utf-16-be"), "1: expected UTF-8, came UTF-16"),
        ("a\tb\n".encode("utf-16-le"), "1: .* a NUL as byte 2 .*UTF-16.* save it as UTF-8"),
        ("a\tb\n".encode("utf-16-be"), "1: .* a NUL as byte 1 .*UTF-16.* save it as UTF-8"),
        (b"a\tb\na\0\tb\n", "2: expected text, came a NUL as byte 2 of the line"),
        (b"a\tb\n\tb\n", "2: expected a text, came an empty source"),
        (b"a\tb\na\t \n", "2: expected a text, came an empty target"),
        (b"a\tb\n\t\n", "2: expected a text, came an empty source"),
        ("\u3000\tb\n".encode(), "1: expected a text, came an empty source"),
    ],
)
@pytest.mark.parametrize("ending", ["tsv", "txt.gz"])
def test_text_is_checked(written, content, said, ending):
    assert re.match(said, complaint(written(content, f"data.{ending}")))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_all_formats_check_bytes(written, kind):
    for content in (CONTENTS[kind].encode("utf-16"), CONTENTS[kind].encode() + b"\xe9"):
        assert "save it as UTF-8" in complaint(written(content, f"data.{kind}"))


@pytest.mark.parametrize(
    "content, said",
    [
        ('a,b\n"c,d\ne,f\n', "2: expected CSV, came a row with: unexpected end of data"),
        ('a,b\n"c"d,e\n', "2: expected CSV, came a row with: .* expected after .*"),
        ("a,b\rc,d\n", "1: expected CSV, came a row with: new-line character .* field"),
        ('a,b\n"c\n",""\n', "2: expected a text, came an empty target"),
        ('a,b\n"' + "c\n" * 600_000, "2: expected CSV, came a row with: field larger than .*"),
    ],
)
def test_csv_is_checked(written, content, said):
    assert re.fullmatch(said, complaint(written(content, "data.csv")))


@pytest.mark.parametrize(
    "line, said",
    [
        ("{", "expected a JSON object, came bad JSON: .* .character 2."),
        ("a\tb", "expected a JSON object, came bad JSON: .* .character 1."),
        ("[" * 100_000, "expected a JSON object, came bad JSON: .*"),
        ("1" * 10_000, "expected a JSON object, came bad JSON: .*"),
        ('["a", "b"]', r"expected a JSON object, came \['a', 'b'\]"),
        ("null", "expected a JSON object, came None"),
        ('{"source": "a", "target": 3}', "expected a string as 'target', came 3"),
        ('{"source": ["a"], "target": "b"}', r"expected a string as 'source', came \['a'\]"),
        ('{"source": "a", "target": ""}', "expected a text, came an empty target"),
        ('{"source": "a\\u0000", "target": "b"}', "expected text as 'source', came a NUL"),
        ('{"source": "a", "target": "\\ud83d"}', "expected text as 'target', came half a surr.*"),
    ],
)
def test_json_is_checked(written, line, said):
    path = written(f'{{"source": "a", "target": "b"}}\n\n{line}\n', "data.jsonl")
    assert re.fullmatch(f"3: {said}", complaint(path))


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("content", ["", "\n", "\ufeff", " \r\n\n", "\ufeff\r\n"])
def test_no_pairs(written, kind, content):
    for ending in (kind, f"{kind}.gz"):
        assert complaint(written(content, f"data.{ending}")) == " no pairs"
    assert complaint(written(content, f"data.{kind}"), columns=("a", "a")) == " no pairs"


def test_a_header_alone_has_no_pairs(written):
    assert complaint(written("x\ty\n"), columns=("x", "y")) == " no pairs"


def test_an_empty_gzip_file_has_no_pairs(tmp_path):
    (tmp_path / "data.tsv.gz").touch()
    assert complaint(tmp_path / "data.tsv.gz") == " no pairs"


# === Size ===


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("kind, around", [("tsv", "{}\tb"), ("csv", "{},b")])
def test_the_longest_line(written, kind, around, end):
    for name in (f"data.{kind}", f"data.{kind}.gz"):
        fits = "é" * 499_999
        assert files.pairs(written(around.format(fits) + end, name)).sources == [fits]
        said = complaint(written("c" + around.format(fits) + end, name))
        assert said == "1: expected at most 1,000,000 bytes in a line, came more"


def test_the_csv_limit_is_put_back(written):
    before = csv.field_size_limit()
    files.pairs(written(CONTENTS["csv"], "data.csv"))
    complaint(written('"', "data.csv"))
    assert csv.field_size_limit() == before


def test_a_file_without_line_ends_is_not_read_whole(tmp_path):
    asked = []

    class Endless(io.RawIOBase):
        def readline(self, size=-1):
            asked.append(size)
            return b"a" * size

    with pytest.raises(ValueError, match="endless:1: expected at most"):
        next(files._Lines("endless", Endless()))
    assert asked == [1_000_002]


# === Files ===


@pytest.mark.parametrize("cut", [5, 20, -9, -1])
def test_truncated_gzip(tmp_path, cut):
    path = tmp_path / "data.tsv.gz"
    path.write_bytes(gzip.compress(CONTENTS["tsv"].encode())[:cut])
    assert re.match(r"\d+: expected gzip, came a broken file: ", complaint(path))


def test_broken_gzip(tmp_path):
    path = tmp_path / "data.tsv.gz"
    path.write_bytes(CONTENTS["tsv"].encode())
    assert complaint(path).startswith("1: expected gzip, came a broken file: Not a gzip")
    whole = bytearray(gzip.compress(CONTENTS["tsv"].encode() * 50))
    whole[20] ^= 0xFF
    path.write_bytes(whole)
    assert "expected gzip, came a broken file" in complaint(path)


def test_missing_file(tmp_path):
    for name in ("data.tsv", "data.csv.gz"):
        with pytest.raises(FileNotFoundError, match=name):
            files.pairs(tmp_path / name)


def test_folder(tmp_path):
    (tmp_path / "data.tsv").mkdir()
    for path in (tmp_path, tmp_path / "data.tsv"):
        with pytest.raises(IsADirectoryError, match="expected a file, came a folder"):
            files.pairs(path)


class BytesPath(os.PathLike):
    def __fspath__(self):
        return b"data.tsv"


@pytest.mark.parametrize("path", [None, 1, b"data.tsv", ["data.tsv"], BytesPath()])
def test_path_is_a_path(path):
    with pytest.raises(TypeError, match="`path` must be a string or a path. Received: "):
        files.pairs(path)


def test_other_line_ends_and_gzip_by_another_name_are_told(tmp_path):
    (tmp_path / "old.tsv").write_bytes(b"a\tb\rc\td\r")
    with pytest.raises(ValueError, match=":1: expected lines that end in line feeds"):
        files.pairs(tmp_path / "old.tsv")
    (tmp_path / "packed.tsv").write_bytes(gzip.compress(b"a\tb\n"))
    with pytest.raises(ValueError, match=":1: expected text, came gzip: .* end in .gz"):
        files.pairs(tmp_path / "packed.tsv")
