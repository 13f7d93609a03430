"""Says what is here, what is wrong, and what mends it; see --help.

Unlike the other scripts this one runs without the package, and without any other, being installed.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # The package refuses to be imported after TensorFlow, which is a trouble to be named here.
    chosen = os.environ.get("TF_USE_LEGACY_KERAS")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    from flowers_tpu.doctor.main import main

    if chosen is None:
        del os.environ["TF_USE_LEGACY_KERAS"]
    else:
        os.environ["TF_USE_LEGACY_KERAS"] = chosen
    sys.exit(main())
