import collections
import datetime
import itertools
import random
import re
import sys

import pytest

from keras_attn.datasets import dates

babel_dates = pytest.importorskip("babel.dates")
DAYS = [
    datetime.date.fromordinal(day)
    for day in range(dates.FIRST.toordinal(), dates.LAST.toordinal() + 1)
]


@pytest.fixture(scope="module")
def data():
    return dates.load(num_train=6_000, num_validation=500, num_test=1_000)


@pytest.fixture(scope="module")
def every_form():
    return dates.forms()


def padded_or_not(pattern):
    """The pattern with d or dd, M or MM."""
    tokens = re.findall("'[^']*'|d+|M+|[^dM']+", pattern)
    choices = {"d": ("d", "dd"), "dd": ("d", "dd"), "M": ("M", "MM"), "MM": ("M", "MM")}
    return map("".join, itertools.product(*(choices.get(token, (token,)) for token in tokens)))


def everything_written(locales, days):
    """Text -> the days that Babel itself writes it for, over all forms and cases."""
    written = collections.defaultdict(set)
    for locale in locales:
        for pattern in {p for own in dates.PATTERNS[locale] for p in padded_or_not(own)}:
            for day in days:
                text = babel_dates.format_date(day, pattern, locale)
                for case in dates.CASES:
                    written[case(text)].add(day)
    return written


# === The table ===


def test_table_is_large_and_plain():
    assert len(dates.PATTERNS) >= 40
    for locale, patterns in dates.PATTERNS.items():
        assert re.fullmatch(r"[a-z]{2,3}(_[A-Z][A-Za-z]+)?", locale)
        assert len(set(patterns)) == len(patterns) >= 4
        assert any("EEEE" in p or "cccc" in p for p in patterns)
        assert all("y" in p and "M" in p and "d" in p for p in patterns)


def test_patterns_are_those_of_the_locale():
    """Nearly all, as an upgraded Babel may have others."""
    from babel import Locale

    known = total = 0
    for name, patterns in dates.PATTERNS.items():
        locale = Locale.parse(name)
        skeletons = locale.datetime_skeletons
        own = [locale.date_formats[length] for length in ("full", "long", "medium", "short")]
        own += [skeletons[key] for key in ("yMMMEd", "yMMMd", "yMEd", "yMd") if key in skeletons]
        own = {getattr(pattern, "pattern", pattern) for pattern in own}
        known += sum(pattern in own for pattern in patterns)
        total += len(patterns)
    assert known > 0.9 * total


def test_locales_write_western_digits_by_default():
    from babel import Locale

    assert {Locale.parse(name).default_numbering_system for name in dates.PATTERNS} == {"latn"}


# === Writing ===


def test_writes_as_babel_does(every_form):
    rng = random.Random(1)
    for form in every_form:
        for day in [*rng.sample(DAYS, 6), datetime.date(2005, 2, 3), datetime.date(1999, 12, 31)]:
            assert form.write(day) == babel_dates.format_date(day, form.pattern, form.locale)


def test_writes_known_dates():
    day = datetime.date(2021, 12, 25)
    texts = {form.write(day) for form in dates.forms(["de_AT", "en_US", "eu", "ja"])}
    assert {
        "Samstag, 25. Dezember 2021",
        "12/25/21",
        "2021(e)ko abenduaren 25(a), larunbata",
        "2021年12月25日土曜日",
    } <= texts


@pytest.mark.parametrize("locales", [[], ["en_US", "xx"], "de"])
def test_unknown_locales(locales):
    with pytest.raises(ValueError, match="`locales` must be .*en_US"):
        dates.forms(locales)


# === Reading ===


@pytest.mark.parametrize(
    "locales", [("en_US", "en_GB", "ca", "eu"), ("hr", "hu", "ko", "pl", "sl", "cs", "zh_Hant")]
)
def test_readings_equal_brute_force(locales):
    """Every text of some locales over some days: no reading missed, none invented."""
    days = [datetime.date(y, m, d) for y in (2001, 2003) for m in range(1, 13) for d in (1, 3, 11)]
    written = everything_written(locales, days)
    readings = dates.Readings(dates.forms(locales))
    for text, expected in written.items():
        assert readings.dates(text) & set(days) == expected, text


