"""The Oxford 102 flowers as they are published: photos, labels and the official split.

Nilsback and Zisserman, 2008, https://www.robots.ox.ac.uk/~vgg/data/flowers/102/.
"""

import os

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from flowers_tpu.convert.photo_list import Listing, Photo
from flowers_tpu.system.errors import RequestError, first_line

# By label; the files have numbers only. In the order of TensorFlow Datasets' `oxford_flowers102`.
NAMES = """
pink primrose; hard-leaved pocket orchid; canterbury bells; sweet pea; english marigold; tiger
lily; moon orchid; bird of paradise; monkshood; globe thistle; snapdragon; colt's foot; king
protea; spear thistle; yellow iris; globe-flower; purple coneflower; peruvian lily; balloon
flower; giant white arum lily; fire lily; pincushion flower; fritillary; red ginger; grape
hyacinth; corn poppy; prince of wales feathers; stemless gentian; artichoke; sweet william;
carnation; garden phlox; love in the mist; mexican aster; alpine sea holly; ruby-lipped
cattleya; cape flower; great masterwort; siam tulip; lenten rose; barbeton daisy; daffodil;
sword lily; poinsettia; bolero deep blue; wallflower; marigold; buttercup; oxeye daisy; common
dandelion; petunia; wild pansy; primula; sunflower; pelargonium; bishop of llandaff; gaura;
geranium; orange dahlia; pink-yellow dahlia; cautleya spicata; japanese anemone; black-eyed
susan; silverbush; californian poppy; osteospermum; spring crocus; bearded iris; windflower;
tree poppy; gazania; azalea; water lily; rose; thorn apple; morning glory; passion flower; lotus
lotus; toad lily; anthurium; frangipani; clematis; hibiscus; columbine; desert-rose; tree
mallow; magnolia; cyclamen; watercress; canna lily; hippeastrum; bee balm; ball moss; foxglove;
bougainvillea; camellia; mallow; mexican petunia; bromelia; blanket flower; trumpet creeper;
blackberry lily
""".replace("\n", " ").strip().split("; ")  # fmt: skip

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_SPLITS = {"trnid": "train", "valid": "val", "tstid": "test"}


def list_photos(folder: str) -> Listing:
    """Lists the photos of a folder with `jpg/`, `imagelabels.mat` and `setid.mat`.

    Args:
        folder: where the three were put; `jpg/` is what 102flowers.tgz holds.

    Raises:
        RequestError: one is not there, or is not what it should be; the message says how to get it.
    """
    labels = _read(folder, "imagelabels.mat", "labels")
    photos, jpgs = [], os.path.join(folder, "jpg")
    if not os.path.isdir(jpgs):
        archive = os.path.join(folder, "102flowers.tgz")
        how = f"tar -xzf {archive} -C {folder}"
        if not os.path.exists(archive):
            how = f"curl -o {archive} {_SITE}102flowers.tgz && {how}"
        raise RequestError(f"--oxford102={folder}: has no jpg/, the photos; get them by: {how}")
    for name, split in _SPLITS.items():
        for number in _read(folder, "setid.mat", name):
            if not 1 <= number <= len(labels) or not 1 <= (label := labels[number - 1]) <= 102:
                raise RequestError(
                    f"--oxford102={folder}: setid.mat names photo {number}, but imagelabels.mat "
                    f"has a class of 1 to 102 for {len(labels)} photos; get both again from {_SITE}"
                )
            file = f"image_{number:05}"
            path = os.path.join("jpg", f"{file}.jpg")
            photos.append(Photo(os.path.join(folder, path), path, NAMES[label - 1], split, file))
    return Listing(sorted(photos, key=lambda photo: photo.name), [], [], tuple(NAMES))


def _read(folder: str, file: str, name: str) -> list[int]:
    """The whole numbers that a MATLAB file has under a name."""
    path = os.path.join(folder, file)
    if not os.path.exists(path):
        raise RequestError(
            f"--oxford102={folder}: has no {file}; get it by: curl -o {path} {_SITE}{file}"
        )
    try:
        return np.ravel(loadmat(path)[name]).astype(int).tolist()
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError) as error:
        raise RequestError(
            f"--oxford102={folder}: {file} cannot be read ({first_line(error)}); get it again by: "
            f"curl -o {path} {_SITE}{file}"
        ) from error
