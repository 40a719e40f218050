"""Human-written dates and what they mean in ISO 8601: a task for small models.

    >>> Pairs(["mercredi 3 juin 1987"], ["1987-06-03"]).targets
    ['1987-06-03']

A source is one day from 1950-01-01 to 2049-12-31, written in one of 52 locales by one of the
locale's own patterns, with or without the weekday, in one of four letter cases. A two-digit year
has one meaning in those hundred years: 50 to 99 is 19yy, 00 to 49 is 20yy. The calendar is the
Gregorian and digits are 0 to 9; locales that rather use another calendar or digits are left out.

A text that means different days to different readers is no task: 03/04/2021 is 3 April in Britain
and 4 March in the United States. `Readings` finds every day that a text can be written for under
any locale, pattern and case of the table, and `load` drops the texts that have more than one.

Source: month names, day names and patterns are Unicode CLDR data, (c) Unicode, Inc., under the
Unicode License v3. Names come from the installed Babel (BSD-3-Clause, extra `datasets`). Patterns
were copied from Babel 2.18.0 (CLDR 47), so that another Babel does not quietly change the task.
"""

from __future__ import annotations

import datetime
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from keras_attn.datasets.about import About, Pairs

ABOUT = About(
    title="Dates in 52 locales and their ISO 8601 form, generated",
    home="https://cldr.unicode.org",
    licence="Unicode License v3 (CLDR names and patterns, by way of Babel)",
    sizes={"train": 20_000, "validation": 1_000, "test": 2_000},
)
FIRST = datetime.date(1950, 1, 1)
LAST = datetime.date(2049, 12, 31)
CASES = (str, str.lower, str.upper, str.title)

