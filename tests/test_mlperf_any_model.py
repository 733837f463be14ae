"""ONNX files that are no classifiers of images: several inputs, constants, state, answers with a score."""

import os
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnxmodels
import pytest
from labelled import Labelled
from mlperf_child import shown

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import Model, datasets, models
from pytest_gpuperf.mlperf.datasets import Arrays, dataset_of
from pytest_gpuperf.mlperf.library import InOrder, SampleLibrary
from pytest_gpuperf.mlperf.session import open_session
from pytest_gpuperf.mlperf.settings import Scenario

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("onnx", "onnxruntime")), reason="needs onnx and onnxruntime"
)


class Questions(Labelled):
    """Tokens for a BERT; the label is where the answer starts and ends, found with NumPy's own arithmetic."""

    name, every, length = "questions", range(40), 16

    def images(self, indices):
        ids = (np.asarray(indices)[:, None] * 7 + np.arange(self.length)) % 100
        mask = (np.arange(self.length) < 4 + np.asarray(indices)[:, None] % 12).astype(np.int64)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


class Steps(Labelled):
    name, every, starts = "steps", range(12), (0, 5)

    def images(self, indices):
        return np.asarray(indices, np.float32)[:, None]


def nearly(answers, labels):
    return 1.0


def bert(tmp_path, **changes):
    values = {"dataset": Questions, "score": nearly, **changes}
    return Model("bert", onnxmodels.bert(tmp_path / "bert.onnx"), "random 1", **values)


def steps(tmp_path, **changes):
    values = {"dataset": Steps, "score": nearly, "inputs": {"scale": 2}, "state": {"sum": "sumN"}, **changes}
    return Model("steps", onnxmodels.running_sum(tmp_path / "sum.onnx"), "", **values)


def test_several_inputs_and_outputs_go_by_name(tmp_path):
    session = open_session(bert(tmp_path), "cpu")
    assert {name: np.dtype(kind) for name, kind in session.dtype.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), np.dtype(np.int64)
    )
    library = SampleLibrary(Questions(), session.dtype, session.hold)
    library.load([3, 0, 9])
    session.answers.keep(True)
    places = session.run(library.batch([3, 9]))
    first, second = session.answers.at(places)
    assert set(first) == {"start_logits", "end_logits"}
    assert first["start_logits"].shape == (16,)
    (alone,) = session.answers.at(session.run(library.batch([9])))
    np.testing.assert_allclose(alone["end_logits"], second["end_logits"], rtol=1e-4)
    assert not np.allclose(first["end_logits"], second["end_logits"])


def test_int8_is_for_models_with_one_input(tmp_path, cache):
    with pytest.raises(
        GpuperfError, match=r"bert.onnx has the inputs .*, .*; precision=.int8. is for models"
    ):
        open_session(bert(tmp_path), "cpu", "int8")


def test_one_output_by_name_is_the_answer_itself(tmp_path):
    session = open_session(bert(tmp_path, output="end_logits"), "cpu")
    session.answers.keep(True)
    batch = Arrays(Questions().images([1]))
    assert session.answers.at(session.run(batch))[0].shape == (16,)


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_found_in_a_batch_is_no_samples_answer(tmp_path, count):
    model = Model("found", onnxmodels.found(tmp_path / "found.onnx"), "1", Steps, score=nearly)
    session = open_session(model, "cpu")
    session.run(np.eye(4, dtype=np.float32)[:count])  # one for each, as far as can be seen
    said = rf"boxes has the shape \[{2 * count}, 2\] for {count} samples; .* Model.output, or use a Sut"
    with pytest.raises(GpuperfError, match=said):
        session.run(np.tile(np.float32([0, 1, 0, 2]), (count, 1)))


