"""Fine-tune image classifiers on flower photos with a hand-written tf.distribute loop."""

import os
import sys

# From TensorFlow 2.16 on, `tf.keras` is Keras 3 unless this is set before TensorFlow is first
# imported; TensorFlow Addons needs Keras 2 (BUILD_NOTES.md, "Versions").
if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    _version = getattr(sys.modules["tensorflow"], "__version__", "2.15")
    if tuple(int(part) for part in _version.split(".")[:2]) >= (2, 16):
        raise ImportError(
            "flowers_tpu needs Keras 2, but TensorFlow was imported before it could be chosen: "
            "import flowers_tpu before tensorflow, or set TF_USE_LEGACY_KERAS=1"
        )
os.environ["TF_USE_LEGACY_KERAS"] = "1"

# Information from TensorFlow's C++ side is for its developers; its warnings and errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

__version__ = "0.2.0.dev0"
