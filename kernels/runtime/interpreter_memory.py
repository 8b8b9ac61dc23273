"""What Triton's interpreter works out anew at every operation of every program, remembered: half of its time.

An operation on a small block is mostly bookkeeping: the type of a block with its shape as a tuple of Triton's, a
tensor's attributes, NumPy's type for one of Triton's. All of that follows from a scalar type and a shape, of which a
kernel has few. Values are not touched: each function here calls Triton's own the first time, and returns what that
returned, or attributes that it set, afterwards.

Private parts of Triton, of 3.6 to 3.9: `interpreter._get_np_dtype`, `interpreter._patch_attr`'s replacement of a
builtin, `block_type.__init__`, `tensor.__init__`, `dtype.__eq__`, `core._unwrap_if_constexpr` and
`TritonSemantic.broadcast_impl_value`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

Patch = tuple[Any, str, Any]
"""An object, the name of an attribute of it, and the value that it has while a kernel is interpreted."""
_KIND = "_tidepool_kind"
"""An attribute of a block's type: what all types of its scalar and shape have in common."""


def remembering(found: Iterable[Patch]) -> Iterator[Patch]:
    """The patches with which a launch is interpreted faster: those `found` that Triton makes, and some of ours."""
    for owner, name, value in found:
        yield owner, name, _called_at_once(value)
    core = tl.core
    yield interpreter, "_get_np_dtype", _numpy_types(interpreter._get_np_dtype)
    yield core, "_unwrap_if_constexpr", _unwrapping(core._unwrap_if_constexpr)
    yield core.dtype, "__eq__", _comparing(core.dtype.__eq__)
    yield core.block_type, "__init__", _block_types(core.block_type.__init__)
    yield core.tensor, "__init__", _tensors(core.tensor.__init__)
    yield TritonSemantic, "broadcast_impl_value", _broadcasting(TritonSemantic.broadcast_impl_value)


def _called_at_once(value: Any) -> Any:
    """A builtin's replacement without the two calls around it that hand on and check the keyword `_semantic`."""
    builtin = (getattr(value, "__kwdefaults__", None) or {}).get("member")
    function = getattr(builtin, "__wrapped__", None)
    if function is None or not tl.core.is_builtin(builtin):
        return value
    names = value.__code__.co_freevars
    if "semantic" in names:  # Triton 3.6
        semantic = value.__closure__[names.index("semantic")].cell_contents
    else:
        semantic = interpreter.interpreter_semantic

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs["_semantic"] = semantic
        return function(*args, **kwargs)

    return call


def _numpy_types(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {}

    def numpy_type(type_: Any) -> Any:
        name = type_.scalar.name
        found = known.get(name)
        if found is None:
            found = known[name] = original(type_)
        return found

    return numpy_type


def _unwrapping(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    plain = (int, float, tl.tensor, tl.dtype, tl.pointer_type, tl.block_type, str, type(None))

    def unwrap(value: Any) -> Any:
        return value if type(value) in plain else original(value)

    return unwrap


def _comparing(original: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def equal(self: Any, other: Any) -> bool:
        return self is other or original(self, other)

    return equal


def _plain(size: Any) -> Any:
    return size if type(size) is int else tl.core._unwrap_if_constexpr(size)


def _identity(scalar: Any) -> Any:
    """What tells a scalar type from another: a pointer's name leaves out its address space."""
    return (scalar.name, scalar.address_space) if scalar.is_ptr() else scalar.name


def _block_types(original: Callable[..., None]) -> Callable[..., None]:
    known: dict[Any, dict[str, Any]] = {}

    def initialize(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = (*[_plain(size) for size in shape],)
        key = _identity(element_ty), sizes
        attributes = known.get(key)
        if attributes is None:
            original(self, element_ty, shape)
            known[key] = attributes = {**vars(self), _KIND: (sizes, {})}
        vars(self).update(attributes)

    return initialize


def _tensors(original: Callable[..., None]) -> Callable[..., None]:
    scalars: dict[Any, dict[str, Any]] = {}

    def initialize(self: Any, handle: Any, type: Any) -> None:
        kind = vars(type).get(_KIND)
        attributes = scalars.setdefault(_identity(type), {}) if kind is None else kind[1]
        if not attributes:
            original(self, handle, type)
            attributes |= {name: value for name, value in vars(self).items() if name not in ("handle", "type")}
            return
        own = vars(self)
        own.update(attributes)
        own["handle"], own["type"] = handle, type

    return initialize


def _broadcasting(original: Callable[..., Any]) -> Callable[..., Any]:
    def broadcast(self: Any, lhs: Any, rhs: Any) -> Any:
        left, right = vars(lhs.type).get(_KIND), vars(rhs.type).get(_KIND)
        if left is not None and right is not None and left[0] == right[0]:
            return lhs, rhs
        return original(self, lhs, rhs)

    return broadcast