# Each locale's CLDR date formats full, long, medium and short, then its skeletons yMMMEd, yMMMd,
# yMEd and yMd, each pattern once. E is a weekday, M a month, d a day, y a year; EEEE and MMMM are
# whole names, E, EEE and MMM short ones.
_TABLE = """
ar: EEEE، d MMMM y | d MMMM y | dd\u200f/MM\u200f/y | d\u200f/M\u200f/y | E، d MMM y | d MMM y |
    E، d\u200f/M\u200f/y
az: d MMMM y, EEEE | d MMMM y | d MMM y | dd.MM.yy | d MMM y, E | dd.MM.y, E | dd.MM.y
be: EEEE, d MMMM y\u202f'г'. | d MMMM y\u202f'г'. | d MMM y\u202f'г'. | d.MM.yy | E, d MMM y |
    d MMM y | E, d.M.y | d.M.y
bg: EEEE, d MMMM y\u202f'г'. | d MMMM y\u202f'г'. | d.MM.y\u202f'г'. | d.MM.yy\u202f'г'. |
    E, d.MM.y\u202f'г'.
ca: EEEE, d MMMM 'del' y | d MMMM 'del' y | d MMM y | d/M/yy | E, d MMM y | d MMM 'del' y |
    E, d/M/y | d/M/y
cs: EEEE d. MMMM y | d. MMMM y | d. M. y | dd.MM.yy | E d. M. y
cy: EEEE, d MMMM y | d MMMM y | d MMM y | dd/MM/yy | E, d MMM y | E, d/M/y | d/M/y
da: EEEE 'den' d. MMMM y | d. MMMM y | d. MMM y | dd.MM.y | E d. MMM y | E d.M.y | d.M.y
de: EEEE, d. MMMM y | d. MMMM y | dd.MM.y | dd.MM.yy | E, d. MMM y | d. MMM y | E, d.M.y | d.M.y
de_AT: EEEE, d. MMMM y | d. MMMM y | dd.MM.y | dd.MM.yy | E, d. MMM y | d. MMM y | E, d.M.y | d.M.y
el: EEEE d MMMM y | d MMMM y | d MMM y | d/M/yy | E d MMM y | E d/M/y | d/M/y
en_GB: EEEE, d MMMM y | d MMMM y | d MMM y | dd/MM/y | E, d MMM y | E, dd/MM/y
en_US: EEEE, MMMM d, y | MMMM d, y | MMM d, y | M/d/yy | E, MMM d, y | E, M/d/y | M/d/y
es: EEEE, d 'de' MMMM 'de' y | d 'de' MMMM 'de' y | d MMM y | d/M/yy | EEE, d MMM y | EEE, d/M/y |
    d/M/y
et: EEEE, d. MMMM y | d. MMMM y | d. MMM y | dd.MM.yy | E, d. MMMM y | E, d.M.y | d.M.y
eu: y('e')'ko' MMMM'ren' d('a'), EEEE | y('e')'ko' MMMM'ren' d('a') | y('e')'ko' MMM d('a') |
    yy/M/d | y MMM d('a'), E | y MMM d('a') | y/M/d, E | y/M/d
fi: cccc d. MMMM y | d. MMMM y | d.M.y | E d.M.y
fil: EEEE, MMMM d, y | MMMM d, y | MMM d, y | M/d/yy | E, MMM d, y | E, M/d/y | M/d/y
fr: EEEE d MMMM y | d MMMM y | d MMM y | dd/MM/y | E d MMM y | E dd/MM/y
fr_CA: EEEE d MMMM y | d MMMM y | d MMM y | y-MM-dd | E d MMM y | E y-MM-dd
ga: EEEE d MMMM y | d MMMM y | d MMM y | dd/MM/y | E d MMM y | E dd/MM/y
he: EEEE, d בMMMM y | d בMMMM y | d בMMM y | d.M.y | E, d בMMM y | E, d.M.y
hi: EEEE, d MMMM y | d MMMM y | d MMM y | d/M/yy | E, d MMM y | E, d/M/y | d/M/y
hr: EEEE, d. MMMM y. | d. MMMM y. | d. MMM y. | dd. MM. y. | E, d. MMM y. | E, dd. MM. y.
hu: y. MMMM d., EEEE | y. MMMM d. | y. MMM d. | y. MM. dd. | y. MMM d., E | y. MM. dd., E
hy: y թ. MMMM d, EEEE | dd MMMM, y թ. | dd MMM, y թ. | dd.MM.yy | y թ. MMM d, E | d MMM, y թ. |
    d.MM.y թ., E | dd.MM.y
id: EEEE, dd MMMM y | d MMMM y | d MMM y | dd/MM/yy | E, d MMM y | E, d/M/y | d/M/y
is: EEEE, d. MMMM y | d. MMMM y | d. MMM y | d.M.y | E, d. MMM y | E, d.M.y
it: EEEE d MMMM y | d MMMM y | d MMM y | dd/MM/yy | E d MMM y | E dd/MM/y | dd/MM/y
ja: y年M月d日EEEE | y年M月d日 | y/MM/dd | y年M月d日(E) | y/M/d(E) | y/M/d
ka: EEEE, dd MMMM, y | d MMMM, y | d MMM. y | dd.MM.yy | E, d MMM. y | E, d.M.y | d.M.y
ko: y년 MMMM d일 EEEE | y년 MMMM d일 | y. M. d. | yy. M. d. | y년 MMM d일 (E) | y년 MMM d일 |
    y. M. d. (E)
lt: y 'm'. MMMM d 'd'., EEEE | y 'm'. MMMM d 'd'. | y-MM-dd | y-MM-dd, E
lv: EEEE, y. 'gada' d. MMMM | y. 'gada' d. MMMM | y. 'gada' d. MMM | dd.MM.yy | E, y. 'g'. d. MMM |
    y. 'g'. d. MMM | E, d.MM.y. | d.MM.y.
mk: EEEE, d MMMM y\u202f'г'. | d MMMM y\u202f'г'. | d.M.y\u202f'г'. | d.M.yy |
    E, d MMM y\u202f'г'. | d MMM y\u202f'г'. | E, d.M.y\u202f'г'.
nb: EEEE d. MMMM y | d. MMMM y | d. MMM y | dd.MM.y | E d. MMM y | E d.M.y | d.M.y
nl: EEEE d MMMM y | d MMMM y | d MMM y | dd-MM-y | E d MMM y | E d-M-y | d-M-y
pl: EEEE, d MMMM y | d MMMM y | d MMM y | d.MM.y | E, d MMM y | E, d.MM.y
pt: EEEE, d 'de' MMMM 'de' y | d 'de' MMMM 'de' y | d 'de' MMM 'de' y | dd/MM/y |
    E, d 'de' MMM 'de' y | E, dd/MM/y
ro: EEEE, d MMMM y | d MMMM y | d MMM y | dd.MM.y | E, d MMM y | E, dd.MM.y
ru: EEEE, d MMMM y\u202f'г'. | d MMMM y\u202f'г'. | d MMM y\u202f'г'. | dd.MM.y |
    E, d MMM y\u202f'г'. | ccc, dd.MM.y\u202f'г'.
sk: EEEE d. MMMM y | d. MMMM y | d. M. y | E d. M. y
sl: EEEE, d. MMMM y | d. MMMM y | d. MMM y | d. M. yy | E, d. MMM y | E, d. M. y | d. M. y
sq: EEEE, d MMMM y | d MMMM y | d MMM y | d.M.yy | E, d MMM y | E, d.M.y | d.M.y
sr: EEEE, d. MMMM y. | d. MMMM y. | d. M. y. | E, d. MMM y. | d. MMM y. | E, d. M. y.
sv: EEEE d MMMM y | d MMMM y | d MMM y | y-MM-dd | E d MMM y | E, y-MM-dd
sw: EEEE, d MMMM y | d MMMM y | d MMM y | dd/MM/y | E, d MMM y | E, d/M/y | d/M/y
tr: d MMMM y EEEE | d MMMM y | d MMM y | d.MM.y | d MMM y E | d.M.y E | dd.MM.y
uk: EEEE, d MMMM y\u202f'р'. | d MMMM y\u202f'р'. | d MMM y\u202f'р'. | dd.MM.yy |
    E, d MMM y\u202f'р'. | E, dd.MM.y | dd.MM.y
vi: EEEE, d MMMM, y | d MMMM, y | d MMM, y | d/M/yy | E, d MMM, y | E, d/M/y | d/M/y
zh: y年M月d日EEEE | y年M月d日 | y/M/d | y年M月d日E | y/M/dE
zh_Hant: y年M月d日 EEEE | y年M月d日 | y/M/d | y年M月d日 E | y/M/d（E）
"""


