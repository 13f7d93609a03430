"""Makes a data set of one's own photos, for training: TFRecords in the competition's layout.

    python scripts/make_tfrecords.py --photos=FOLDER --output_dir=DATA
    python scripts/make_tfrecords.py --csv=photos.csv --output_dir=DATA --sizes=224 --crop=pad
    python scripts/make_tfrecords.py --from_tfrecords=FOLDER --output_dir=DATA

FOLDER has a folder per class, and where wanted test/ with photos of unknown class; or train/,
val/ and test/ with a folder per class in each. A CSV has the columns path,label and, where wanted,
split and id; label is the name of the class, and a photo without one is a test photo. Photos that
are not given a split are divided class by class, by fractions and a seed. Where no photo is given
to test, labeled ones are taken; photos.csv has their labels.

--from_tfrecords takes TFRecords as others write them, compressed or not, under any names, with one
folder per split, the split in their names, or neither. Their usual features are found;
--image_feature, --label_feature and --id_feature say others.

DATA gets tfrecords-jpeg-SxS/ with train/, val/, test/, classes.txt and sample_submission.csv for
every size; photos.csv (path, label, split, id and size of every photo; with --photos and --csv a
CSV that --csv takes), class_counts.csv, summary.csv (photos, shards, megabytes, and photos that had
to be enlarged) and unreadable.csv. It appears once it is complete. Any format that Pillow reads
will do; EXIF orientation and colour profiles are honoured, metadata left out. Photos that cannot be
read are left out, listed and warned of.
"""

from flowers_tpu.convert import convert
from flowers_tpu.convert.options import ConvertOptions


def make_tfrecords(options: ConvertOptions) -> None:
    """Converts photos to a data set."""
    convert.convert(options)
