"""Keras layers and nothing else: backbones, their weights, stateless dropout, the classifier."""