def _parse(table: str) -> dict[str, tuple[str, ...]]:
    """Reads lines `locale: pattern | pattern |`, continued by lines that start with a space."""
    entries = (entry.split(":", 1) for entry in re.split(r"\n(?! )", table.strip()))
    return {
        locale: tuple(pattern.strip() for pattern in patterns.split("|"))
        for locale, patterns in entries
    }


PATTERNS = _parse(_TABLE)


class Dates(NamedTuple):
    """The dataset in three parts that share no day.

    Attributes:
        train: Pairs to fit on.
        validation: Pairs to choose by.
        test: Pairs to report on.
        removed: Int, how many texts were drawn and dropped because they have two readings.
    """

    train: Pairs
    validation: Pairs
    test: Pairs
    removed: int


class Form(NamedTuple):
    """One way to write a date, but for the letter case: a pattern in a locale.

    Attributes:
        locale: String, a locale identifier of Babel's.
        pattern: String, a CLDR date pattern.
        template: String, the pattern with its fields in `%`-style: `%(d)s. %(MMMM)s %(y)s`.
        months: Tuple of (field, names of January to December), one a field that names a month.
        weekdays: Tuple of (field, names of Monday to Sunday), one a field that names a weekday.
    """

    locale: str
    pattern: str
    template: str
    months: tuple[tuple[str, tuple[str, ...]], ...]
    weekdays: tuple[tuple[str, tuple[str, ...]], ...]

    def write(self, date: datetime.date) -> str:
        """Writes a date as `babel.dates.format_date(date, self.pattern, self.locale)` does."""
        return self.fill(_numbers(date), date.month, date.weekday())

    def fill(self, numbers: dict[str, str], month: int, weekday: int) -> str:
        """Fills in the template.

        Args:
            numbers: Dict of the text for each field that is a number.
            month: Int, 1 to 12, the month to name.
            weekday: Int, 0 (Monday) to 6, the weekday to name.

        Returns:
            String, the template with a text for each field.
        """
        fields = dict(numbers)
        fields.update((field, names[month - 1]) for field, names in self.months)
        fields.update((field, names[weekday]) for field, names in self.weekdays)
        return self.template % fields


