"""Wrong inputs are explained in one sentence, and the host goes on."""

from types import SimpleNamespace

import pytest
import torch
from comfyui import HostError, fails, given
from test_segments import sample


def test_a_segment_past_the_end(host, parts):
    parts.graph.keep(sample(parts, 2))
    fails(host, parts.graph, "There is no segment 2: the speech of 63 frames has 2, from 0 to 1")


def test_another_vae(host, parts):
    """A VAE that is not CogVideoX's."""
    other = SimpleNamespace(first_stage_model=torch.nn.Linear(1, 1))
    image = parts.graph("LoadImage", image="portrait.png")
    parts.graph.keep(parts.encode(image, vae=given(host, parts.graph, "VAE", other)))
    fails(host, parts.graph, "This VAE is a Linear and not CogVideoX's")


def test_another_model(host, parts):
    other = SimpleNamespace(model=torch.nn.Linear(1, 1))
    other_parts = parts._replace(model=given(host, parts.graph, "MODEL", other))
    parts.graph.keep(sample(other_parts, 0))
    fails(host, parts.graph, "The model is a Linear and not Hallo3: connect Load Hallo3 DiT")


def test_wires_that_do_not_fit(host, parts):
    parts.graph.keep(sample(parts._replace(identity=parts.speech), 0))
    with pytest.raises(HostError, match="return_type_mismatch"):
        host.run(parts.graph)
