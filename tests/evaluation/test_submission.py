import numpy as np
import pandas as pd
import pytest

from flowers_tpu.evaluation import submission
from flowers_tpu.system.errors import RequestError

IDS = np.array(["00123", "a1b2", "NA"])  # neither a number nor a missing value


def write_sample(folder, *lines):
    path = folder / "sample_submission.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_ids_may_come_in_any_order(tmp_path):
    path = write_sample(tmp_path, "id,label", "a1b2,0", "NA,0", "00123,0")
    submission.check_ids(str(path), IDS)


def test_ids_of_digits_keep_their_zeros(tmp_path):
    path = write_sample(tmp_path, "id,label", "00123,0", "00456,0")
    submission.check_ids(str(path), np.array(["00456", "00123"]))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["a1b2", "00123"], ["lists 2 ids", "has 3", "0 of the list", "1 of the split", "NA"]),
        (["a1b2", "00123", "NA", "zz"], ["lists 4 ids", "1 of the list", "0 of the split", "zz"]),
        (["a1b2", "00123", "zz"], ["lists 3 ids", "1 of the list", "1 of the split", "NA", "zz"]),
        (["a1b2", "123", "NA"], ["1 of the list", "1 of the split", "00123"]),
        (["a1b2", "00123", "NA", "NA"], ["lists 4 ids", "0 of the list", "0 of the split"]),
        ([], ["lists 0 ids", "3 of the split"]),
    ],
)
def test_other_ids_are_refused(tmp_path, listed, expected):
    path = write_sample(tmp_path, "id,label", *(f"{example_id},0" for example_id in listed))
    with pytest.raises(RequestError) as caught:
        submission.check_ids(str(path), IDS)
    for part in (str(path), *expected):
        assert part in str(caught.value)


def test_a_sample_without_ids_is_refused(tmp_path):
    path = write_sample(tmp_path, "name,label", "a1b2,0")
    with pytest.raises(RequestError, match=r"no column `id`.*\['name', 'label'\]") as caught:
        submission.check_ids(str(path), IDS)
    assert str(path) in str(caught.value)


def test_an_empty_sample_is_refused(tmp_path):
    path = write_sample(tmp_path)
    with pytest.raises(RequestError) as caught:
        submission.check_ids(str(path), IDS)
    assert str(path) in str(caught.value)


def test_a_submission_is_id_and_label():
    table = pd.DataFrame(
        {
            "id": IDS,
            "predicted_label": [7, 0, 103],
            "predicted_name": ["a", "b", "c"],
            "confidence": [0.5, 0.9, 0.1],
        }
    )
    assert submission.submission(table).to_csv(index=False) == "id,label\n00123,7\na1b2,0\nNA,103\n"