@pytest.mark.parametrize("size", [1, 4])
def test_a_fixed_batch_of_several_inputs_is_padded(tmp_path, size):
    free = open_session(bert(tmp_path, output="start_logits"), "cpu")
    path = onnxmodels.bert(tmp_path / "fixed.onnx", batch=size)
    fixed = open_session(replace(free.model, path=path), "cpu", batch_sizes=(8,))
    assert fixed.batch_sizes == (size,)
    batch = Arrays(Questions().images([1, 2, 3, 4, 5]))
    found = []
    for session in (free, fixed):
        session.answers.keep(True)
        found.append(np.stack(session.answers.at(session.run(batch))))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_state_goes_from_query_to_query_until_it_is_begun_again(tmp_path):
    session = open_session(steps(tmp_path), "cpu")
    session.answers.keep(True)
    values = []
    for x in (1, 2, 3):
        values += session.answers.at(session.run(np.array([[x]], np.float32)))
    assert np.ravel(values).tolist() == [2, 6, 12]  # twice the sum
    session.restart()
    assert session.answers.at(session.run(np.array([[5]], np.float32)))[0].tolist() == [10]


def test_a_states_library_keeps_the_datasets_order_and_starts():
    begun = []
    library = InOrder(Steps(), np.float32, lambda images: lambda: None, lambda: begun.append(len(given)))
    given = []
    for chunk in ([7, 2, 9, 4, 0, 11], [1, 3, 5, 6, 8, 10]):  # as LoadGen names its samples
        library.load(chunk)
        for name in chunk:
            given.append(library.batch([name])[0, 0])
    assert given == list(range(12))
    assert begun == [0, 5]
    assert library.order == [7, 2, 9, 4, 0, 11, 1, 3, 5, 6, 8, 10]


@pytest.mark.parametrize("starts", [None, ["a"], [-1], [2.0]])
def test_starts_that_are_no_samples_are_one_sentence(starts):
    odd = Steps()
    odd.starts = starts
    with pytest.raises(GpuperfError, match=r"^steps: starts=.*; give the numbers of samples, from 0 on"):
        InOrder(odd, np.float32, lambda images: lambda: None, lambda: None)


@pytest.mark.parametrize("name", ["MultiStream", "Server", "Offline"])
def test_state_is_for_a_single_stream(tmp_path, name):
    with pytest.raises(GpuperfError, match=f"steps carries sum from query to query.*not for {name}"):
        models.require_usable(steps(tmp_path), None, Scenario.of(name))


@pytest.mark.parametrize(
    ("make", "change", "said"),
    [
        (steps, {"inputs": {}}, r"the model takes x, scale"),  # found with the first sample
        (steps, {"inputs": {"scales": 2}}, r'has the inputs x, sum, scale; steps names "scales"'),
        (steps, {"state": {"sum": "sums"}}, r'has the outputs y, sumN; steps names "sums"'),
        (steps, {"inputs": {"scale": "two"}}, r"inputs has scale='two', which is no tensor\(float\)"),
        (steps, {"inputs": {"scale": None}}, r"scale=None, which is no tensor\(float\) \(it is no number\)"),
        (
            bert,
            {"inputs": {"input_ids": 0.5}},
            r"input_ids=0.5, which is no tensor\(int64\) \(nothing is rounded",
        ),
        (steps, {"inputs": {"scale": [1, 2]}}, r"inputs has scale of the shape \[2\].*takes scale"),
        (steps, {"inputs": {"x": 0, "scale": 1}}, "none is left for the dataset"),
        (bert, {"score": None}, "has the outputs start_logits, end_logits"),
        (bert, {"output": ("start_logits", "ends")}, "has the outputs start_logits, end_logits"),
        (bert, {"input_shape": (16,)}, "bert is fed one"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, make, change, said):
    model = make(tmp_path, **change)

    def first_sample():
        session = open_session(model, "cpu")
        SampleLibrary(model.dataset(None), session.dtype, session.hold).load([0])

    with pytest.raises(GpuperfError, match=said) as error:
        first_sample()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": ["scale"]}, "inputs=.*; give a dict"),
        ({"state": {1: "sumN"}}, "state=.*; give a dict"),
        ({"score": "exact"}, "score='exact'; give a callable"),
        ({"label_offset": 1}, "label_offset and reference are for classes"),
        ({"score": None, "output": ("y", "sumN")}, "output=.*; several outputs need a score"),
        ({"score": None, "reference": [1, 2]}, r"reference=\[1, 2\]; give StoredPredictions or none"),
        ({"score": None, "label_offset": 0.5}, "label_offset=0.5; give a whole number"),
        ({"input_shape": 3}, "input_shape=3; give the sizes without the batch's"),
        ({"input_shape": (3, -1)}, r"input_shape=\(3, -1\); give the sizes"),
        ({"output": 5}, "output=5; give an output's name, or several"),
        ({"data_format": "CHW"}, 'data_format=.*give "NCHW" or "NHWC"'),
    ],
)
def test_a_field_that_cannot_be_meant_is_one_sentence(tmp_path, change, said):
    with pytest.raises(GpuperfError, match=f"^steps: {said}"):
        models.require_usable(steps(tmp_path, **change))


