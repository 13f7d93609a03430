"""The names of the classes: the competition's 104 flowers, or those of a data set's classes.txt."""

import difflib
from collections.abc import Sequence

from flowers_tpu.system.errors import RequestError

# "Flower Classification with TPUs" gives each photo's class as an index into this order. Its
# notebooks carry stray spaces after 'cyclamen' and 'hippeastrum'; names here have none.
# fmt: off
FLOWERS: tuple[str, ...] = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "wild geranium",
    "tiger lily", "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon",
    "colt's foot", "king protea", "spear thistle", "yellow iris", "globe-flower",
    "purple coneflower", "peruvian lily", "balloon flower", "giant white arum lily", "fire lily",
    "pincushion flower", "fritillary", "red ginger", "grape hyacinth", "corn poppy",
    "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "cosmos", "alpine sea holly", "ruby-lipped cattleya",
    "cape flower", "great masterwort", "siam tulip", "lenten rose", "barberton daisy", "daffodil",
    "sword lily", "poinsettia", "bolero deep blue", "wallflower", "marigold", "buttercup", "daisy",
    "common dandelion", "petunia", "wild pansy", "primula", "sunflower", "lilac hibiscus",
    "bishop of llandaff", "gaura", "geranium", "orange dahlia", "pink-yellow dahlia",
    "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush", "californian poppy",
    "osteospermum", "spring crocus", "iris", "windflower", "tree poppy", "gazania", "azalea",
    "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow",
    "magnolia", "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "pink quill",
    "foxglove", "bougainvillea", "camellia", "mallow", "mexican petunia", "bromelia",
    "blanket flower", "trumpet creeper", "blackberry lily", "common tulip", "wild rose",
)
# fmt: on


def read_classes(path: str) -> tuple[str, ...]:
    """Reads the class names of a data set: one name a line, the line's place being the label.

    Spaces around a name and empty lines at the end of the file are dropped.

    Args:
        path: a local file or `gs://…`.

    Returns:
        The names, in the file's order.

    Raises:
        RequestError: the file is missing or not text, holds no name, or has an empty or repeated
            line; the message names the path and the line.
    """
    # Imported here so that the names alone (and the drawing processes) cost no TensorFlow start.
    import tensorflow as tf

    from flowers_tpu.system import files

    try:
        names = [line.strip() for line in files.read_text(path).rstrip().splitlines()]
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: class names cannot be read ({error})") from error
    if not names:
        raise RequestError(f"{path}: is empty; expected one class name a line")
    first_line: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            raise RequestError(f"{path}, line {number}: is empty; expected a class name")
        if name in first_line:
            raise RequestError(
                f"{path}, line {number}: {name!r} is already on line {first_line[name]}; "
                "every class needs its own name"
            )
        first_line[name] = number
    return tuple(names)


def find_class(wanted: str, names: Sequence[str]) -> int:
    """Returns the label of a class given by its name, in any case, or by its number.

    Raises:
        RequestError: there is none, or more than one, of that name.
    """
    word = wanted.strip()
    if word in names:
        return names.index(word)
    same = [label for label, name in enumerate(names) if name.casefold() == word.casefold()]
    if len(same) == 1:
        return same[0]
    if same:
        found = ", ".join(f"{names[label]!r} ({label})" for label in same)
        raise RequestError(f"--class={wanted}: may be {found}; give the number")
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    folded = {name.casefold(): name for name in names}
    like = [name for fold, name in folded.items() if word and word.casefold() in fold]
    like += [folded[fold] for fold in difflib.get_close_matches(word.casefold(), folded, n=5)]
    hint = f" (close: {', '.join(map(repr, dict.fromkeys(like)))})" if like else ""
    raise RequestError(
        f"--class={wanted}: no class of that name{hint}; expected a name, or a label from 0 to "
        f"{len(names) - 1}"
    )
