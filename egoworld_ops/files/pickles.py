"""Pickles read as plain data: the machine below imports nothing and calls nothing, whatever a file asks for.

A pickle is a program; `pickle.load` runs it. Here each global stays a name, each call stays a record of what was to be called with what, and the
state of an object stays beside it. `checkpoints.py` says which of these records are arrays. The opcodes are those of Python's `pickletools`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core.multiarray": "numpy._core.multiarray"}
"""Names that modules had in Python 2 and in numpy 1."""


DAMAGE = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RecursionError, TypeError, ValueError)
"""What Python raises where a file says nonsense."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of something in a module; neither is looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a pickle says of data that lies outside it: for torch a tuple of its kind, type, key, place and number of elements."""

    said: Any


@dataclass(slots=True, eq=False)
class Made:
    """An object that was not made.

    Args:
        by: the class or function that was to be called.
        args: with what.
        state: what `__setstate__` was to be given.
        items: what it was to hold as a table.
        members: what it was to hold as a list or a set.
    """

    by: Global
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def extend(self, members: Iterable[Any]) -> None:
        """As of a list."""
        self.members.extend(members)

    def append(self, member: Any) -> None:
        """As of a list."""
        self.members.append(member)

    def add(self, member: Any) -> None:
        """As of a set."""
        self.members.append(member)


class Bounded:
    """A file that answers no request for more than it holds, so that a length in a hostile file allocates nothing."""

    def __init__(self, file: BinaryIO) -> None:
        at = file.tell()
        self._file, self._end = file, file.seek(0, 2)
        file.seek(at)

    def read(self, n_bytes: int) -> bytes:
        """Exactly so many bytes."""
        left = self._end - self._file.tell()
        if not 0 <= n_bytes <= left:
            raise pickle.UnpicklingError(f"{n_bytes} bytes are announced, {left} are there")
        return self._file.read(n_bytes)

    def readline(self) -> bytes:
        """To the end of the line."""
        return self._file.readline()


def load(file: BinaryIO, references: list[Reference] | None = None) -> Any:
    """The next pickle of a file, which is left behind its end: plain values, and `Global`, `Made` and `Reference` for all else.

    Args:
        references: takes all that were met.

    Raises:
        pickle.UnpicklingError: it is no pickle, is cut off, or asks for what no checkpoint needs.
    """
    machine = _Machine(Bounded(file), encoding="latin1")
    machine.references = references if references is not None else []
    try:
        return machine.load()
    except pickle.UnpicklingError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise pickle.UnpicklingError(f"no pickle, or a damaged one ({type(error).__name__}: {error})") from error


_IN_PYTHON: Any = pickle._Unpickler  # type: ignore[attr-defined]
"""Not the one in C: its memo is as long as the largest index that a file names."""


class _Machine(_IN_PYTHON):
    """Python's own machine with all that calls taken out."""

    references: list[Reference]

    def find_class(self, module: str, name: str) -> Global:
        """A global as its name."""
        return Global(_MODULES.get(module, module), name)

    def persistent_load(self, pid: Any) -> Reference:
        """Data outside the pickle as what is said of it."""
        self.references.append(Reference(pid))
        return self.references[-1]

    def _make(self, by: Any, args: Any) -> None:
        if not isinstance(by, Global) or not isinstance(args, tuple):
            raise pickle.UnpicklingError(f"a call of {type(by).__name__}, which is no function")
        self.append(Made(by, args))

    def _reduce(self) -> None:
        args, by = self.stack.pop(), self.stack.pop()
        self._make(by, args)

    def _new_with_names(self) -> None:
        names = self.stack.pop()
        args, by = self.stack.pop(), self.stack.pop()
        self._make(by, (*args, names))

    def _instance(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        self._make(self.find_class(module, name), tuple(self.pop_mark()))

    def _object(self) -> None:
        by, *args = self.pop_mark()
        self._make(by, tuple(args))

    def _build(self) -> None:
        state = self.stack.pop()
        thing = self.stack[-1]
        if not isinstance(thing, Made):
            raise pickle.UnpicklingError(f"state is given to a {type(thing).__name__}, which takes none")
        thing.state = state

    def _refuse(self) -> NoReturn:
        raise pickle.UnpicklingError("an operation that no checkpoint needs")


_Machine.dispatch = {
    **_IN_PYTHON.dispatch,
    pickle.REDUCE[0]: _Machine._reduce,
    pickle.NEWOBJ[0]: _Machine._reduce,
    pickle.NEWOBJ_EX[0]: _Machine._new_with_names,
    pickle.INST[0]: _Machine._instance,
    pickle.OBJ[0]: _Machine._object,
    pickle.BUILD[0]: _Machine._build,
    **{code[0]: _Machine._refuse for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4)},
    **{code[0]: _Machine._refuse for code in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)},
}