def _numbers(date: datetime.date) -> dict[str, str]:
    """The fields of a pattern that are numbers, as text."""
    return {
        "d": str(date.day),
        "dd": f"{date.day:02}",
        "M": str(date.month),
        "MM": f"{date.month:02}",
        "y": str(date.year),
        "yy": f"{date.year % 100:02}",
    }


def forms(locales: Iterable[str] | None = None) -> list[Form]:
    """Lists the ways to write a date.

    Args:
        locales: Keys of `PATTERNS`; None for all of them.

    Returns:
        List of `Form`, one a locale and pattern.

    Raises:
        ImportError: Babel is not installed.
        ValueError: `locales` is empty or names a locale that is not in the table.

    >>> [form.write(datetime.date(2021, 12, 25)) for form in forms(["sk"])]
    ['sobota 25. decembra 2021', '25. decembra 2021', '25. 12. 2021', 'so 25. 12. 2021']
    """
    locales = tuple(PATTERNS if locales is None else dict.fromkeys(locales))
    unknown = [locale for locale in locales if locale not in PATTERNS]
    if unknown or not locales:
        raise ValueError(
            f"`locales` must be one or more of {', '.join(PATTERNS)}. Received: {locales}"
        )
    return [_form(locale, pattern) for locale in locales for pattern in PATTERNS[locale]]


def _form(locale: str, pattern: str) -> Form:
    """Takes a pattern apart and looks up the names that it uses."""
    try:
        from babel.dates import format_date, parse_pattern
    except ImportError as error:
        raise ImportError("The dates dataset needs Babel: pip install babel") from error

    def names(days: Sequence[datetime.date], letters: str) -> tuple:
        return tuple(
            (field, tuple(str(format_date(day, field, locale)) for day in days))
            for field in fields
            if field[0] in letters and field not in ("M", "MM")
        )

    template = parse_pattern(pattern).format
    fields = dict.fromkeys(re.findall(r"%\((\w+)\)s", template))
    months = [datetime.date(2024, month, 1) for month in range(1, 13)]
    weekdays = [datetime.date(2024, 1, day) for day in range(1, 8)]  # 1 January 2024 is a Monday
    return Form(locale, pattern, template, names(months, "ML"), names(weekdays, "Eec"))


class _Reading(NamedTuple):
    """What the digits of a text stand for where the rest of it is as in one form and case.

    Attributes:
        fields: Tuple of strings, one a run of digits: d, M, y, yy, or the digits of a name.
        month: Int, the month where a name tells it, else 0.
        weekday: Int, the weekday where a name tells it, else -1.
    """

    fields: tuple[str, ...]
    month: int
    weekday: int

    def date(self, digits: Sequence[str]) -> datetime.date | None:
        """The day that runs of digits stand for; None if there is no such day in the range."""
        number = {"M": self.month}
        for field, run in zip(self.fields, digits, strict=True):
            if field.isdigit():
                if run != field:
                    return None
            elif len(run) not in _WIDTHS[field]:
                return None
            else:
                number[field[0]] = int(run)
        year = number["y"]
        if year < 100:
            year += 1900 if year >= FIRST.year % 100 else 2000
        try:
            date = datetime.date(year, number["M"], number["d"])
        except ValueError:
            return None
        possible = FIRST <= date <= LAST and self.weekday in (-1, date.weekday())
        return date if possible else None


_WIDTHS = {"d": (1, 2), "M": (1, 2), "y": (4,), "yy": (2,)}
# Private characters stand for the fields while a text is cased; no script has a case for them.
_MARKS = {"d": "\ue000", "M": "\ue001", "y": "\ue002", "yy": "\ue003"}
_FIELDS = {mark: field for field, mark in _MARKS.items()}
_MARKS |= {"dd": _MARKS["d"], "MM": _MARKS["M"]}


