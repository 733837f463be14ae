"""The examples of docs/frameworks.md do what they say, on a GPU."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import gpuproject
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "frameworks.md"
EXAMPLES = dict(re.findall(r"^## (\S+)\n\n```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
MODULES = {
    "torch": "torch",
    "CuPy": "cupy",
    "Triton": "triton",
    "Numba": "numba.cuda.cudaimpl",  # imported late, and not beside a NumPy that numba-cuda does not know
    "cuda.core": "cuda.core",
}


def file(framework: str) -> str:
    return f"test_{framework.replace('.', '_').lower()}.py"


def is_there(module: str) -> bool:
    try:
        import_module(module)
    except Exception:  # of whatever kind the framework's own trouble is
        return False
    return True


@pytest.mark.parametrize("framework", MODULES)
def test_an_example_is_short_and_says_its_work(framework):
    code = EXAMPLES[framework]
    compile(code, f"{framework} in {PAGE.name}", "exec")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert re.search(r"gpuperf\(.*(bytes|flops)=", code)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """All examples in one process a backend, since a session's start is most of their time."""
    return cache(lambda backend: run_all(tmp_path_factory, backend))


def run_all(tmp_path_factory, backend):
    gpuproject.opened(backend).close()
    project = tmp_path_factory.mktemp("frameworks")
    for framework, module in MODULES.items():
        if is_there(module):
            (project / file(framework)).write_text(EXAMPLES[framework])
    return gpuproject.run(project, "-rA", "--gpuperf-strict=off", backend=backend)[1]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", gpuproject.BINDINGS)
@pytest.mark.parametrize(("framework", "module"), MODULES.items())
def test_an_example_passes_on_a_gpu(request, framework, module, backend):
    if not is_there(module):
        pytest.skip(f"{framework} is not installed here, or cannot be imported")
    assert f"PASSED {file(framework)}::" in request.getfixturevalue("output")(backend)
