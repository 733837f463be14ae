"""The emulator's model against what an H100 counted of the shipped kernels.

``kept/h100_counters.jsonl`` has what CUPTI counted of every launch that a shipped test counts (driver
580.159.04, nvcc 13.0): of global memory requests and sectors, of shared memory requests, wavefronts and bank
conflicts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
KEPT = [
    json.loads(line) for line in (Path(__file__).parent / "kept/h100_counters.jsonl").read_text().splitlines()
]
ACCESSES = ("global_load", "global_store", "shared_load", "shared_store")
# Writes what a test counts, as the table has it; the suites run with it as a plugin.
RECORD = """
    import json, os
    import pytest_gpuperf.instruments.counters as counters

    original = counters.count

    def count(program, name, geometry, arguments, modelled=True):
        found = original(program, name, geometry, arguments, modelled)
        line = {"test": os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0], "kernel": name}
        for access in ("global_load", "global_store"):
            traffic = getattr(found, access)
            line[access] = [traffic.requests, traffic.sectors]
        for access in ("shared_load", "shared_store"):
            traffic = getattr(found, access)
            line[access] = [traffic.requests, traffic.wavefronts, traffic.bank_conflicts]
        with open(os.environ["RECORD"], "a") as file:
            file.write(json.dumps(line) + "\\n")
        return found

    counters.count = count
"""


def named(told) -> str:
    return f"{told['test'].partition('::')[2]}-{told['kernel']}"


def counted(folder: Path, backend: str, bare: dict[str, str]) -> dict[tuple[str, str], dict[str, list[int]]]:
    """Run the tests of the table on a backend and return what they count."""
    (folder / "recorder.py").write_text("\n".join(line[4:] for line in RECORD.splitlines()))
    environment = {name: value for name, value in bare.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "RECORD": str(folder / "found")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "recorder"]
    command += [f"--gpuperf-backend={backend}", *dict.fromkeys(told["test"] for told in KEPT)]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    if "skipped" in done.stdout.splitlines()[-1]:
        pytest.skip(f"nothing can be counted here: {done.stdout[-200:]}")
    assert done.returncode == 0, done.stdout
    lines = map(json.loads, (folder / "found").read_text().splitlines())
    return {(line["test"], line["kernel"]): line for line in lines}


@pytest.fixture(scope="module")
def modelled(tmp_path_factory, bare_environment) -> dict[tuple[str, str], dict[str, list[int]]]:
    """What the emulator counts of the same launches."""
    return counted(tmp_path_factory.mktemp("recorder"), "emulated", bare_environment)


@pytest.mark.gpu
def test_a_gpu_counts_what_the_table_has(tmp_path, bare_environment):
    found = counted(tmp_path, "cuda", bare_environment)
    for told in KEPT:
        line = found[told["test"], told["kernel"]]
        assert [line[access] for access in ACCESSES] == [told[access] for access in ACCESSES], told


@pytest.mark.parametrize("told", KEPT, ids=named)
def test_sectors_a_request_are_those_of_a_gpu(modelled, told):
    found = modelled[told["test"], told["kernel"]]
    for access in ("global_load", "global_store"):
        here, there = found[access], told[access]
        assert here[1] * there[0] == there[1] * here[0], access


@pytest.mark.parametrize("told", KEPT, ids=named)
def test_bank_conflicts_are_those_of_a_gpu(modelled, told):
    found = modelled[told["test"], told["kernel"]]
    for access in ("shared_load", "shared_store"):
        assert found[access][2] == told[access][2], access


@pytest.mark.parametrize("told", [told for told in KEPT if told["kernel"].startswith("sum_")], ids=named)
def test_shared_requests_of_a_tree_are_those_of_a_gpu(modelled, told):
    """Most of them are of warps that a GPU goes through switched off."""
    found = modelled[told["test"], told["kernel"]]
    for access in ("shared_load", "shared_store"):
        assert found[access] == told[access], access


def test_the_table_has_conflicts_and_scattered_accesses():
    assert any(told["shared_load"][2] for told in KEPT)
    assert any(told["global_load"][1] == 32 * told["global_load"][0] > 0 for told in KEPT)