class Readings:
    """Every day that a text can be written for, if a 3 may also be written 03, as readers take it.

    A text without its digits can come from few forms, cases, months and weekdays only, and given
    those the digits tell the day. So the index maps such a template, with 0 for each run of digits,
    to what the runs may stand for.

    Args:
        forms: Forms to read by, each in all of `CASES`.

    >>> sorted(map(str, Readings(forms(["en_GB", "en_US"])).dates("03/04/2021")))
    ['2021-03-04', '2021-04-03']
    """

    def __init__(self, forms: Iterable[Form]):
        self._index: dict[str, set[_Reading]] = {}
        for form in forms:
            months = range(1, 13) if form.months else (0,)
            weekdays = range(7) if form.weekdays else (-1,)
            for month, weekday in itertools.product(months, weekdays):
                text = form.fill(_MARKS, month, weekday)
                for cased in {case(text) for case in CASES}:
                    self._add(cased, month, weekday)

    def _add(self, text: str, month: int, weekday: int) -> None:
        """Puts a text whose numbers are marks into the index."""
        runs = re.findall("[0-9\ue000-\ue003]+", text)
        fields = tuple(_FIELDS.get(run, run) for run in runs)
        if not all(field in _WIDTHS or field.isdigit() for field in fields):
            raise ValueError(f"Two numbers touch in {text!r}")
        template = re.sub("[0-9\ue000-\ue003]+", "0", text)
        self._index.setdefault(template, set()).add(_Reading(fields, month, weekday))

    def dates(self, text: str) -> set[datetime.date]:
        """Reads a text.

        Args:
            text: String.

        Returns:
            Set of the days in the range that some form writes like this in some case, but for
            leading zeros.
        """
        digits = re.findall("[0-9]+", text)
        readings = self._index.get(re.sub("[0-9]+", "0", text), ())
        return {date for reading in readings if (date := reading.date(digits)) is not None}


def load(
    num_train: int = 20_000,
    num_validation: int = 1_000,
    num_test: int = 2_000,
    seed: int = 0,
    locales: Iterable[str] | None = None,
) -> Dates:
    """Draws the dataset: each day is used once at most.

    The locale, a pattern of the locale, and the letter case are drawn uniformly; a text with two
    readings is dropped and counted, and its day drawn for again. Validation and test do not depend
    on `num_train`.

    Args:
        num_train: Positive int, pairs to fit on.
        num_validation: Positive int, pairs to choose by.
        num_test: Positive int, pairs to report on. The three sum to 36,525 days at most.
        seed: Int, all that the draw depends on besides the arguments and the names in Babel.
        locales: Keys of `PATTERNS` to write in, and to look for second readings in; None for all.

    Returns:
        `Dates`.

    Raises:
        ImportError: Babel is not installed.
        ValueError: A size is not positive, they sum to too many, or a locale is unknown.

    >>> dates = load(num_train=3, num_validation=1, num_test=1, locales=["en_GB", "fr", "ja"])
    >>> len(dates.train.sources), len(dates.test.targets[0])
    (3, 10)
    """
    days = [
        datetime.date.fromordinal(day) for day in range(FIRST.toordinal(), LAST.toordinal() + 1)
    ]
    sizes = {"num_test": num_test, "num_validation": num_validation, "num_train": num_train}
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"`{name}` must be a positive int. Received: {size!r}")
    if sum(sizes.values()) > len(days):
        raise ValueError(f"{sizes} must sum to at most {len(days)}, as each day is used once")
    rng = random.Random(seed)
    rng.shuffle(days)
    days = days[: sum(sizes.values())]
    sources, removed = _draw(days, forms(locales), rng)
    targets = [day.isoformat() for day in days]
    ends = itertools.accumulate(sizes.values())
    parts = [slice(end - size, end) for end, size in zip(ends, sizes.values(), strict=True)]
    test, validation, train = (Pairs(sources[part], targets[part]) for part in parts)
    return Dates(train, validation, test, removed)


def _draw(
    days: Iterable[datetime.date], forms: Iterable[Form], rng: random.Random
) -> tuple[list[str], int]:
    """Writes each day in a way that has one reading, and counts the texts that had two."""
    by_locale: dict[str, list[Form]] = {}
    for form in forms:
        by_locale.setdefault(form.locale, []).append(form)
    locales = list(by_locale.values())
    readings = Readings(itertools.chain(*locales))
    sources, removed = [], 0
    for day in days:
        # Some draw succeeds: each locale has a form with a weekday and a month name.
        while True:
            text = rng.choice(CASES)(rng.choice(rng.choice(locales)).write(day))
            if len(readings.dates(text)) == 1:
                break
            removed += 1
        sources.append(text)
    return sources, removed
