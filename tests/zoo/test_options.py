"""The table of options."""

import pytest

from keras_attn.zoo.options import OPTIONS, SIZES, resolve


def test_defaults_are_among_the_choices():
    for name, option in OPTIONS.items():
        assert option.meaning
        assert not option.choices or option.default in option.choices, name


def test_the_user_wins_over_the_architecture_over_the_size_over_the_table():
    assert resolve({}, {})["units"] == OPTIONS["units"].default == SIZES["base"]["units"]
    assert resolve({}, {"size": "large"})["units"] == 512
    assert resolve({"units": 7}, {"size": "large"})["units"] == 7
    assert resolve({"units": 7}, {"size": "large", "units": 9})["units"] == 9
    assert resolve({"size": "tiny"}, {})["embedding_size"] == 16


def test_unknown_options_list_the_valid_ones():
    with pytest.raises(TypeError, match="unknown option 'hidden'.*units.*dtype"):
        resolve({}, {"hidden": 1})
    with pytest.raises(ValueError, match=r"size: expected one of \['base', 'large'"):
        resolve({}, {"size": "big"})
