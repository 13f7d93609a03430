"""Fine-tune image classifiers on flower photos with a hand-written tf.distribute loop."""

import os
import sys


def _choose_keras_2() -> None:
    """Chooses Keras 2, or refuses where it is too late.

    From TensorFlow 2.16 on, `tf.keras` is Keras 3 unless a variable says otherwise when TensorFlow
    first looks; TensorFlow Addons needs Keras 2 (BUILD_NOTES.md, "Versions").
    """
    tensorflow = sys.modules.get("tensorflow")
    version = getattr(tensorflow, "__version__", "2.15")
    if tuple(int(part) for part in version.split(".")[:2]) >= (2, 16):
        is_set = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")  # as there
        # It may have been set after `tf.keras` had become Keras 3, which is imported for that.
        is_late = (
            "keras" in sys.modules
            and tensorflow is not None
            and tensorflow.keras.__version__.startswith("3")
        )
        if not is_set or is_late:
            raise ImportError(
                "flowers_tpu needs Keras 2, but TensorFlow was imported before it could be chosen: "
                "import flowers_tpu before tensorflow, or set TF_USE_LEGACY_KERAS=1 before both"
            )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_choose_keras_2()

# Information from TensorFlow's C++ side is for its developers; its warnings and errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

__version__ = "0.2.0.dev0"
