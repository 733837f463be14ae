"""Tell which arguments of ``gpuperf(f, ...)`` are f's, what f is called, and whether its result is right."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import starmap
from numbers import Integral, Real
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, TypeGuard

from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import is_text, short

if TYPE_CHECKING:
    from pytest_gpuperf.backends.kernels import Launch

_RUN_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
_LATER = (GeneratorType, CoroutineType, AsyncGeneratorType, map, filter, starmap)
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def is_kernel(launch: Any) -> TypeGuard[Launch]:
    """Say whether it is a launch of ``kernels``, and no library's object that can be bound to something."""
    return hasattr(launch, "bind") and isinstance(getattr(launch, "geometry", None), Geometry)


def name_of(function: Any) -> str:
    """Return what a callable's times are recorded under: its own name, of a partial its function's.

    An object's ``name`` may be anything, also what differs in each process: then it is "launch".
    """
    function = _unwrapped(function)
    for name in ("name", "__name__"):
        with suppress(Exception):  # a property of somebody's own
            if is_text(found := getattr(function, name)):
                return found
    return "launch"


def ran(function: Any, result: Any) -> Any:
    """Return what a call returned; raises GpuperfError if that is work which has not begun."""
    if isinstance(result, _LATER):
        raise GpuperfError(
            f"{name_of(function)} returned its work ({type(result).__name__}), which runs nothing until "
            "somebody goes through it or awaits it; give a function that runs it to its end"
        )
    return result


def _unwrapped(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _runs_later(function: Any) -> bool:
    function = _unwrapped(function)
    return any(later(each) for later in _RUN_LATER for each in (function, type(function).__call__))


MODES = ("launch", "graph")


def mode_of(function: Any, mode: Any, keywords: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Return gpuperf's own mode, None if none was given, and the callable's keywords.

    Another word than MODES is the callable's, if it takes a ``mode``; raises GpuperfError if it does not.
    """
    if mode is None or (isinstance(mode, str) and mode in MODES):
        return mode, keywords
    signature = inspect.Signature() if is_kernel(function) else _signature(function)
    parameters = signature.parameters if signature else {}
    takes = "mode" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if signature and not takes:
        raise GpuperfError(f'gpuperf(...): mode={short(mode)}; say "launch" or "graph"')
    return None, {**keywords, "mode": mode}


def with_keywords(
    function: Callable[..., Any],
    args: Sequence[Any],
    keywords: Mapping[str, Any],
    own: Mapping[str, Any],
    call: str = "gpuperf",
) -> Callable[..., Any]:
    """Return ``function`` with its keyword arguments bound; ``own`` holds those that ``call`` takes itself.

    Raises GpuperfError for a generator, for a keyword that the function does not take, and for one of
    ``call``'s that it takes too and that was given: which of the two is meant cannot be told. What a partial
    binds is settled.
    """
    name = name_of(function)
    if _runs_later(function):
        raise GpuperfError(
            f"{call}(...): {name} runs nothing when it is called, since it is a generator or a coroutine; "
            "give a function that does its work, such as one that runs it to its end"
        )
    if is_kernel(function):
        if keywords:
            raise GpuperfError(
                f"{call}(...): {name} is a kernel, which takes no {_list(keywords)} by keyword; "
                f"{_all_own(call, own)}"
            )
        return function
    signature = _signature(function)
    if signature:
        _refuse_unknown(name, signature, keywords, own, call)
    takes = _takes(signature, args) if signature else _documented(function)
    given = {key for key, value in own.items() if value is not None}
    settled = function.keywords if isinstance(function, partial) else {}
    both = [key for key in takes if key in given and key not in settled]
    if both:
        raise GpuperfError(
            f"{call}(...): {both[0]}= is {_own(call)} own, and {name} takes one too; for {name}'s write "
            f"{call}(functools.partial({name}, {both[0]}=...), ...), for {_own(call)} put {name} in a lambda"
        )
    return partial(function, **keywords) if keywords else function


def _signature(function: Any) -> inspect.Signature | None:
    """Return a callable's signature; None for one in C without, which checks its arguments itself."""
    with suppress(Exception):  # an object's own may be a property
        return inspect.signature(function)
    return None


def _documented(function: Any) -> list[str]:
    """Return what the first line of a C function's text names: ``histc(input, bins=100) -> Tensor``."""
    text = getattr(_unwrapped(function), "__doc__", None) or ""
    return re.findall(r"\b(\w+)=", text.strip().partition("\n")[0])


def _takes(signature: inspect.Signature, args: Sequence[Any]) -> list[str]:
    """Return the parameters that could be given by keyword, without those that ``args`` fill."""
    try:
        filled = signature.bind_partial(*args).arguments
    except TypeError:  # too many, as the call will say
        filled = {}
    return [p.name for p in signature.parameters.values() if p.kind in _BY_KEYWORD and p.name not in filled]


def _refuse_unknown(
    name: str, signature: inspect.Signature, keywords: Mapping[str, Any], own: Collection[str], call: str
) -> None:
    parameters = signature.parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind in _BY_KEYWORD]
    if unknown := [key for key in keywords if key not in known]:
        close = difflib.get_close_matches(unknown[0], [*known, *own], n=1)
        meant = f" (did you mean {close[0]}=?)" if close else f"; {_all_own(call, own)}"
        raise GpuperfError(f"{call}(...): {name} takes no {unknown[0]}={meant}")


def _own(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def _all_own(call: str, own: Collection[str]) -> str:
    return f"{_own(call)} own {'is' if len(own) == 1 else 'are'} {_list(own)}"


def _list(names: Collection[str]) -> str:
    return " ".join(f"{name}=" for name in names)


def needs_result(check: Callable[..., Any]) -> bool:
    """Return whether a check needs an argument; raises GpuperfError if it needs more, or runs nothing."""
    if _runs_later(check):
        raise GpuperfError(
            f"gpuperf(...): check={name_of(check)} checks nothing when it is called, since it is a "
            "generator or a coroutine; give a function"
        )
    signature = _signature(check)
    if not signature:
        return True  # a function in C
    parameters = signature.parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each for each in parameters if each.default is each.empty and each.kind not in variadic]
    if len(needed) > 1 or any(each.kind is each.KEYWORD_ONLY for each in needed):
        names = ", ".join(each.name for each in needed)
        raise GpuperfError(
            f"gpuperf(...): check= is called with what the last call returned, or with nothing, and "
            f"{name_of(check)} needs {names}: bind what else it needs by functools.partial"
        )
    return bool(needed) or any(each.kind is each.VAR_POSITIONAL for each in parameters)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, Integral)


def run_check(check: Callable[..., Any], name: str, result: Any) -> None:
    """Call ``check``, with ``result`` if it needs an argument; what it raises, or False, fails the test.

    What only Python takes for true is no answer: a list of False, a function, an error that is not 0.
    """
    found = ran(check, check(result) if needs_result(check) else check())
    try:
        wrong = found is not None and not found
        known = hasattr(type(found), "__bool__") and not _is_fraction(found)
    except (TypeError, ValueError, RuntimeError):  # NumPy's and torch's of an array
        known = False
    if not known:
        raise GpuperfError(
            f"gpuperf(...): check= of {name} returned {short(found)}, which is neither true nor false; "
            "return True or False, of several what all() says of them"
        )
    if wrong:
        raise GpuperfError(f"gpuperf(...): check= of {name} returned {short(found)}")
