"""Speakers, strengths, guidances and prompts over time, through the nodes."""

from collections.abc import Iterator

import pytest
import torch
from comfyui import Graph, Host, Out, Parts, build, fails, given
from direct import Direct
from test_segments import STEPS, sample

from hallo3_core.speech.dialogue import Dialogue

SETTINGS = {"steps": STEPS, "guidance": 3.5, "sampler": "ddim", "seed": 5}
HEIGHT, WIDTH = 60, 90


def half(graph: Graph, left: bool) -> Out:
    """A mask of the left or the right half of the portrait."""
    empty = graph("SolidMask", value=0.0, width=WIDTH, height=HEIGHT)
    full = graph("SolidMask", value=1.0, width=WIDTH // 2, height=HEIGHT)
    x = 0 if left else WIDTH // 2
    return graph("MaskComposite", destination=empty, source=full, x=x, y=0, operation="add")


def dialogue(parts: Parts, *speeches: Out, order: str = "together") -> Out:
    """The first speech in the left half, the second in the right half, and so on."""
    speakers = {
        f"speakers.speaker_{i}": parts.graph(
            "Hallo3Speaker", speech=speech, mask=half(parts.graph, i % 2 == 0)
        )
        for i, speech in enumerate(speeches)
    }
    return parts.graph("Hallo3Dialogue", order=order, **speakers)


def latent(host: Host, parts: Parts, *outs: Out) -> list[torch.Tensor]:
    for out in outs:
        parts.graph.keep(out)
    return [found["samples"] for found in host.run(parts.graph)]


def test_strength_1_changes_no_bit_and_0_is_silence(host, parts):
    strengths = [{}, {"speech_strength": 1.0, "identity_strength": 1.0}, {"speech_strength": 0.0}]
    plain, same, silent = latent(host, parts, *(sample(parts, 0, **s) for s in strengths))
    assert torch.equal(plain, same)
    assert (plain - silent).abs().max() > 1e-2


def test_a_curve_is_as_the_strength(host, parts):
    """A flat curve at a half equals the strength 0.5, and a list of ones changes no bit."""
    points = {"points": [[0.0, 0.5], [1.0, 0.5]], "interpolation": "linear"}
    curve = parts.graph("CurveEditor", curve=points)
    speech = parts.graph("Hallo3SpeechStrength", speech=parts.speech, strength=curve, factor=1.0)
    ones = given(host, parts.graph, "FLOAT", [1.0] * 63)
    listed = parts.graph("Hallo3SpeechStrength", speech=parts.speech, strength=ones, factor=1.0)
    curved = parts._replace(speech=speech)
    found, expected, same, plain = latent(
        host,
        parts,
        sample(curved, 0),
        sample(parts, 0, speech_strength=0.5),
        sample(parts._replace(speech=listed), 0),
        sample(parts, 0),
    )
    assert (found - expected).abs().max() < 1e-4
    assert torch.equal(same, plain)


def test_two_speakers(host, parts):
    """Any order gives the same; one of the two alone gives something else."""
    audio = parts.graph("NoiseAudio", seconds=1.5)
    encoder = parts.graph("Hallo3LoadSpeechEncoder", encoder_name="built-in tiny model")
    other = parts.graph("Hallo3EncodeSpeech", audio=audio, speech_encoder=encoder)
    both = parts._replace(speech=dialogue(parts, parts.speech, other))
    left, right = (half(parts.graph, side) for side in (True, False))
    speakers = {
        "speakers.speaker_0": parts.graph("Hallo3Speaker", speech=other, mask=right),
        "speakers.speaker_1": parts.graph("Hallo3Speaker", speech=parts.speech, mask=left),
    }
    turned = parts._replace(speech=parts.graph("Hallo3Dialogue", order="together", **speakers))
    alone = parts._replace(speech=dialogue(parts, parts.speech))
    found, same, one = latent(host, parts, *(sample(p, 0) for p in (both, turned, alone)))
    assert (found - same).abs().max() < 1e-4
    assert (found - one).abs().max() > 1e-3


def test_two_speakers_with_comfyuis_sampler_equal_sample_segment(host, parts):
    both = parts._replace(speech=dialogue(parts, parts.speech, parts.speech))
    segment = both.segment("Hallo3SegmentConditioning")
    graph = parts.graph
    theirs = graph(
        "SamplerCustomAdvanced",
        noise=graph("RandomNoise", noise_seed=5),
        guider=graph(
            "Hallo3Guider", model=parts.model, positive=segment, negative=segment[1], guidance=3.5
        ),
        sampler=graph("Hallo3Sampler", sampler="ddim"),
        sigmas=graph("Hallo3Scheduler", model=parts.model, steps=STEPS),
        latent_image=segment[2],
    )
    ours = both.segment("Hallo3SampleSegment", **SETTINGS)
    found, expected = latent(host, parts, theirs, ours)
    assert (found - expected).abs().max() < 1e-4


def test_turns_have_the_mixed_sound(host, parts):
    """Two turns of 2.5 s, each 63 frames."""
    made = dialogue(parts, parts.speech, parts.speech, order="in turns")
    for index in range(4):
        parts.graph.keep(made[index])
    speech, audio, frames, segments = host.run(parts.graph)
    assert type(speech).__name__ == Dialogue.__name__
    assert (frames, segments) == (126, 3)
    assert audio["waveform"].shape == (1, 1, 126 * 640)
    first, second = audio["waveform"][0, 0, : 63 * 640], audio["waveform"][0, 0, 63 * 640 :]
    assert torch.equal(first, second)
    assert first.abs().max() > 0.1


def test_a_dialogue_is_animated(host, parts, quick_decoding):
    graph, made = parts.graph, dialogue(parts, parts.speech, parts.speech, order="in turns")
    animated = graph(
        "Hallo3AnimatePortrait",
        model=parts.model,
        vae=parts.vae,
        identity=parts.identity,
        speech=made,
        **SETTINGS | {"sampler": "few", "guidance": 1.0, "steps": 1},
    )
    graph.keep(animated)
    (frames,) = host.run(graph)
    assert len(frames) == 126


@pytest.fixture
def prompting(host) -> Iterator[Direct]:
    """The built-in model has learned no prompts. Here its weights for the text are random."""
    direct = Direct(host)
    weight = direct.model.model.diffusion_model.embed.text.weight
    before, generator = weight.data.clone(), torch.Generator().manual_seed(3)
    weight.data.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    yield direct
    weight.data.copy_(before)


def guided(direct: Direct, positive: list, node: str, **scales) -> torch.Tensor:
    conditioned = {"model": direct.model, "positive": positive, "negative": direct.negative}
    guider, latent = direct.node(node, **conditioned, **scales), direct.latent["samples"]
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    sampler = direct.node("Hallo3Sampler", sampler="ddim")
    with torch.inference_mode():
        return guider.sample(noise, latent, sampler, direct.sigmas(2), disable_pbar=True, seed=1)


def test_guidance_of_speech_and_text(prompting):
    """Equal scales, and any scales without a prompt, are ComfyUI's own guidance to the bit."""
    generator = torch.Generator().manual_seed(2)
    text = torch.randn(prompting.positive[0][0].shape, generator=generator)
    prompted = [[text, prompting.positive[0][1]]]
    for positive, scales in ((prompted, {}), (prompting.positive, {"text_guidance": 5.0})):
        expected = guided(prompting, positive, "CFGGuider", cfg=3.0)
        found = guided(prompting, positive, "Hallo3Guider", guidance=3.0, **scales)
        assert torch.equal(found, expected)
    one = guided(prompting, prompted, "CFGGuider", cfg=3.0)
    near = guided(prompting, prompted, "Hallo3Guider", guidance=3.0, text_guidance=3.0001)
    far = guided(prompting, prompted, "Hallo3Guider", guidance=3.0, text_guidance=5.0)
    assert 0 < (near - one).abs().max() < 1e-2
    assert (far - one).abs().max() > 1e-2


def test_a_later_prompt_is_computed_from_its_segment_on(host, parts, quick_decoding, calls):
    """Three segments. Changing the prompt of the third keeps the first two."""
    graph = parts.graph

    def animated(last: str) -> Out:
        prompts = graph("Hallo3PromptsOverTime", prompts=f"0 a person\n4.5 {last}")
        longer = graph("NoiseAudio", seconds=5.0)
        encoder = graph("Hallo3LoadSpeechEncoder", encoder_name="built-in tiny model")
        speech = graph("Hallo3EncodeSpeech", audio=longer, speech_encoder=encoder)
        return graph(
            "Hallo3AnimatePortrait",
            model=parts.model,
            vae=parts.vae,
            identity=parts.identity,
            speech=speech,
            positive=prompts,
            **SETTINGS | {"sampler": "few", "guidance": 1.0, "steps": 1},
        )

    graph.keep(animated("she smiles")[2])
    host.run(graph)
    assert calls["sampled"] == 3
    graph.keep(animated("she turns")[2])
    host.run(graph)
    assert calls["sampled"] == 3 + 1


def test_wrong_graphs(host, parts):
    mask = half(parts.graph, True)
    made = dialogue(parts, parts.speech)
    parts.graph.keep(parts.graph("Hallo3Speaker", speech=made, mask=mask))
    fails(host, parts.graph, "A Speaker takes one speech, not a dialogue: connect Encode Speech")


@pytest.mark.parametrize("text", ["she smiles", ""])
def test_wrong_prompts(host, text):
    graph = build(seconds=1).graph
    graph.keep(graph("Hallo3PromptsOverTime", prompts=text))
    fails(host, graph, "prompt")


def test_silence_and_loudness(host):
    """Half a second before and after makes 25 more frames."""
    graph = Graph()
    audio = graph("NoiseAudio", seconds=1.0)
    encoder = graph("Hallo3LoadSpeechEncoder", encoder_name="built-in tiny model")
    made = graph(
        "Hallo3EncodeSpeech",
        audio=audio,
        speech_encoder=encoder,
        only_speech=True,
        normalize=True,
        silence_before=0.5,
        silence_after=0.5,
    )
    graph.keep(made)
    graph.keep(made[2])
    speech, frames = host.run(graph)
    assert frames == 50
    assert not speech.sound.waveform[:, :8000].any()
    assert not speech.sound.waveform[:, -8000:].any()