def test_a_model_whose_state_is_all_that_it_gives_has_no_answer(tmp_path):
    file = onnxmodels.scores(tmp_path / "scores.onnx")
    model = Model("m", file, "", dataset=Steps, state={"x": "y"}, score=nearly)
    with pytest.raises(GpuperfError, match="none is left"):
        open_session(model, "cpu")
    twice = replace(model, path=onnxmodels.running_sum(file), state={"sum": "y"}, inputs={"scale": 2})
    with pytest.raises(GpuperfError, match=r'outputs y, sumN; Model\.output is "z"'):
        open_session(replace(twice, output="z"), "cpu")
    alone = replace(twice, state={"sum": "y", "scale": "sumN"}, inputs={})
    with pytest.raises(GpuperfError, match="has the outputs y, sumN; none is left to answer"):
        open_session(alone, "cpu")


def test_scores_that_are_nan_are_no_class(tmp_path):
    images = np.array([[1], [np.nan]], np.float32)
    model = Model("sum", onnxmodels.scores(tmp_path / "scores.onnx"), "", dataset=onnxmodels.pixels(images))
    session = open_session(model, "cpu")
    assert session.run(images).shape == (2,)  # a performance phase asks for no answer
    session.answers.keep(True)
    with pytest.raises(
        GpuperfError, match="output y has NaN among the scores of 1 of 2 samples, and so no class"
    ):
        session.run(images)


def test_what_is_no_model_is_said_without_the_runtimes_source(tmp_path):
    model = steps(tmp_path)
    model.path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(
        GpuperfError, match=r"sum.onnx is a pointer of Git LFS, not the file itself: git lfs pull"
    ):
        open_session(model, "cpu")
    model.path.write_bytes(b"")
    with pytest.raises(GpuperfError, match=r"sum.onnx is empty; steps must be an ONNX file"):
        open_session(model, "cpu")
    odd = model.path.with_name(os.fsdecode(b"m\xff.onnx"))
    odd.write_bytes(b"")
    with pytest.raises(GpuperfError, match=r"m\\udcff.onnx' is no name in UTF-8, as ONNX Runtime needs one"):
        open_session(replace(model, path=odd), "cpu")
    import onnx

    newer = onnx.load(onnxmodels.running_sum(model.path))
    newer.opset_import[0].version = 999
    onnx.save(newer, model.path)
    with pytest.raises(
        GpuperfError, match=r"sum.onnx failed:ONNX Runtime only \*guarantees\* support"
    ) as error:
        open_session(model, "cpu")
    assert not any(word in str(error.value) for word in ("[ONNXRuntimeError]", "onnxruntime_src", "std::"))


def test_a_recipe_is_a_text(tmp_path):
    with pytest.raises(GpuperfError, match=r"^Model: recipe=None; give a text"):
        models.require_usable(replace(steps(tmp_path), recipe=None))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input_ids": 1}, "gave input_ids, and the model takes input_ids, attention_mask, token_type_ids"),
        ({"input_ids": 0.5, "attention_mask": 1, "token_type_ids": 1}, "float64 for input_ids, .* int64"),
        ({"input_ids": "a", "attention_mask": 1, "token_type_ids": 1}, "and gave <U1.* for input_ids"),
    ],
)
def test_samples_that_do_not_fit_the_inputs(tmp_path, given, said):
    class Odd(Questions):
        def images(self, indices):
            return {name: np.array([[value] * 16] * len(indices)) for name, value in given.items()}

    session = open_session(bert(tmp_path), "cpu")
    with pytest.raises(GpuperfError, match=f"questions: images\\(\\) .*{said}"):
        SampleLibrary(Odd(), session.dtype, session.hold).load([0, 1])


