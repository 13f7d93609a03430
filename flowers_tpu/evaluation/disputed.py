"""Labels that look wrong, by what a model gives that did not see them in training.

Confident learning: Northcutt, Jiang, Chuang, 2021, https://doi.org/10.1613/jair.1.12125, section 3:
a photo is counted for another class if its probability of that class reaches the mean that photos
labeled so have of it. Ranked by normalized margin, as in the appendix there.
"""

import numpy as np
import pandas as pd

from flowers_tpu.evaluation.scores import log_probabilities


def disputed(
    ids: np.ndarray, logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Returns a row per photo whose label the model disputes, the most disputed first.

    Columns: `id`, `label`, `name`, `suggested_label`, `suggested_name`, `probability` (of the
    label), `suggested_probability`, and `margin`, the first less the second, -1 to 0.

    Args:
        ids: `[examples]` str.
        logits: `[examples, classes]` of photos that the model was not trained on.
        labels: `[examples]` int.
        class_names: by label.
    """
    p = np.exp(log_probabilities(logits))
    rows, names = np.arange(len(labels)), np.asarray(class_names)
    own = p[rows, labels]
    counts = np.bincount(labels, minlength=len(names))
    sums = np.bincount(labels, weights=own, minlength=len(names))
    # No photo of a class: none can be as sure of it as those are.
    usual = np.divide(sums, counts, out=np.full(len(names), np.inf), where=counts > 0)
    others = np.where(p >= usual, p, -np.inf)
    suggested = others.argmax(axis=1)
    is_disputed = (
        np.isfinite(others.max(axis=1)) & (suggested != labels) & (p[rows, suggested] > own)
    )
    table = pd.DataFrame(
        {
            **{"id": ids, "label": labels, "name": names[labels]},
            **{"suggested_label": suggested, "suggested_name": names[suggested]},
            **{"probability": own, "suggested_probability": p[rows, suggested]},
            "margin": own - p[rows, suggested],
        }
    )
    return table[is_disputed].sort_values("margin", kind="stable").reset_index(drop=True)
