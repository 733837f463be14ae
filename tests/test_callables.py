"""What of ``gpuperf(f, ...)`` is f's and what gpuperf's own, and what ``check=`` says of the result."""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from pytest_gpuperf.backends.geometry import Geometry
from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.instruments.callables import (
    is_kernel,
    name_of,
    needs_result,
    ran,
    run_check,
    with_keywords,
)

OWN = dict.fromkeys(("bytes", "flops", "name", "max", "min", "check"))


def clamp(x, min=0, max=1, *, out=None):
    return x, min, max, out


def bound(function, *args, own=(), **keywords):
    return with_keywords(function, args, keywords, {**OWN, **dict(own)})(*args)


def test_keywords_are_the_callables():
    assert bound(clamp, 5, out=7) == (5, 0, 1, 7)
    assert bound(lambda **kept: kept, whatever=1) == {"whatever": 1}
    assert bound(sorted, [1, 2], reverse=True) == [2, 1]
    assert with_keywords(clamp, (5,), {}, OWN) is clamp


def test_a_function_in_c_without_a_signature_takes_any():
    assert bound(max, 1, 2, key=lambda value: -value) == 1


def test_a_keyword_of_both_is_read_from_a_c_functions_text():
    """torch's have no signature: ``gpuperf(torch.histc, x, min=-1, max=1)`` bounded its own time."""

    def histc(*args, **keywords):
        """
        histc(input, bins=100, min=0, max=0, *, out=None) -> Tensor

        :attr:`min` and name=...
        """

    histc.__signature__ = "unknown"
    with pytest.raises(GpuperfError, match="max= is gpuperf's own, and histc takes one too"):
        bound(histc, 5, own={"max": 1})
    bound(functools.partial(histc, max=1), 5, own={"max": 1e-3})
    bound(histc, 5, own={"name": "hist"})


@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        ("outt", r"clamp takes no outt= \(did you mean out=\?\)"),
        ("flop", r"clamp takes no flop= \(did you mean flops=\?\)"),
        ("zzz", "clamp takes no zzz=; gpuperf's own are bytes= flops= name= max= min= check="),
    ],
)
def test_a_keyword_that_nobody_takes(unknown, said):
    with pytest.raises(GpuperfError, match=said):
        bound(clamp, 5, **{unknown: 1})


def test_the_call_is_named_as_it_was_written():
    own, call = dict.fromkeys(("name", "max"), None), "gpuperf.energy"
    with pytest.raises(GpuperfError, match=r"^gpuperf\.energy\(...\): clamp takes no zz=; gpuperf.energy's"):
        with_keywords(clamp, (5,), {"zz": 1}, own, call)
    with pytest.raises(GpuperfError, match=r"max= is gpuperf.energy's own.* gpuperf.energy\(functools"):
        with_keywords(clamp, (5,), {}, {**own, "max": 1.0}, call)


def test_a_keyword_of_both_cannot_be_told():
    with pytest.raises(
        GpuperfError, match=r"max= is gpuperf's own, and clamp takes one too; .*partial\(clamp, max="
    ):
        bound(clamp, 5, own={"max": 1e-3})


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (functools.partial(clamp, max=3), (5, 0, 3, None)),
        (functools.partial(functools.partial(clamp, max=3), out=1), (5, 0, 3, 1)),
        (lambda x: x, 5),
    ],
)
def test_a_partials_keyword_is_settled_and_a_lambda_has_none(function, found):
    assert bound(function, 5, own={"max": 1e-3}) == found


def test_a_parameter_that_is_filled_by_position_is_not_meant():
    assert bound(clamp, 5, 2, 3, own={"max": 1e-3}) == (5, 2, 3, None)


def test_keywords_of_a_kernel():
    class Launch:
        name, geometry = "transpose", Geometry.of(1, 1)

        def bind(self):
            return None

    said = "transpose is a kernel, which takes no rows= cols= by keyword; gpuperf's own are bytes="
    with pytest.raises(GpuperfError, match=said):
        bound(Launch(), rows=1, cols=2)
    with pytest.raises(GpuperfError, match=r"counters' own is name=$"):
        with_keywords(Launch(), (), {"rows": 1}, {"name": None}, "counters")


def test_names():
    assert name_of(functools.partial(functools.partial(clamp, max=3), out=1)) == "clamp"
    assert name_of(clamp) == "clamp"
    assert name_of(object()) == "launch"


@pytest.mark.parametrize("name", [clamp, 3, "two\nlines", " "])
def test_a_name_that_is_none_is_not_taken(name):
    """A method called ``name`` would have named the metric by its address, which each process has anew."""
    assert name_of(SimpleNamespace(name=name)) == "launch"


def test_an_object_whose_properties_raise_is_called():
    """A module that is loaded late has no name yet, and said so with an error of its own."""

    class Late:
        @property
        def name(self):
            raise KeyError

        __signature__ = name

        def __call__(self, x):
            return x

    assert name_of(Late()) == "launch"
    assert bound(Late(), x=3) == 3


def test_a_librarys_object_that_can_be_bound_is_no_kernel():
    """Some libraries' modules are callable and have a ``bind`` of their own, and a Mock has everything."""

    class Module:
        def bind(self, variables):
            raise AssertionError

        def __call__(self, x):
            return x

    assert not is_kernel(Module())
    assert not is_kernel(Mock())
    assert bound(Module(), x=3) == 3


def test_a_check_gets_the_result_where_it_needs_one():
    seen = []
    run_check(lambda result: seen.append(result), "f", 7)
    run_check(lambda: seen.append("alone"), "f", 7)
    run_check(lambda tolerance=1e-3: seen.append(tolerance), "f", 7)
    run_check(lambda *results: seen.append(results), "f", 7)
    assert seen == [7, "alone", 1e-3, (7,)]


