"""Serving: exported SavedModels, a session that runs them, a small server, and a client."""

from keras_attn.serving.client import Client, ServerError
from keras_attn.serving.publishing import next_version

__all__ = ["Client", "ServerError", "next_version"]
