"""Which model is meant, and the embedded one built and cached."""

import sys
from pathlib import Path

import numpy as np
import onnxmodels
import pytest
from recordedruns import load

from pytest_gpuperf.cache import sha256
from pytest_gpuperf.errors import GpuperfError, Unavailable
from pytest_gpuperf.mlperf import Model, models, resnet50, weights
from pytest_gpuperf.mlperf.onnx_session import precision_file

REPOSITORY = Path(models.__file__).parents[2]


def test_weights_have_the_shipped_checksum():
    assert resnet50.checksum(models.SEED) == models.digits_head().checksum


def test_weights_depend_on_the_seed_and_the_layer_alone():
    conv = resnet50.STEM
    assert np.array_equal(conv.weights(1), conv.weights(1))
    assert not np.array_equal(conv.weights(1), conv.weights(2))
    longer = {conv.name: conv for conv in resnet50.convolutions((3, 4, 8, 3))}
    for conv in resnet50.convolutions():
        assert longer[conv.name].shape == conv.shape
    assert len(longer) == 53 + 6


def test_weights_have_hes_variance_and_no_mean():
    weights = next(c for c in resnet50.convolutions() if c.name == "stage3_block0_b").weights(1)
    assert weights.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert abs(weights.mean()) < weights.std() / 100


def test_the_graph_is_resnet50():
    convs = list(resnet50.convolutions())
    assert len(convs) == 53
    # 25.6 million parameters less the fully connected layer's 2.05 and 0.05 of batch normalisation.
    assert sum(np.prod(conv.shape) for conv in convs) == 23_454_912


def test_an_unknown_model(cache):
    with pytest.raises(GpuperfError, match='no model "resnet51"; use "resnet50-digits" or "resnet50"'):
        models.resolve("resnet51")


def test_imagenet_needs_both_folders_and_files(tmp_path):
    with pytest.raises(GpuperfError, match="needs MODEL_DIR"):
        models.resolve("resnet50")
    with pytest.raises(GpuperfError, match=r"resnet50_v1\.onnx does not exist"):
        models.resolve(None, model_dir=tmp_path, data_dir=tmp_path)
    (tmp_path / "resnet50_v1.onnx").write_bytes(b"some")
    with pytest.raises(GpuperfError, match=r"data is no folder; DATA_DIR must hold ImageNet"):
        models.resolve(None, model_dir=tmp_path, data_dir=tmp_path / "data")
    lacking = models.resolve(None, model_dir=tmp_path, data_dir=tmp_path)  # which has another list, perhaps
    with pytest.raises(GpuperfError, match=r"val_map\.txt cannot be read .* hold ImageNet's val_map\.txt$"):
        models.require_usable(lacking)
    (tmp_path / "a.jpg").touch()
    (tmp_path / "val_map.txt").write_text("a.jpg 3\n")
    model = models.resolve(None, model_dir=tmp_path, data_dir=tmp_path)
    assert (model.name, model.label_offset, model.output) == ("resnet50", -1, "ArgMax:0")
    assert model.dataset(None).labels.tolist() == [3]


def test_the_embedded_model_without_onnx_names_the_package(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(Unavailable, match=r"needs onnx .*pip install 'pytest-gpuperf\[mlperf\]'"):
        models.resolve()


def test_more_blocks_keep_the_models_name_and_recipe(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="building the model needs onnx")
    monkeypatch.setattr(models, "cached", lambda name, make: tmp_path / Path(name).name)
    found = load("more_work/more_blocks.py").with_blocks(tmp_path / "slower.onnx", (1, 1, 2, 1))
    original = models.digits_model()
    assert (found.name, found.recipe) == (original.name, original.recipe)
    kinds = [node.op_type for node in onnx.load(str(found.path)).graph.node]
    assert kinds.count("Conv") == 1 + 3 * 5 + 4  # the stem, three a block, four shortcuts


def test_int8_of_a_model_without_convolutions_is_refused(cache, tmp_path):
    pytest.importorskip("onnx", reason="the model under test is written with onnx")
    pytest.importorskip("onnxruntime", reason="it quantises")

    pixels = onnxmodels.pixels(np.zeros((3, 3, 4, 4), np.float32))
    model = Model("flat", onnxmodels.channel(tmp_path / "m.onnx", "NCHW"), "", dataset=pixels)
    for _ in range(2):  # nor is it kept
        with pytest.raises(GpuperfError, match=r'^.*m\.onnx: precision="int8" quantises convolutions'):
            precision_file(model, "int8", weights.digest(model.path))


def test_weights_beside_the_file_are_part_of_the_model(cache, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the model under test is written with onnx")
    from onnx import numpy_helper

    pytest.importorskip("onnxruntime", reason="its converter makes fp16")
    model = Model("bert", tmp_path / "m.onnx", "", lambda count: None)
    beside = "w" * 150  # two bytes of length

    def converted(sign):
        loaded = onnx.load(str(onnxmodels.bert(tmp_path / "whole.onnx")))
        (words,) = (each for each in loaded.graph.initializer if each.name == "words")
        words.CopyFrom(numpy_helper.from_array(sign * numpy_helper.to_array(words), "words"))
        (tmp_path / beside).unlink(missing_ok=True)  # or onnx adds to it
        onnx.save(loaded, str(model.path), save_as_external_data=True, location=beside, size_threshold=0)
        digest = weights.digest(model.path)
        half = onnx.load(str(precision_file(model, "fp16", digest)))
        found = next(each for each in half.graph.initializer if each.name == "words")
        return digest, numpy_helper.to_array(found)

    (before, positive), (after, negative) = converted(1), converted(-1)
    assert weights.external(model.path) == [tmp_path / beside]
    assert before != after
    np.testing.assert_array_equal(positive, -negative)
    (tmp_path / beside).unlink()
    assert weights.digest(model.path) == sha256(model.path)[:16]
    with pytest.raises(GpuperfError, match=r"failed while converting it to fp16 \(bert, .*m\.onnx\)"):
        precision_file(model, "fp16", weights.digest(model.path))
    model.path.write_bytes(model.path.read_bytes() + b"\x0a\x08location\x12\xff\x1f" + b"x" * 4095)
    assert weights.external(model.path) == []  # nor is that too long for a name
