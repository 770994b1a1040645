# The part of cloudpickle that evener uses; cloudpickle itself ships no types.

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import IO, Any

from typing_extensions import Buffer

class Pickler(pickle.Pickler):
    def __init__(
        self,
        file: IO[bytes],
        protocol: int | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    ) -> None: ...

def dumps(
    obj: object,
    protocol: int | None = None,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
) -> bytes: ...
def loads(data: Buffer, *, buffers: Any = ...) -> Any: ...
def register_pickle_by_value(module: ModuleType) -> None: ...
def unregister_pickle_by_value(module: ModuleType) -> None: ...
