"""What counts as correct, which differences a precision explains, and MLPerf's gate at its very edges."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from pytest_gpuperf.errors import GpuperfError
from pytest_gpuperf.mlperf import accuracy, datasets, models
from pytest_gpuperf.mlperf.accuracy import Gate, StoredPredictions

TOTAL = 50_000


def imagenet(right):
    """Predictions and labels of 50,000 images of which so many are right."""
    labels = np.arange(TOTAL, dtype=np.int64) % 1000
    predictions = labels.copy()
    predictions[right:] = (labels[right:] + 1) % 1000
    return predictions, labels


def test_correct_counts_equal_classes():
    assert accuracy.correct(np.array([3, 1, 2, 2]), np.array([3, 1, 0, 2])) == 3


def test_correct_refuses_another_number_of_labels():
    with pytest.raises(ValueError, match=r"\(2,\) predictions for \(1,\) labels"):
        accuracy.correct(np.array([3, 1]), np.array([3]))


@pytest.mark.parametrize("right", [38_203, 38_228, 38_253])
def test_gate_takes_76_456_percent_within_25_images(right):
    assert Gate().problems(*imagenet(right), "fp32") == []
    assert Gate().unexplained(*imagenet(right), "fp32") == 0


@pytest.mark.parametrize(("right", "beyond"), [(38_202, 1), (38_254, 1), (38_300, 47)])
def test_gate_refuses_more_in_either_direction(right, beyond):
    (problem,) = Gate().problems(*imagenet(right), "fp32")
    assert f"{right:,} of 50,000" in problem
    assert "38,228 within 25" in problem
    assert Gate().unexplained(*imagenet(right), "fp32") == beyond


def test_gate_floor_is_75_6954_percent_in_every_precision():
    assert Gate().problems(*imagenet(37_848), "fp16") == []
    (problem,) = Gate().problems(*imagenet(37_847), "fp16")
    assert "below the floor of 75.6954%" in problem
    assert len(Gate().problems(*imagenet(37_847), "fp32")) == 2


@pytest.mark.parametrize("seen", [1, 20, 500, 5_000, 49_999])
def test_some_images_are_held_to_what_a_sample_would_give(seen):
    """To the exact tail of the binomial distribution, summed here in whole numbers."""
    least = Gate().least(seen)
    chance, below = Fraction(Gate().reference, Gate().total), Fraction(0)
    if seen <= 500:
        terms = [comb(seen, k) * chance**k * (1 - chance) ** (seen - k) for k in range(least + 1)]
        below = sum(terms[:least])
        assert below <= Fraction(1, 10_000) < below + terms[least]
    else:  # a normal distribution's quantile, within an image or two
        spread = (seen * 0.76456 * 0.23544) ** 0.5
        assert least == pytest.approx(seen * 0.76456 - 3.719 * spread, abs=2)
    labels = np.arange(seen)
    for right, red in ((seen, 0), (least, 0), (least - 1, 1)):
        found = np.where(labels < right, labels, -1)
        for precision in ("fp32", "fp16"):
            assert len(Gate().problems(found, labels, precision)) == (red if right >= 0 else 0)
            assert Gate().unexplained(found, labels, precision) == (red if right >= 0 else 0)


def test_what_a_part_of_the_images_was_held_to_is_said():
    assert Gate().scope(TOTAL) == ""
    said = "500 of 50,000 images: at least 346 (69.2%) must be right, as with 76.456% in 99.99% of random"
    assert said in Gate().scope(500)
    (problem,) = Gate().problems(np.zeros(500), np.arange(500), "fp32")
    assert problem.startswith(f"1 of 500 correct (0.200%); {said}")


@pytest.mark.parametrize(
    ("step", "said"),
    [(0, ""), (1, "with every class one lower"), (-1, "with every class one higher"), (5, "")],
)
def test_classes_that_are_all_one_off_are_told(step, said):
    labels = np.arange(24)
    found = accuracy.shifted(labels + step, labels)
    assert said in found
    assert bool(said) == bool(found)


STORED = StoredPredictions(np.array([1, 2, 3], np.uint8), np.array([0.5, 0.02, 0.0005], np.float32))
LABELS = np.array([1, 2, 9])


def test_same_predictions_are_no_problem():
    assert STORED.problems(np.array([1, 2, 3]), LABELS, "fp32") == []


@pytest.mark.parametrize(
    ("now", "precision", "unexplained"),
    [
        ([1, 2, 7], "fp32", 0),  # a margin of 0.0005
        ([1, 7, 3], "fp32", 1),
        ([1, 7, 3], "fp16", 0),  # a margin of 0.02
        ([7, 7, 7], "fp16", 1),
        ([7, 7, 7], "fp32", 2),
    ],
)
def test_an_image_flips_only_within_what_precision_explains(now, precision, unexplained):
    assert STORED.unexplained(np.array(now), LABELS, precision) == unexplained
    assert bool(STORED.problems(np.array(now), LABELS, precision)) == bool(unexplained)


def test_the_message_lists_the_images_that_flipped():
    (problem,) = STORED.problems(np.array([7, 2, 3]), LABELS, "fp32")
    assert problem.startswith("1 of 3 images")
    assert "image 0: 1 became 7 (label 1, margin 0.5000)" in problem


def test_a_long_list_is_cut():
    stored = StoredPredictions(np.zeros(30, np.uint8), np.ones(30, np.float32))
    (problem,) = stored.problems(np.ones(30, np.int64), np.zeros(30, np.int64), "fp32")
    assert "image 9:" in problem
    assert "image 10:" not in problem
    assert "and 20 more" in problem


def test_a_count_compares_the_first_images_only():
    assert STORED.problems(np.array([1, 2]), LABELS[:2], "fp32") == []
    with pytest.raises(GpuperfError, match="4 images, and StoredPredictions of 3"):
        STORED.flips(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 4]))


@pytest.mark.parametrize("margins", [[1, np.nan], [1], [[1, 2]], 1])
def test_a_margin_that_would_allow_any_class_is_refused(margins):
    with pytest.raises(
        GpuperfError, match=r"^StoredPredictions: predictions \[2\] and margins .* finite margin"
    ):
        StoredPredictions(np.array([1, 2]), np.array(margins, np.float32))


def test_the_digits_are_ucis():
    pixels, labels, held_out = datasets.load_digits()
    assert pixels.shape == (1797, 8, 8)
    assert (pixels.max(), labels.max()) == (16, 9)
    # The class counts in UCI's optdigits.names, for the test file.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(set(held_out.tolist())) == 797


def test_enlarging_repeats_each_pixel_exactly():
    pixels = datasets.load_digits()[0][:2]
    images = datasets.enlarge(pixels)
    assert (images.shape, images.dtype) == ((2, 3, 224, 224), np.float32)
    back = (images[:, :, ::28, ::28] + 0.5) * 16
    assert np.array_equal(back, np.repeat(pixels[:, None], 3, axis=1))
    assert np.array_equal(images[:, 2, 27::28, 27::28], images[:, 0, ::28, ::28])


def test_digits_keeps_the_first_of_the_held_out():
    some, all_of_them = datasets.Digits(5), datasets.Digits()
    assert (len(some), len(all_of_them)) == (5, 797)
    assert np.array_equal(some.labels, all_of_them.labels[:5])
    assert np.array_equal(some.images([4]), all_of_them.images([4]))


def test_the_stored_predictions_say_788_of_797():
    head = models.digits_head()
    assert accuracy.correct(head.predictions, datasets.Digits().labels) == 788
    assert head.margins.min() > accuracy.MARGINS["fp32"]  # so that no fp32 kernel may flip any image