@pytest.mark.parametrize("passes", [None, True, 1, np.True_, np.array([True])])
def test_a_check_that_passes(passes):
    run_check(lambda: passes, "f", None)


def test_a_check_that_says_no():
    with pytest.raises(GpuperfError, match=r"check= of f returned False"):
        run_check(lambda result: result == 8, "f", 7)
    with pytest.raises(GpuperfError, match=r"check= of f returned .* neither true nor false; return "):
        run_check(lambda result: result == np.ones(2), "f", np.ones(2))


@pytest.mark.parametrize(
    "said", [[False], (False, "differs"), {"y": False}, "differs at 3", len, object(), 3e-2, np.float32(0)]
)
def test_a_check_whose_answer_is_no_truth_is_refused(said):
    """Python takes most of them for true: a wrong result passed. An error of 0 failed."""
    with pytest.raises(GpuperfError, match=r"check= of f returned .* neither true nor false; return True or"):
        run_check(lambda: said, "f", None)


@pytest.mark.parametrize(
    ("check", "needs"),
    [(lambda a, b: True, "a, b"), (lambda *, want: True, "want"), (lambda a, *, b: a, "a, b")],
)
def test_a_check_that_needs_more_than_the_result(check, needs):
    with pytest.raises(GpuperfError, match=f"<lambda> needs {needs}: bind what else it needs"):
        needs_result(check)


def test_a_check_may_take_more_than_it_needs():
    assert needs_result(lambda a, b=1, *c, **d: a)
    assert not needs_result(functools.partial(lambda a, b: a, 1, b=2))


def test_what_runs_nothing_when_it_is_called_is_refused():
    """It was timed at half a microsecond."""

    def generator():
        yield

    async def coroutine():
        pass

    class Object:
        async def __call__(self):
            pass

    partials = functools.partial(generator), functools.partial(Object())
    for function in (generator, coroutine, Object(), *partials):
        with pytest.raises(GpuperfError, match="runs nothing when it is called"):
            with_keywords(function, (), {}, OWN)
        with pytest.raises(GpuperfError, match=r"check=.* checks nothing when it is called"):
            needs_result(function)


def test_what_returns_work_that_has_not_begun_is_refused():
    """A lambda tells it only by what it returns."""
    works = (lambda: (launch for launch in ())), (lambda: map(print, ())), (lambda: filter(print, ()))
    for later in (*works, lambda: itertools.starmap(print, ())):
        kind = type(later()).__name__
        with pytest.raises(GpuperfError, match=rf"<lambda> returned its work \({kind}\), which runs"):
            ran(later, later())
        with pytest.raises(GpuperfError, match="<lambda> returned its work"):
            run_check(later, "f", None)
    assert ran(clamp, [1]) == [1]


SUITE = """
    import functools
    import numpy as np

    def scale(x, factor=1, *, out):
        out.get()
        return factor

    def test_keywords(gpu, gpuperf):
        x, out = gpu.to_device(np.ones(4, "f4")), gpu.empty(4)
        gpuperf(scale, x, out=out, factor=3, check=lambda factor: factor == 3)
        gpuperf(functools.partial(scale, factor=2), x, out=out, name="partial")

    def test_wrong_result(gpu, gpuperf):
        gpuperf(lambda: 5, check=lambda result: np.testing.assert_equal(result, 6))

    def test_no(gpuperf):
        gpuperf(lambda: 5, check=lambda result: result == 6)

    def test_typo(gpuperf):
        gpuperf(scale, 1, byte=5, out=3)

    def test_no_check(gpuperf):
        gpuperf(lambda: 5, check=True)

    def test_later(gpuperf):
        gpuperf(lambda: (launch for launch in ()))
"""


@pytest.mark.parametrize("flags", [(), ("--gpuperf", "--gpuperf-strict=off")], ids=["once", "timed"])
def test_in_a_suite(pytester: pytest.Pytester, flags):
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--gpuperf-backend=emulated", *flags)
    result.assert_outcomes(passed=1, failed=5)
    result.stdout.fnmatch_lines_random(
        [
            "*Items are not equal*",
            "test_in_a_suite.py:*: gpuperf(...): check= of <lambda> returned False",
            "*gpuperf(...): scale takes no byte= (did you mean bytes=?)*",
            "*gpuperf(...): check=True; give what is called after the times*",
            "*: <lambda> returned its work (generator), which runs nothing until *",
        ]
    )


def test_arrays_by_keyword_are_part_of_the_contract(pytester: pytest.Pytester):
    pytester.makepyfile(
        test_s="""
        import numpy as np
        from unittest.mock import Mock
        from pytest_gpuperf.session import recorder_of

        class Unknown:
            dtype = "f4"

            @property
            def shape(self):
                raise RuntimeError("of a parameter that no call has made yet")

        def test_it(gpu, gpuperf, request):
            x, y = gpu.to_device(np.ones(4, "f4")), gpu.empty((2, 3))
            gpuperf(lambda x, b, a, dtype: None, x, b=y, a=Unknown(), dtype=np.float32)
            (taken,) = recorder_of(request.node).measurements.values()
            gpuperf(Mock(), x, name="mock")  # whose every attribute is another, which cannot be recorded
            assert taken.contract["arguments"] == "float32[4] to_device; b=float32[2,3] empty"
        """
    )
    pytester.runpytest_subprocess(
        "--gpuperf-backend=emulated", "--gpuperf", "--gpuperf-strict=off"
    ).assert_outcomes(passed=1)