def test_short_numbers_read_in_many_ways(every_form):
    """Orders that occur: d/M/yy, M/d/yy and the Basque yy/M/d, but y-MM-dd alone."""
    readings = dates.Readings(every_form)
    assert sorted(map(str, readings.dates("01/02/03"))) == [
        "2001-02-03",
        "2003-01-02",
        "2003-02-01",
    ]
    assert sorted(map(str, readings.dates("01-02-03"))) == []
    assert sorted(map(str, readings.dates("03/04/2021"))) == ["2021-03-04", "2021-04-03"]
    assert sorted(map(str, readings.dates("2021-03-04"))) == ["2021-03-04"]


def test_readings_follow_the_pattern():
    british = dates.Readings(dates.forms(["en_GB"]))
    day = datetime.date(2021, 4, 3)
    assert british.dates("03/04/2021") == british.dates("3 APR 2021") == {day}
    assert british.dates("3/4/2021") == british.dates("03 April 2021") == {day}
    assert british.dates("Saturday, 3 April 2021") == british.dates("sat, 3 apr 2021") == {day}
    wrong_day, wrong_case, no_day = "Sunday, 3 April 2021", "3 aPRIL 2021", "31/04/2021"
    texts = ["03/04/21", "003/04/2021", "0/4/2021", "03/04/1949", "03/04/2050", "", "1/2/3/4"]
    for text in [wrong_day, wrong_case, no_day, *texts, f"03/04/{'9' * 5000}"]:
        assert british.dates(text) == set()


def test_two_digit_years_have_one_meaning():
    american = dates.Readings(dates.forms(["en_US"]))
    for text, year in [("1/2/50", 1950), ("1/2/99", 1999), ("1/2/00", 2000), ("1/2/49", 2049)]:
        assert american.dates(text) == {datetime.date(year, 1, 2)}


def test_digits_inside_names_are_read():
    """Korean and Chinese months are numbers with a suffix."""
    assert dates.Readings(dates.forms(["ko"])).dates("2021년 12월 3일") == {
        datetime.date(2021, 12, 3)
    }


def test_touching_numbers_are_refused():
    form = dates.Form("en_US", "yMMdd", "%(y)s%(MM)s%(dd)s", (), ())
    with pytest.raises(ValueError, match="touch"):
        dates.Readings([form])


# === The dataset ===


def test_sizes_and_disjoint_days(data):
    parts = [data.train, data.validation, data.test]
    assert [len(part.sources) for part in parts] == [6_000, 500, 1_000]
    assert [len(part.targets) for part in parts] == [6_000, 500, 1_000]
    targets = [target for part in parts for target in part.targets]
    sources = [source for part in parts for source in part.sources]
    assert len(set(targets)) == len(targets) and len(set(sources)) == len(sources)
    assert all(dates.FIRST <= datetime.date.fromisoformat(text) <= dates.LAST for text in targets)
    assert {text[:3] for text in targets} == {f"{y}"[:3] for y in range(1950, 2050)}
    assert max(map(len, sources)) <= 45


def test_same_seed_same_data(data):
    again = dates.load(num_train=6_000, num_validation=500, num_test=1_000, seed=0)
    assert again == data
    other = dates.load(num_train=6_000, num_validation=500, num_test=1_000, seed=1)
    assert other.test.targets != data.test.targets
    smaller = dates.load(num_train=10, num_validation=500, num_test=1_000)
    assert (smaller.test, smaller.validation) == (data.test, data.validation)
    assert smaller.train.sources == data.train.sources[:10]


def test_every_source_has_its_target_as_only_reading(data, every_form):
    readings = dates.Readings(every_form)
    for part in (data.train, data.validation, data.test):
        for source, target in zip(part.sources, part.targets, strict=True):
            assert {day.isoformat() for day in readings.dates(source)} == {target}


