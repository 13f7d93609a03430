"""Trains a flower classifier, evaluates it and writes a submission.

    python scripts/train.py --tpu=local --flagfile=scripts/flagfiles/quickstart.flags

Running the same command again continues an interrupted run. At the end, plots/ and report.html in
the run's folder show how it went; --noreport leaves them out.
"""

from flowers_tpu import command_line

if __name__ == "__main__":
    command_line.run("experiment.train", __doc__)
