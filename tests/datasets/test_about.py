import inspect
import re

import pytest

from keras_attn import recipes
from keras_attn.datasets import about, cmudict, dates


@pytest.mark.parametrize("module", recipes.DATA.values(), ids=recipes.DATA)
def test_each_dataset_says_what_it_is(module):
    said = module.ABOUT
    assert isinstance(said, about.About)
    assert said.title and "\n" not in said.title and said.licence
    assert re.fullmatch(r"https://\S+", said.home)
    assert said.sizes and all(size > 0 for size in said.sizes.values())
    (parts,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and "train" in getattr(value, "_fields", ())
    ]
    assert set(said.sizes) <= set(parts._fields)


def test_sizes_of_dates_are_the_defaults():
    parameters = inspect.signature(dates.load).parameters
    assert dates.ABOUT.sizes == {
        part: parameters[f"num_{part}"].default for part in ("train", "validation", "test")
    }


def test_pairs_are_the_same_everywhere():
    assert dates.Pairs is cmudict.Pairs is about.Pairs
