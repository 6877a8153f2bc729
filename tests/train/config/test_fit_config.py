from dataclasses import asdict
from pathlib import Path

import pytest

from train.config.config_file import differences, from_values
from train.config.fit_config import FitConfig
from train.system.errors import UserError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", -1, "--steps is -1, but must be more than 0"),
        ("steps", 0, "--steps is 0"),
        ("routing_iterations", 0, "--routing-iterations is 0, but must be more than 0"),
        ("batch_size", 0, "--batch-size is 0"),
        ("epochs", float("nan"), "--epochs is nan, but must be a finite number"),
        ("learning_rate", float("inf"), "--learning-rate is inf"),
        ("learning_rate", -0.1, "--learning-rate is -0.1"),
        ("seed", -1, "--seed is -1, but must be 0 or more"),
        ("max_shift", -2, "--max-shift is -2"),
        ("crop", 0, "--crop is 0, but must be more than 0"),
        ("max_brightness", -0.1, "--max-brightness is -0.1, but must be 0 or more"),
        ("max_contrast", 1.1, "--max-contrast is 1.1, but must be from 0 to 1"),
        ("input_std", 0.0, "--input-std is 0.0"),
        ("checkpoint_every", 0, "--checkpoint-every is 0"),
        ("train_examples", 0, "--train-examples is 0, but must be more than 0"),
        ("micro_batches", 0, "--micro-batches is 0"),
        ("warmup_steps", -1, "--warmup-steps is -1, but must be 0 or more"),
        ("clip_norm", 0.0, "--clip-norm is 0.0, but must be more than 0"),
        ("ema_decay", 1.0, "--ema-decay is 1.0, but must be more than 0 and less than 1"),
        ("ema_decay", 0.0, "--ema-decay is 0.0, but must be more than 0 and less than 1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(field, value, message):
    with pytest.raises(UserError, match=message):
        FitConfig.of(**{field: value})


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("dataset", ("digits", "mnist", "fashion_mnist")),
        ("model", ("capsnet",)),
        ("routing", ("dynamic",)),
        ("dtype", ("float32", "bfloat16", "float64")),
        ("mask_in_training", ("label", "longest")),
        ("optimizer", ("adam", "adamw", "lamb", "lars")),
        ("schedule", ("exponential", "cosine", "constant")),
        ("lr_scaling", ("none", "linear", "sqrt")),
    ],
)
def test_an_unknown_name_lists_the_right_ones(field, choices):
    with pytest.raises(UserError, match="unknown .* 'nonsense'.*, choose from: ") as caught:
        FitConfig.of(**{field: "nonsense"})
    for choice in choices:
        assert choice in str(caught.value)


@pytest.mark.parametrize("name", ["folder:photos@8x8", "npz:mine.npz", "mnist_corrupted/fog"])
def test_data_sets_of_ones_own_are_named_by_their_place(config, name):
    own = config.changed(dataset=name)
    assert from_values(asdict(own), Path("config.json")).data.dataset == name


@pytest.mark.parametrize("name", ["folder:", "mnist_corrupted/"])
def test_a_place_that_is_none_is_told_with_the_forms(name):
    with pytest.raises(UserError, match="unknown dataset .* mnist_corrupted/CORRUPTION, emnist/PA"):
        FitConfig.of(dataset=name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"standardise": True, "input_mean": 0.5}, "--input-mean is 0.5 .* but with --standardise"),
        ({"weight_decay": 0.1}, "--weight-decay is 0.1, but adam has none: choose .* adamw"),
        (
            {"micro_batches": 2, "routing_options": {"shared_logits": True}},
            "--micro-batches is 2, but with shared_logits",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        FitConfig.of(**fields)


def test_epochs_become_steps_rounded_up():
    config = FitConfig.of(epochs=2, batch_size=30)
    assert config.schedule.total_steps(100) == 7  # 200 examples are in 6.67 batches
    assert config.changed(steps=3).schedule.total_steps(100) == 3
    assert FitConfig.of(epochs=0.001, batch_size=30).schedule.total_steps(100) == 1
    assert FitConfig.of(epochs=1.1, batch_size=10).schedule.total_steps(100) == 11


def test_evaluation_comes_once_an_epoch_unless_asked_for_otherwise():
    assert FitConfig.of(batch_size=30).schedule.evaluation_interval(100) == 4
    assert FitConfig.of(batch_size=30, evaluate_every=7).schedule.evaluation_interval(100) == 7


def test_a_configuration_survives_its_file(config):
    assert from_values(asdict(config), Path("config.json")) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown fields: surprise"),
        ({"data": {"surprise": 1}}, "unknown fields: data.surprise"),
        ({"bell \a": 1}, r"unknown fields: bell \\x07"),
        ({"batch_size": "many"}, "batch_size = 'many', which is of the wrong type"),
        ({"batch_size": True}, "batch_size = True, which is of the wrong type"),
        ({"remat": 1}, "remat = 1, which is of the wrong type"),
        ({"batch_size": -4}, "--batch-size is -4"),
        ({"model_options": [1]}, "model_options = \\[1\\], which is of the wrong type"),
    ],
)
def test_a_damaged_configuration_is_told(config, change, message):
    with pytest.raises(UserError, match=message):
        from_values({**asdict(config), **change}, Path("config.json"))


def test_a_file_from_before_the_settings_had_groups_is_read(config):
    older = config.changed(model="deepcaps", optimizer="muon", schedule="cosine", seed=3)
    assert from_values(older.flat(), Path("config.json")) == older


def test_a_file_that_is_older_than_a_field_leaves_it_at_its_default(config):
    older = asdict(config)
    del older["optimizer"]["ema_decay"]
    assert from_values(older, Path("config.json")) == config


def test_a_whole_number_is_a_good_fraction(config):
    assert from_values({**asdict(config), "epochs": 3}, Path("config.json")).schedule.epochs == 3


def test_a_file_with_something_else_is_no_configuration():
    with pytest.raises(UserError, match="holds no configuration"):
        from_values([1, 2], Path("config.json"))


def test_differences_name_the_fields_with_both_values(config):
    other = config.changed(seed=7, learning_rate=0.5)
    assert differences(config, config) == []
    assert differences(config, other) == [
        "seed (was 0, now 7)",
        "learning_rate (was 0.001, now 0.5)",
    ]


def test_how_often_may_change(config):
    other = config.changed(log_every=1, evaluate_every=None, checkpoint_every=5)
    assert differences(config, other) == []


def test_how_long_may_change_unless_the_learning_rate_follows_it(config):
    assert config.schedule.decay_steps is None
    assert differences(config, config.changed(steps=99)) == ["steps (was 6, now 99)"]
    fixed = config.changed(decay_steps=50)
    assert differences(fixed, fixed.changed(steps=99, epochs=3.0)) == []
    constant = config.changed(schedule="constant")
    assert differences(constant, constant.changed(steps=99)) == []
    cosine = config.changed(schedule="cosine")
    assert differences(cosine, cosine.changed(steps=99))


def test_what_is_kept_in_memory_and_when_it_looks_up_may_change_in_a_run(config):
    other = config.changed(remat=True, micro_batches=2, log_every=7)
    assert differences(config, other) == []
