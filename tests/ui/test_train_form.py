"""What the Train tab's fields become: arguments that the trainer takes, or a complaint."""

import dataclasses

import pytest

from train.__main__ import parse
from ui.train_form import MOST_IMAGES, PRESETS, SIDES, Form, name_of, shown

SENT = {field.name: field.default for field in dataclasses.fields(Form)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("side", SIDES)
def test_every_preset_and_side_is_a_run_that_can_be_trained(preset, side):
    patch = int(preset.split("/")[1])
    form = Form.of(SENT | {"preset": preset, "image_size": side})
    config = parse(form.arguments()).config
    assert (config.model, config.image_size, config.data) == (preset, side, "solids")
    assert side % patch == 0 and config.network().input_size == side


def test_the_fields_arrive_at_the_trainer():
    form = Form("a/b", "DiT-E/4", 16, 6400, 64, 2e-3, 0.25, 7, classes=True, mirror=False)
    config = parse([*form.arguments(), "--run-dir", "x"]).config
    assert (config.data, config.model, config.image_size, config.seed) == ("a/b", "DiT-E/4", 16, 7)
    assert (config.total_steps, config.batch_size, config.lr) == (100, 64, 2e-3)
    assert (config.lr_warmup_steps, config.lr_decay_steps) == (5, 25)
    assert (config.class_dropout_prob, config.flip, config.class_conditional) == (0.25, False, True)
    assert (config.log_every, config.sample_every, config.checkpoint_every) == (1, 5, 10)
    without = parse(dataclasses.replace(form, classes=False).arguments()).config
    assert not without.class_conditional and without.class_dropout_prob == 0


def test_a_long_run_speaks_and_saves_as_often_as_one_wants_to_see_and_not_to_lose():
    config = parse(Form(images=10_000_000, batch_size=8).arguments()).config
    assert (config.log_every, config.sample_every, config.checkpoint_every) == (50, 1000, 1000)


def test_a_short_run_is_one_too():
    config = parse(Form(images=1, batch_size=1).arguments()).config
    assert config.total_steps == config.log_every == config.sample_every == config.checkpoint_every == 1


def test_the_command_can_be_copied_into_a_shell():
    command = shown(Form(data="my pictures/it's").arguments(), "runs/a b")
    assert command.startswith("python -m train solids --data 'my pictures/it'\"'\"'s' --model DiT-P/4 ")
    assert command.endswith(" --run-dir 'runs/a b'")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("preset", "DiT-XL/2", "preset is 'DiT-XL/2'; choose one of DiT-E/4"),
        ("preset", ["DiT-P/4"], "choose one of"),
        ("data", "", "choose pictures"),
        ("data", None, "choose pictures"),
        ("data", "--run-dir=/", "choose pictures"),
        ("data", "a\nb", "choose pictures"),
        ("image_size", 7, "image side is 7; it must be a whole number from 8 to 256"),
        ("images", 31, "images to see is 31; it must be a whole number from 32"),
        ("images", MOST_IMAGES + 1, "images to see"),
        ("batch_size", 0, "batch is 0"),
        ("batch_size", None, "batch is None"),
        ("lr", 0, "learning rate is 0; give a positive number"),
        ("lr", "fast", "learning rate is 'fast'"),
        ("guidance_dropout", 1, "guidance dropout is 1"),
        ("seed", -1, "seed is -1"),
        ("seed", True, "seed is True"),
    ],
)
def test_what_is_no_value_is_refused(field, value, said):
    assert Form.of(SENT) == Form()
    with pytest.raises(ValueError, match=said):
        Form.of(SENT | {field: value})


def test_the_bounds_themselves_are_taken():
    most = {"guidance_dropout": 0.99, "lr": 1, "images": MOST_IMAGES, "batch_size": 1024, "seed": 2**31 - 1}
    assert vars(Form.of(SENT | most)) == SENT | most


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("solids", "DiT-P-4-solids"),
        ("/home/me/My Pictures", "DiT-P-4-My-Pictures"),
        ("uoft-cs/cifar10:label=none", "DiT-P-4-cifar10"),
        ("/tmp/ääää", "DiT-P-4-pictures"),
    ],
)
def test_a_run_is_named_after_its_model_and_data(data, name):
    form = Form(data=data)
    assert name_of(form, []) == name
    assert name_of(form, [name, f"{name}-2"]) == f"{name}-3"
