"""Keras 2 is chosen before TensorFlow is asked for Keras, or the package is not imported."""

import sys
import types

import pytest

import flowers_tpu


def imported(monkeypatch, *, version="2.21.0", variable=None, keras=None):
    """As if TensorFlow had been imported before; `keras`: the version it has become."""
    tensorflow = types.SimpleNamespace(__version__=version)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    if keras:
        tensorflow.keras = types.SimpleNamespace(__version__=keras)
        monkeypatch.setitem(sys.modules, "keras", tensorflow.keras)
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    if variable is None:
        monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    else:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", variable)


@pytest.mark.parametrize("variable", ["1", "True", "true"])
def test_every_value_that_tensorflow_takes_is_taken(monkeypatch, variable):
    imported(monkeypatch, variable=variable)
    flowers_tpu._choose_keras_2()
    imported(monkeypatch, variable=variable, keras="2.21.0")
    flowers_tpu._choose_keras_2()


@pytest.mark.parametrize("variable", [None, "0", "", "yes", "TRUE"])
def test_without_it_keras_3_would_come(monkeypatch, variable):
    imported(monkeypatch, variable=variable)
    with pytest.raises(ImportError, match="import flowers_tpu before tensorflow"):
        flowers_tpu._choose_keras_2()


def test_a_variable_that_was_set_too_late(monkeypatch):
    imported(monkeypatch, variable="1", keras="3.15.1")
    with pytest.raises(ImportError, match="TF_USE_LEGACY_KERAS=1 before both"):
        flowers_tpu._choose_keras_2()


def test_an_old_tensorflow_has_keras_2_only(monkeypatch):
    imported(monkeypatch, version="2.15.1")
    flowers_tpu._choose_keras_2()