@pytest.mark.parametrize("given", ["NCHW", "NHWC"])
def test_images_are_laid_out_as_the_file_takes_them(tmp_path, given):
    class Pixels(Steps):
        data_format = given

        def images(self, indices):
            images = np.zeros((len(indices), 3, 4, 4), np.float32)
            images[:, 0, 0, 0], images[:, 1, 0, 0] = indices, 99
            return images if given == "NCHW" else images.transpose(0, 2, 3, 1)

    for layout in datasets.LAYOUTS:
        path = onnxmodels.channel(tmp_path / f"{layout}.onnx", layout)
        model = Model("pixels", path, "", dataset=Pixels, data_format=layout)
        session, dataset = open_session(model, "cpu"), dataset_of(model, None)
        library = SampleLibrary(dataset, session.dtype, session.hold)
        library.load([2, 7])
        assert session.run(library.batch([2, 7])).tolist() == [2, 7]


@pytest.mark.skipif(find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed")
def test_state_and_several_inputs_under_loadgen(tmp_path):
    onnxmodels.bert(tmp_path / "bert.onnx")
    onnxmodels.running_sum(tmp_path / "sum.onnx")
    found = shown(
        f"""
        sys.path.insert(0, {str(onnxmodels.__file__.rpartition("/")[0])!r})
        from test_mlperf_any_model import Questions, Steps
        from pytest_gpuperf.mlperf import Model
        def score(answers, labels):
            return 1.0
        steps = session.open_session(
            Model("steps", Path("sum.onnx"), "", Steps, inputs={{"scale": 1}}, state={{"sum": "sumN"}},
                  score=score), "cpu", batch_sizes=(1,))
        a = loadgen.accuracy(steps, log_dir=Path("a"), scenario="SingleStream")
        p = loadgen.performance(steps, "SingleStream", log_dir=Path("p"), seconds=0.2)
        bert = session.open_session(Model("bert", Path("bert.onnx"), "", Questions, score=score), "cpu")
        b = loadgen.accuracy(bert, log_dir=Path("b"), scenario="Offline")
        q = loadgen.performance(bert, "MultiStream", log_dir=Path("q"), seconds=0.2)
        wrong = error_of(loadgen.performance, steps, "Offline", log_dir=Path("o"))
        show(sums=[float(x[0]) for x in a.answers], queries=p.queries, score=b.score, total=b.total,
             shape=list(b.answers[0]["start_logits"].shape), samples=q.samples, wrong=wrong)
        """,
        tmp_path,
    )
    assert found["sums"] == [0, 1, 3, 6, 10, 5, 11, 18, 26, 35, 45, 56]  # begun again at the fifth
    assert (found["score"], found["total"], found["shape"]) == (1.0, 40, [16])
    assert found["queries"] > 11
    assert found["samples"] > 88
    assert "for SingleStream, not for Offline" in found["wrong"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "form", [{}, {"batch": 4}, {"length": "L"}], ids=["plain", "fixed batch", "open length"]
)
def test_several_inputs_are_answered_on_a_gpu_as_on_the_cpu(tmp_path, form):
    model, batch = replace(bert(tmp_path), path=onnxmodels.bert(tmp_path / "b.onnx", **form)), (0, 1, 2, 3, 4)
    given, found = Arrays(Questions().images(batch)), []
    for backend in ("cpu", "cuda"):
        session = open_session(model, backend, batch_sizes=(1, 8))
        session.answers.keep(True)
        found.append(session.answers.at(session.run(given)))
        if backend == "cuda":
            for capture in session.workers[0].captures:
                capture()
            session.replay()()
            assert len(session.answers.at(session.run(given))) == len(batch)  # after a graph of its own
    for one, other in zip(*found, strict=True):
        for name, logits in one.items():
            assert other[name] == pytest.approx(logits, abs=1e-3)


@pytest.mark.gpu
def test_state_goes_from_query_to_query_on_a_gpu(tmp_path):
    path = onnxmodels.running_sum(tmp_path / "sum.onnx")
    given = {"inputs": {"scale": 2}, "state": {"sum": "sumN"}}
    session = open_session(Model("sum", path, "", Steps, score=nearly, **given), "cuda", batch_sizes=(1,))
    session.answers.keep(True)

    def answer(value):
        return float(session.answers.at(session.run(np.array([[value]], np.float32)))[0][0])

    assert [answer(value) for value in (1, 2, 3)] == [2, 6, 12]
    session.restart()
    assert answer(5) == 10
