"""The compiled graphs."""

import numpy as np
import small_models

from keras_attn.models.runner import Runner


def test_graphs_read_the_newest_weights():
    model = small_models.small("attention")
    runner = Runner(model)
    ids = np.array([[4, 5, 2]], np.int32)
    before = runner.score(ids, ids, ids).numpy()
    small_models.randomised(model, seed=1)
    after = runner.score(ids, ids, ids).numpy()
    assert before != after
    np.testing.assert_allclose(after, Runner(model).score(ids, ids, ids), atol=1e-6)


def test_limits_hold_for_each_row():
    model = small_models.small("attention")
    model.projection.bias.assign_add(np.eye(model.target_size)[2] * -99)  # never EOS
    ids = np.array([[4, 5, 2], [4, 5, 2], [2, 0, 0]], np.int32)
    found = Runner(model).search(ids, np.array([1, 3, 3]), 5)
    np.testing.assert_array_equal(found.lengths[:, 0], [1, 3, 1])
    np.testing.assert_array_equal(found.finished[:, 0], [False, False, True])
    assert found.token_ids.shape == (3, 1, 5)
