"""Disputed labels by hand, and planted wrong ones."""

import numpy as np

from flowers_tpu.evaluation.disputed import disputed

NAMES = ("iris", "rose", "lotus")


def test_by_hand():
    p = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1],
                  [0.35, 0.55, 0.1], [0.15, 0.65, 0.2], [0.2, 0.1, 0.7]])  # fmt: skip
    labels = np.array([0, 0, 0, 1, 1, 0])
    # iris: mean(0.9, 0.1, 0.5, 0.2) = 0.425; rose: mean(0.55, 0.65) = 0.6
    table = disputed(np.array(list("abcdef")), np.log(p), labels, NAMES)
    assert list(table["id"]) == ["b"]  # f is surest of lotus, of which there is no photo to compare
    row = table.iloc[0]
    assert (row["name"], row["suggested_name"], row["suggested_label"]) == ("iris", "rose", 1)
    np.testing.assert_allclose(row[["probability", "suggested_probability", "margin"]].tolist(),
                               [0.1, 0.8, -0.7])  # fmt: skip


def test_planted_wrong_labels_come_first():
    generator = np.random.default_rng(0)
    truth = np.arange(300) % 3
    logits = 4 * np.eye(3)[truth] + generator.normal(size=(300, 3))
    labels = truth.copy()
    labels[:20] = (truth[:20] + 1) % 3
    ids = np.arange(300).astype(str)
    table = disputed(ids, logits, labels, NAMES)
    assert np.mean(table["id"][:20].astype(int) < 20) >= 0.9
    assert table["margin"].is_monotonic_increasing and (table["margin"] < 0).all()


def test_nothing_is_disputed_where_the_model_agrees():
    logits = 5.0 * np.eye(3)
    table = disputed(np.array(list("abc")), logits, np.arange(3), NAMES)
    assert not len(table) and "margin" in table
