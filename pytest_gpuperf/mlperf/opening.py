"""Where a model runs and in which batches, by what a phase was asked for."""

from __future__ import annotations

from typing import Any, cast

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf.models import Model
from pytest_gpuperf.mlperf.request import Request
from pytest_gpuperf.mlperf.session import SESSIONS, Backend, CpuSession, CudaSession, Team, open_session
from pytest_gpuperf.mlperf.sut import Sut, SutSession
from pytest_gpuperf.session import GpuperfSession

AnySession = CpuSession | CudaSession | SutSession
SERVER_BATCH = 64  # images of a batch in Server at most, unless said otherwise


def open_for(session: GpuperfSession, model: Model | Sut, asked: Request) -> AnySession:
    """Load the model for the scenario's batches, on the GPU if this run uses one."""
    on_gpu, traffic = session.expects_device() and asked.backend != "cpu", asked.traffic()
    if asked.threads and (on_gpu or isinstance(model, Sut)):
        raise GpuperfError("loadgen: threads= is for ONNX models on the CPU")
    if not on_gpu and (asked.devices or asked.qsl != "host" or asked.backend not in (None, "cpu")):
        raise GpuperfError('loadgen: devices=, qsl= and backend= other than "cpu" are for a GPU')
    if isinstance(model, Sut):
        if asked.streams or asked.devices or asked.qsl != "host" or asked.backend:
            raise GpuperfError(
                "loadgen: streams=, devices=, qsl= and backend= are for ONNX models, not for a Sut"
            )
        if asked.precision not in ("fp32", model.precision):
            raise GpuperfError(
                f'loadgen: precision="{asked.precision}" converts ONNX models; {model.name} is a Sut, which '
                f'says itself what it computes in: Sut(precision="{model.precision}")'
            )
        most = asked.max_batchsize or int(model.max_batchsize)
        return SutSession(model, traffic.batch(most), most)
    backend = cast("Backend", (asked.backend or "cuda") if on_gpu else "cpu")
    largest = SESSIONS[backend].offline_batch
    size = traffic.batch(asked.max_batchsize or (min(largest, SERVER_BATCH) if traffic.server else largest))
    sizes = {size}
    if traffic.server and on_gpu:  # a CUDA graph has one size, and a batch is padded to the next
        sizes |= {1 << power for power in range(size.bit_length()) if 1 << power < size}
    # The device's own stream, so that its events see ONNX Runtime's work; only --gpuperf times by them.
    stream = int(session.gpu().stream.handle) if on_gpu and session.options.active else None
    team = Team(asked.streams or 1, asked.devices or 1, asked.qsl)
    precision = cast(Any, asked.precision)
    opened = open_session(model, backend, precision, sorted(sizes), stream, asked.threads, team)
    if asked.backend == "cpu":  # it is compared with its like, not with what a GPU does
        opened.contract = {"backend": "cpu"}
    return opened
