"""Tell which arguments of ``gpuperf(f, ...)`` are f's, what f is called, and whether its result is right."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.figures import short

_RUN_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def name_of(function: Any) -> str:
    """Return what a callable's times are recorded under: its own name, of a partial its function's."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "name", None) or getattr(function, "__name__", "launch"))


MODES = ("launch", "graph")


def mode_of(function: Any, mode: Any, keywords: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Return gpuperf's own mode, None if none was given, and the callable's keywords.

    Another word than MODES is the callable's, if it takes a ``mode``; raises GpuperfError if it does not.
    """
    if mode is None or (isinstance(mode, str) and mode in MODES):
        return mode, keywords
    try:
        parameters = {} if hasattr(function, "bind") else inspect.signature(function).parameters
        takes = "mode" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    except (TypeError, ValueError):
        takes = True  # a function in C
    if not takes:
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
    if any(runs_later(function) for runs_later in _RUN_LATER):
        raise GpuperfError(
            f"{call}(...): {name} runs nothing when it is called, since it is a generator or a coroutine; "
            "give a function that does its work, such as one that runs it to its end"
        )
    if hasattr(function, "bind"):
        if keywords:
            raise GpuperfError(
                f"{call}(...): {name} is a kernel, which takes no {_list(keywords)} by keyword; "
                f"{_own(call)} own are {_list(own)}"
            )
        return function
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function in C, which checks its arguments itself
        return partial(function, **keywords) if keywords else function
    _refuse_unknown(name, signature, keywords, own, call)
    given = {key for key, value in own.items() if value is not None}
    settled = function.keywords if isinstance(function, partial) else {}
    both = [key for key in _takes(signature, args) if key in given and key not in settled]
    if both:
        raise GpuperfError(
            f"{call}(...): {both[0]}= is {_own(call)} own, and {name} takes one too; for {name}'s write "
            f"{call}(functools.partial({name}, {both[0]}=...), ...), for {_own(call)} put {name} in a lambda"
        )
    return partial(function, **keywords) if keywords else function


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
        meant = f" (did you mean {close[0]}=?)" if close else f"; {_own(call)} own are {_list(own)}"
        raise GpuperfError(f"{call}(...): {name} takes no {unknown[0]}={meant}")


def _own(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def _list(names: Collection[str]) -> str:
    return " ".join(f"{name}=" for name in names)


def needs_result(check: Callable[..., Any]) -> bool:
    """Return whether a check needs an argument; raises GpuperfError if it needs more than one."""
    try:
        parameters = inspect.signature(check).parameters.values()
    except (TypeError, ValueError):
        return True  # a function in C
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each for each in parameters if each.default is each.empty and each.kind not in variadic]
    if len(needed) > 1 or any(each.kind is each.KEYWORD_ONLY for each in needed):
        names = ", ".join(each.name for each in needed)
        raise GpuperfError(
            f"gpuperf(...): check= is called with what the last call returned, or with nothing, and "
            f"{name_of(check)} needs {names}: bind what else it needs by functools.partial"
        )
    return bool(needed) or any(each.kind is each.VAR_POSITIONAL for each in parameters)


def run_check(check: Callable[..., Any], name: str, result: Any) -> None:
    """Call ``check``, with ``result`` if it needs an argument; what it raises, or False, fails the test."""
    found = check(result) if needs_result(check) else check()
    try:
        wrong = found is not None and not found
    except (TypeError, ValueError, RuntimeError):  # NumPy's and torch's of an array
        raise AssertionError(
            f"gpuperf(...): check= of {name} returned {short(found)}, which is neither true nor false; "
            "return what its all() says"
        ) from None
    if wrong:
        raise AssertionError(f"gpuperf(...): check= of {name} returned {short(found)}")
