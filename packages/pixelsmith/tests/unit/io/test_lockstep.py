# SPDX-License-Identifier: Apache-2.0
import threading

import pytest
import torch
from pixelsmith.io.lockstep import Lockstep


def test_all_items_reach_a_layer_before_one_goes_on():
    march, seen = Lockstep("abc"), []

    def call(item):
        for layer in range(3):
            seen.append((layer, march.item))
            march.wait(torch.zeros(1))
        assert not torch.is_grad_enabled()

    march.run(call)
    assert seen == [(layer, item) for layer in range(3) for item in "abc"]


@pytest.mark.parametrize("failing", "abc")
def test_an_error_ends_all_threads(failing):
    march, before = Lockstep("abc"), threading.active_count()

    def call(item):
        for layer in range(3):
            if (layer, item) == (1, failing):
                raise MemoryError(item)
            march.wait()

    with pytest.raises(MemoryError, match=failing):
        march.run(call)
    assert threading.active_count() == before


def test_what_waits_is_moved_off_the_device(monkeypatch):
    """The tensors given, and the inputs of the modules around the layer."""
    network, held = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2))), []

    def park(tensors):
        held.append([tensor for tensor in tensors if tensor is not None])
        return []

    monkeypatch.setattr("pixelsmith.io.lockstep._park", park)
    march = Lockstep([torch.ones(1, 2), torch.zeros(1, 2)])
    layer = network[0][0]
    layer.register_forward_hook(lambda module, inputs, output: march.wait(output))
    with march.watching(network):
        march.run(network)
    assert [len(tensors) for tensors in held] == [3, 3]
    assert all(tensors[0] is tensors[1] for tensors in held)
    assert not network._forward_hooks
