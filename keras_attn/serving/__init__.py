"""Serving: exported SavedModels, and a session that runs them without TensorFlow's Python."""

from keras_attn.serving.export import next_version

__all__ = ["next_version"]
