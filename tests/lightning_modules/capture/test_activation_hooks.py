"""Hooks catch what passes a module, name what is wrong, and are always off afterwards."""

import pytest
import torch
from torch import nn

from lightning_modules.capture.activation_capture import ActivationCapture
from lightning_modules.capture.activation_hooks import ActivationHooks
from lightning_modules.capture.capture_point import CapturePoint, check_points, find_module


class Head(nn.Module):
    def forward(self, tokens, *, scale):
        return tokens * scale, {"logits": tokens.sum(-1)}


class Toy(nn.Module):
    """[b, 3 tokens, 4] through two layers, then a head that is called by keyword as well."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.head = Head()
        self.unused = nn.Linear(4, 4)

    def forward(self, x, *, twice=False, fail=False):
        for layer in self.layers:
            x = layer(x)
        if twice:
            x = self.layers[0](x)
        result = self.head(x, scale=torch.full((len(x), 1, 1), 2.0))
        x.zero_()  # a capture must not change with it
        if fail:
            raise RuntimeError("the model fails")
        return result


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def caught(point, rows=2, **options):
    model = Toy()
    x = torch.randn(rows, 3, 4)
    with torch.no_grad(), ActivationHooks(model, [point]) as hooks:
        model(x, **options)
    assert hooks_of(model) == 0
    return hooks.values(rows)[point.field], model, x


def two_layers(model, x):
    return model.layers[1](model.layers[0](x))


def test_an_input_is_what_the_module_received_even_if_it_is_changed_later():
    value, model, x = caught(CapturePoint(module="head"))
    torch.testing.assert_close(value, two_layers(model, x))


def test_an_output_is_found_by_its_place_or_its_key():
    value, model, x = caught(CapturePoint(module="head", side="output"))
    torch.testing.assert_close(value, 2 * two_layers(model, x))
    point = CapturePoint(module="head", side="output", argument=1)
    with pytest.raises(
        ValueError,
        match="`argument` must be a tensor of the output of 'head', but got 1, which is dict",
    ):
        caught(point)


def test_an_argument_can_be_named_by_its_keyword():
    value, _, _ = caught(CapturePoint(module="head", argument="scale"))
    torch.testing.assert_close(value, torch.full((2, 1, 1), 2.0))
    with pytest.raises(ValueError, match=r"but got 'speed', which is NoneType. There are 0, scale"):
        caught(CapturePoint(module="head", argument="speed"))


@pytest.mark.parametrize("pool", ["mean", "last", "max"])
def test_tokens_are_pooled_where_it_is_asked(pool):
    value, model, x = caught(CapturePoint(module="head", pool=pool))
    tokens = two_layers(model, x)
    expected = {"mean": tokens.mean(1), "last": tokens[:, -1], "max": tokens.amax(1)}[pool]
    torch.testing.assert_close(value, expected)


def test_a_module_that_is_called_often_needs_the_number_of_the_call():
    with pytest.raises(ValueError, match=r"'layers.0' was called 2 times in one forward"):
        caught(CapturePoint(module="layers.0"), twice=True)
    first, _, x = caught(CapturePoint(module="layers.0", call=0), twice=True)
    torch.testing.assert_close(first, x)
    last, model, x = caught(CapturePoint(module="layers.0", call=-1), twice=True)
    torch.testing.assert_close(last, two_layers(model, x))
    with pytest.raises(ValueError, match=r"`call` must be one of 2 calls of 'layers.0', but got 5"):
        caught(CapturePoint(module="layers.0", call=5), twice=True)


def test_a_hook_that_never_fires_is_named():
    with pytest.raises(
        ValueError, match="`module` must be called when the model runs, but 'unused' was not"
    ):
        caught(CapturePoint(module="unused"))


def test_a_path_that_is_not_there_offers_the_nearest():
    with pytest.raises(ValueError, match=r"but got 'model.layers.1'. The nearest are layers.1"):
        find_module(Toy(), "model.layers.1")
    with pytest.raises(ValueError, match=r"but got 'haed'. The nearest are head"):
        find_module(Toy(), "haed")
    with pytest.raises(ValueError, match=r"but got 'q'. The nearest are layers, head, unused"):
        find_module(Toy(), "q")


def test_hooks_are_off_after_an_exception_of_the_model():
    model = Toy()
    hooks = ActivationHooks(model, [CapturePoint(module="head"), CapturePoint(module="layers.1")])
    with pytest.raises(RuntimeError, match="the model fails"), hooks:
        model(torch.randn(1, 3, 4).requires_grad_(False), fail=True)
    assert hooks_of(model) == 0


def test_hooks_are_off_if_the_second_one_cannot_be_set():
    model = Toy()
    points = [CapturePoint(module="head"), CapturePoint(module="nowhere")]
    with pytest.raises(ValueError, match="but got 'nowhere'"), ActivationHooks(model, points):
        pass
    assert hooks_of(model) == 0


def test_frames_that_a_model_puts_into_the_batch_come_back_as_an_axis():
    model = Toy()
    with torch.no_grad(), ActivationHooks(model, [point := CapturePoint(module="head")]) as hooks:
        model(torch.randn(6, 3, 4))
    assert hooks.values(2)[point.field].shape == (2, 3, 3, 4)
    with pytest.raises(ValueError, match=r"'head' gave shape \(6, 3, 4\) for a batch of 4"):
        hooks.values(4)


def test_two_places_of_one_name_are_refused():
    twice = [CapturePoint(module="head"), CapturePoint(module="head")]
    with pytest.raises(
        ValueError, match=r"each once, but got \['context.head.input.tokens', 'context"
    ):
        check_points(Toy(), twice)
    check_points(Toy(), [twice[0], CapturePoint(module="head", name="again")])
    with pytest.raises(ValueError, match="at least one place, each once, but got none"):
        ActivationCapture(Toy(), [])


def test_a_name_that_no_field_can_have_is_refused():
    with pytest.raises(ValueError, match=r"`name` must be a word .* but got 'a.b'"):
        CapturePoint(module="head", name="a.b")


def test_a_fields_name_has_no_dots_inside_a_word():
    point = CapturePoint(module="backbone.text_model.layers.3", side="output", pool="last")
    assert point.field == "context.backbone_text_model_layers_3.output.last"
