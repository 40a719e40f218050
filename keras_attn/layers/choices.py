"""Names for the points of one axis, so that options can be given by name or as an object."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

import keras

PACKAGE = "keras_attn"
serializable = keras.saving.register_keras_serializable(package=PACKAGE)

# What every Keras layer takes besides its own options.
LAYER_OPTIONS = ("name", "dtype", "trainable")


def unknown_name(argument: str, identifier: Any, names: Iterable[str]) -> ValueError:
    """Return the error that says that `identifier` is none of `names`, with the closest of them."""
    close = difflib.get_close_matches(str(identifier), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(f"{argument}: expected one of {sorted(names)}, got {identifier!r}.{hint}")


class Plain:
    """A choice without weights: saved by its constructor's arguments."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """Return the object that `get_config` describes."""
        return cls(**config)


class Choices:
    """The named points of one axis, such as the scorers.

    Args:
        argument: The word by which messages call the axis, for example "scorer".

    Attributes:
        base: The class that objects of the axis have, or None for any callable.
    """

    def __init__(self, argument: str):
        self.argument = argument
        self.base: type | None = None
        self.classes: dict[str, type] = {}

    def register(self, name: str):
        """Decorate a class: it gets a name here and is registered with Keras for saving."""

        def decorate(cls):
            self.classes[name] = cls
            return serializable(cls)

        return decorate

    def get(self, identifier: Any, **options) -> Any:
        """Return the object that `identifier` stands for.

        Args:
            identifier: A name, the saved configuration of an object, or an object (returned as is).
            **options: Constructor arguments, for a name only.

        Raises:
            ValueError: no choice has this name.
            TypeError: an option that the choice does not take, or options beside an object.
        """
        if isinstance(identifier, dict):
            return keras.saving.deserialize_keras_object(identifier)
        if not isinstance(identifier, str):
            self._refuse(identifier, options)
            return identifier
        cls = self.classes.get(identifier.replace("-", "_"))
        if cls is None:
            raise unknown_name(self.argument, identifier, self.classes)
        own = [option for option in options if option not in LAYER_OPTIONS]
        parameters = inspect.signature(cls).parameters.values()
        valid = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        unknown = sorted(set(own) - set(valid))
        if unknown:
            raise TypeError(
                f"{self.argument}={identifier!r} takes no option {unknown[0]!r}; "
                f"its options are {valid or 'none'}."
            )
        return cls(**options)

    def _refuse(self, identifier, options):
        own = sorted(option for option in options if option not in LAYER_OPTIONS)
        if own:
            raise TypeError(
                f"{self.argument}: option {own[0]!r} goes with a name, but an object of "
                f"{type(identifier).__name__} was given; set it there."
            )
        fits = isinstance(identifier, self.base or Plain)
        fits = fits or (self.base is None and callable(identifier))
        if isinstance(identifier, type) or not fits:
            raise TypeError(
                f"{self.argument}: expected a name of {sorted(self.classes)} or an object, "
                f"got {identifier!r}."
            )
