"""Copies from a GPU: the model never waits for them, whoever writes does. The GPU is a stand-in."""

import contextlib

import numpy as np
import pytest
import torch

from lightning_modules.capture.activation_hooks import on_cpu
from lightning_modules.capture.captured_batch import CapturedBatch
from tests.lightning_modules.capture.conftest import sample


class Gpu:
    """Does what it is asked when somebody waits for it, in the order in which it was asked."""

    def __init__(self):
        self.asked, self.waits, self.held = [], [], []

    def wait(self):
        while self.asked:
            target, source = self.asked.pop(0)
            torch.Tensor.copy_(target, source.as_subclass(torch.Tensor))


class Stream:
    def __init__(self, gpu):
        self.gpu = gpu

    def wait_stream(self, other):
        self.gpu.waits.append(other)

    def record_event(self):
        return self

    def synchronize(self):
        self.gpu.wait()


@pytest.fixture
def gpu(monkeypatch):
    """Stands in for the parts of torch.cuda that a copy needs."""
    gpu, empty = Gpu(), torch.empty

    def unpinned(*size, pin_memory, **options):
        assert pin_memory  # the copy would wait otherwise
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", unpinned)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(gpu))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the forward")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return gpu


def on_gpu(values, gpu):
    """A tensor that says that it lies on the GPU; its copies are done later."""

    class OnGpu(torch.Tensor):
        is_cuda = True

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.Tensor.copy_:
                assert kwargs == {"non_blocking": True}
                gpu.asked.append(args)
                return args[0]
            return super().__torch_function__(func, types, args, kwargs or {})

        def record_stream(self, stream):
            gpu.held.append(self)

    return values.as_subclass(OnGpu)


def test_the_model_goes_on_while_its_values_are_copied(gpu):
    values = torch.arange(6.0).reshape(2, 3)
    there = {"a": on_gpu(values, gpu), "b": on_gpu(-values, gpu), "c": values + 1}
    found, ready = on_cpu(there)
    assert len(gpu.asked) == 2  # nothing was waited for
    assert len(ready) == 1  # of one GPU
    assert gpu.waits == ["the forward"]  # the copies do not run before what they copy
    assert len(gpu.held) == 2  # the memory is not given away before it is copied
    arrays = CapturedBatch(values=found, samples=[sample(0), sample(1)], ready=ready).arrays()
    for name, expected in (("a", values), ("b", -values), ("c", values + 1)):
        np.testing.assert_array_equal(arrays[name], expected)


def test_without_a_gpu_there_is_nothing_to_wait_for():
    values = {"a": torch.ones(2, 3)}
    found, ready = on_cpu(values)
    assert found["a"] is values["a"]
    assert ready == ()