def test_numeric_sources_have_one_reading_in_any_order(data):
    """Without the index: day, month and year in all orders that the table writes them in."""
    orders = collections.defaultdict(set)
    for pattern in itertools.chain(*dates.PATTERNS.values()):
        if not re.search("MMM|[Ec]", pattern):
            fields = re.findall("d|M|y+", re.sub("dd|MM", lambda two: two[0][0], pattern))
            orders[re.sub("[dMy]+", "0", pattern.replace("'", ""))].add(tuple(fields))
    checked = 0
    for source, target in zip(data.train.sources, data.train.targets, strict=True):
        found = set()
        digits = re.findall(r"\d+", source)
        for order in orders.get(re.sub(r"\d+", "0", source), ()):
            number = {field: int(run) for field, run in zip(order, digits, strict=True)}
            field, width = ("y", 4) if "y" in order else ("yy", 2)
            fits = len(digits[order.index(field)]) == width
            if fits and 1 <= number["M"] <= 12 and 1 <= number["d"] <= 31:
                year = number[field] if width == 4 else (number[field] - 50) % 100 + 1950
                found.add(f"{year}-{number['M']:02}-{number['d']:02}")
        if found:
            assert found == {target}, source
            checked += 1
    assert checked > 1_000


def test_removed_count_on_a_small_case():
    """American and Catalan numbers alone differ in order: so many of them have two readings."""
    assert dates.load(90, 5, 5, locales=["en_US", "fil"]).removed == 0  # both put the month first
    locales = ["en_US", "ca"]
    days = [day for day in DAYS if day.year == 2003]
    written = everything_written(locales, days)
    two = {text for text, found in written.items() if len(found) > 1}
    orders = itertools.product(range(1, 13), range(1, 13), ("03", "2003"))
    assert {re.sub(r"\b0(?=\d/)", "", text) for text in two} == {
        f"{a}/{b}/{year}" for a, b, year in orders if a != b
    }
    small = dates.load(6_000, 1, 1, locales=locales)
    kept = [text for text in small.train.sources if re.fullmatch(r"\d+/\d+/\d+", text)]
    numbers = [[int(run) for run in text.split("/")] for text in kept]
    assert all(max(a, b) > 12 or a == b for a, b, _ in numbers)
    # 2 of 7 and 2 of 8 patterns are numbers alone, 132 of 365 days have two readings as such; a
    # day whose text was removed is drawn for until it is not.
    chance = (2 / 7 + 2 / 8) / 2
    assert small.removed / 6_002 == pytest.approx(chance / (1 - chance) * 132 / 365, rel=0.1)


def test_some_are_removed(data):
    assert 0 < data.removed < 0.2 * 7_500


def test_cases_weekdays_and_scripts_vary(data):
    sources = data.train.sources
    letters = [text for text in sources if text.lower() != text.upper()]
    assert min(sum(case(text) == text for text in letters) for case in dates.CASES[1:]) > 500
    for locale in ("en_US", "ru", "el", "ja"):
        names = babel_dates.get_day_names("wide", locale=locale).values()
        assert any(name.lower() in text.lower() for text in sources for name in names), locale
    numeric = [text for text in sources if re.fullmatch(r"[\d/.\- ]+", text)]
    assert 0.1 < len(numeric) / len(sources) < 0.5
    for script in ("Cyrillic а", "Greek α", "Arabic ا", "Hebrew ב", "Han 年", "Hangul 년"):
        assert any(script[-1] in text.lower() for text in sources), script


# === Errors ===


@pytest.mark.parametrize("name", ["num_train", "num_validation", "num_test"])
def test_sizes_are_checked(name):
    sizes = {"num_train": 1, "num_validation": 1, "num_test": 1}
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive int. Received: {size}"):
            dates.load(**sizes | {name: size})
    with pytest.raises(ValueError, match=f"'{name}': 36524.* must sum to at most 36525"):
        dates.load(**sizes | {name: 36_524})


def test_all_days_can_be_used():
    full = dates.load(num_train=36_523, num_validation=1, num_test=1, locales=["fi", "en_US"])
    assert len(set(full.train.targets + full.validation.targets + full.test.targets)) == 36_525


def test_babel_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "babel.dates", None)
    with pytest.raises(ImportError, match="pip install babel"):
        dates.load(num_train=1, num_validation=1, num_test=1)
