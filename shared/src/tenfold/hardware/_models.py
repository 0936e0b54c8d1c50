"""Models of hardware that is not this machine, by name."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from tenfold.errors import SettingError, UnknownNameError


class HardwareModel(Protocol):
    """What a machine would need for an operation, without the machine.

    The operation is whatever the package that registers the model describes its work by, a layer
    with its shapes for instance.
    """

    def latency(self, operation: object, /) -> float:
        """Seconds that the operation takes."""
        ...


Factory = TypeVar("Factory", bound=Callable[..., HardwareModel])

_FACTORIES: dict[str, Callable[..., HardwareModel]] = {}


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Register a class or function that makes a `HardwareModel`, as a decorator.

    Parameters
    ----------
    name : str
        What `get_model` finds it by.

    Raises
    ------
    SettingError
        Another factory has the name already.
    """

    def register(factory: Factory) -> Factory:
        if name in _FACTORIES:
            raise SettingError(
                f"a second hardware model is named {name!r}", "names that differ", "Choose another name."
            )
        _FACTORIES[name] = factory
        return factory

    return register


def get_model(name: str, **settings: object) -> HardwareModel:
    """Make the model registered as `name`.

    Parameters
    ----------
    name : str
        One of `models()`.
    **settings
        Passed to its factory.

    Raises
    ------
    UnknownNameError
        No model has the name; the package that registers it may not be imported yet.
    """
    if name not in _FACTORIES:
        raise UnknownNameError("hardware model", name, _FACTORIES)
    return _FACTORIES[name](**settings)


def models() -> tuple[str, ...]:
    """Names of the registered models, sorted."""
    return tuple(sorted(_FACTORIES))
