"""Who speaks, how strongly, and when: strengths, guidances, speakers, prompts over time."""

from dataclasses import replace

import pytest
import torch

from hallo3_core.animate import ModelAnimator, animate
from hallo3_core.errors import InputError
from hallo3_core.network.layers import attention
from hallo3_core.network.transformer import blend
from hallo3_core.noise import SeededNoise
from hallo3_core.portrait.encode import encode_portrait
from hallo3_core.portrait.framing import pad
from hallo3_core.prompts import held, read_prompts
from hallo3_core.sound.sound import Sound
from hallo3_core.speech.dialogue import Dialogue, Speaker, faces, in_turns, token_regions, voices
from hallo3_core.speech.encode import Speech, encode_speech
from hallo3_core.speech.windows import segment_windows

RATE = 16_000
STEPS = {"steps": 2}
PICTURE = 40, 70


@pytest.fixture(scope="module")
def identity(recorded_model):
    picture = torch.rand(3, *PICTURE, generator=torch.Generator().manual_seed(1))
    return encode_portrait(
        recorded_model.vae, recorded_model.reference_network, picture, None, SeededNoise(0)
    )


def said(model, seconds: float = 1.0, seed: int = 2) -> Speech:
    generator = torch.Generator().manual_seed(seed)
    sound = Sound(torch.randn(1, round(seconds * RATE), generator=generator), RATE)
    return replace(encode_speech(model.speech_encoder, sound.waveform[0]), sound=sound)


@pytest.fixture(scope="module")
def speech(recorded_model) -> Speech:
    return said(recorded_model)


@pytest.fixture
def latents(recorded_model, identity):
    def sample(speech: Speech | Dialogue, **options) -> torch.Tensor:
        made = animate(recorded_model, identity, speech, SeededNoise(0), **STEPS | options)
        return torch.cat([segment.latents for segment in made])

    return sample


def half(left: bool) -> torch.Tensor:
    region = torch.zeros(PICTURE)
    region[:, slice(0, 35) if left else slice(35, 70)] = 1
    return region


def silent(speech: Speech) -> Speech:
    return replace(speech, features=speech.silence.expand_as(speech.features))


def text_of(model, seed: int) -> torch.Tensor:
    config = model.config
    shape = 1, config.text_tokens, config.text_width
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_strength_1_and_a_mask_over_everything_change_no_bit(latents, speech):
    plain = latents(speech)
    assert torch.equal(plain, latents(speech, speech_strength=1.0, identity_strength=1.0))
    assert torch.equal(plain, latents(speech.driven(torch.ones(speech.frames))))
    assert torch.equal(plain, latents(Dialogue((Speaker(speech, torch.ones(PICTURE)),))))
    assert torch.equal(plain, latents(Dialogue((Speaker(speech),))))


def test_strength_0_hears_silence(latents, speech, recorded_model, identity):
    nobody = Dialogue((Speaker(speech, torch.zeros(PICTURE)),))
    unheard = latents(speech, speech_strength=0.0)
    assert (unheard - latents(nobody)).abs().max() < 1e-3
    assert (unheard - latents(speech)).abs().max() > 1e-3
    heard = voices(speech, 0, identity, recorded_model.config, 0.0)
    assert torch.equal(heard.weights[0], torch.zeros_like(heard.weights[0]))
    assert torch.equal(heard.weights[1], torch.ones_like(heard.weights[1]))
    assert torch.equal(heard.windows[1], speech.silence.expand_as(heard.windows[1]))


def test_strengths_are_in_order(latents, speech):
    """The latents move from those of silence in the direction of the speech."""
    zero, one = latents(speech, speech_strength=0.0), latents(speech)
    ways = [latents(speech, speech_strength=s) - zero for s in (0.5, 1.0, 1.5)]
    along = [((way * (one - zero)).sum() / (one - zero).square().sum()).item() for way in ways]
    assert 0.3 < along[0] < 0.7
    assert along[1] == pytest.approx(1)
    assert 1.2 < along[2] < 1.8


def test_a_blend_is_the_weighted_sum_of_cross_attentions(recorded_model):
    """The factor scales the output, and weights of one context give that context's output."""
    layer, config = recorded_model.denoiser.layers[0], recorded_model.config
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(13, config.frame_tokens, config.width, generator=generator)
    tokens = torch.randn(26, config.audio_tokens, config.audio_width, generator=generator)
    both = layer.audio_keys_values(tokens)
    weights = torch.rand(1, 13, config.frame_tokens, generator=generator)
    weights = torch.cat([weights, 1 - weights])

    def attend(context):
        def same(x):
            return x

        return layer.audio_attention(x, context, layer.query_norm, same, attention)

    first, second = (attend(tuple(part[i * 13 : i * 13 + 13] for part in both)) for i in (0, 1))
    mixed = weights[0][..., None] * first + weights[1][..., None] * second
    assert (attend(blend(both, weights)) - mixed).abs().max() < 1e-5
    assert (attend(blend(both, weights, factor=0.5)) - 0.5 * mixed).abs().max() < 1e-5


def test_identity_strength(latents, speech, recorded_model):
    """At 0 the values of the reference are zeros, and the face gives nothing."""
    plain, weak = latents(speech), latents(speech, identity_strength=0.0)
    assert (plain - weak).abs().max() > 1e-3
    features = [torch.ones(1, recorded_model.config.frame_tokens, recorded_model.config.width)]
    features *= recorded_model.config.layers
    for (key, value), (whole_key, whole_value) in zip(
        recorded_model.denoiser.reference_keys_values(features, 0.5),
        recorded_model.denoiser.reference_keys_values(features),
        strict=True,
    ):
        assert torch.equal(key, whole_key)
        assert torch.equal(value, 0.5 * whole_value)


def test_a_curve_over_time(recorded_model, identity, speech):
    """The first 13 frames are loud. Frames 11 to 14 make the fifth latent frame."""
    curve = (torch.arange(speech.frames) < 13).float()
    heard = voices(speech.driven(curve), 0, identity, recorded_model.config)
    over_time = heard.weights[0, :, 0]
    assert over_time.tolist() == [1, 1, 1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]


def test_wrong_curves(speech):
    with pytest.raises(InputError, match="has 3 numbers and the speech 25 frames"):
        speech.driven(torch.ones(3))
    with pytest.raises(InputError, match="goes from 1 to 3: use 0 to 2"):
        speech.driven(torch.linspace(1, 3, 25))


def test_equal_scales_are_the_result_of_one_guidance(latents, speech, recorded_model):
    text = text_of(recorded_model, 3)
    plain = latents(speech, text=text, guidance=2.0)
    assert torch.equal(plain, latents(speech, text=text, guidance=2.0, text_guidance=2.0))
    apart = latents(speech, text=text, guidance=2.0, text_guidance=4.0)
    assert (plain - apart).abs().max() > 1e-3
    unprompted = latents(speech, guidance=2.0)
    assert torch.equal(unprompted, latents(speech, guidance=2.0, text_guidance=4.0))


@pytest.mark.parametrize(("text_guidance", "prompted", "calls"), [(4, True, 6), (4, False, 4)])
def test_calls_of_the_denoiser(latents, speech, recorded_model, text_guidance, prompted, calls):
    """Three for each step if the prompt has its own guidance, else two."""
    count = []
    hook = recorded_model.denoiser.register_forward_hook(lambda *_: count.append(1))
    text = text_of(recorded_model, 3) if prompted else None
    latents(speech, text=text, guidance=2.0, text_guidance=text_guidance)
    hook.remove()
    assert len(count) == calls


def test_speakers_can_be_listed_in_any_order(latents, recorded_model, speech):
    other = said(recorded_model, seed=4)
    one, two = Speaker(speech, half(True)), Speaker(other, half(False))
    found = latents(Dialogue((one, two)))
    assert (found - latents(Dialogue((two, one)))).abs().max() < 1e-4
    swapped = Dialogue((replace(one, speech=other), replace(two, speech=speech)))
    assert (found - latents(swapped)).abs().max() > 1e-3


def test_outside_all_regions_there_is_silence(recorded_model, identity, speech):
    config = recorded_model.config
    heard = voices(Dialogue((Speaker(speech, half(True)),)), 0, identity, config)
    regions = token_regions((Speaker(speech, half(True)),), identity, config)
    assert 0 < regions.mean() < 1
    assert torch.equal(heard.weights[0, 5], regions[0])
    assert torch.equal(heard.weights.sum(dim=0), torch.ones(13, config.frame_tokens))
    assert torch.equal(heard.windows[-1], speech.silence.expand_as(heard.windows[-1]))


def test_regions_that_overlap_share_their_tokens(recorded_model, identity, speech):
    two = Speaker(speech, torch.ones(PICTURE)), Speaker(speech, half(True))
    shares = voices(Dialogue(two), 0, identity, recorded_model.config).weights[:, 0]
    assert shares.sum(dim=0) == pytest.approx(torch.ones(shares.shape[1]))
    assert shares.min() == 0
    assert (shares == 0.5).any()


def test_a_region_goes_on_around_the_picture():
    """The picture is 20 of 48 rows high, in the middle; black bars are above and below."""
    framing = pad((40, 96), (48, 48))
    assert torch.equal(framing.lay(torch.ones(40, 96)), torch.ones(48, 48))
    top = torch.zeros(40, 96)
    top[:20] = 1
    assert framing.lay(top)[:20].min() == 1
    assert framing.lay(top)[28:].max() == 0


def test_each_speaker_has_a_face(recorded_model, identity, speech):
    config = recorded_model.config
    face = torch.ones(1, 512)
    people = Speaker(speech, half(True), face), Speaker(speech, half(False))
    embeddings, weights = faces(Dialogue(people), identity, config)
    assert torch.equal(embeddings, torch.cat([face, identity.face]))
    assert torch.equal(weights.sum(dim=0), torch.ones(13, config.frame_tokens))
    assert faces(speech, identity, config)[1] is None


def test_turns(recorded_model, identity, speech):
    """The second begins when the first has ended; before that, silence is heard in its region."""
    later = said(recorded_model, 3.0, seed=4)
    dialogue = in_turns((Speaker(speech, half(True)), Speaker(later, half(False))))
    assert [speaker.start for speaker in dialogue.speakers] == [0, 25]
    assert dialogue.frames == 100
    assert dialogue.segments == 3
    assert dialogue.sound.samples == 4 * RATE
    assert torch.equal(dialogue.sound.waveform[0, :RATE], speech.sound.waveform[0] / peak(dialogue))
    heard = [voices(dialogue, i, identity, recorded_model.config).windows for i in range(2)]
    assert torch.equal(heard[0][0], segment_windows(speech.features, 0)[0])
    assert torch.equal(heard[0][1, :27], speech.silence.expand(27, 5, -1, -1))
    assert torch.equal(heard[0][1, 27, 2], later.features[0])
    assert len(heard[0]) == len([*dialogue.speakers, "silence"])
    assert torch.equal(heard[1][0, 0, 2], later.features[47 - 2 - 25])
    assert len(heard[1]) == len(["the second", "silence"])


def test_turns_of_one_person_are_not_weaker(recorded_model, identity, speech):
    """Both turns are in the first two segments and have the same region."""
    turns = in_turns((Speaker(speech, half(True)), Speaker(speech, half(True))))
    region = token_regions(turns.speakers, identity, recorded_model.config)[0]
    for index in (0, 1):
        found = voices(turns, index, identity, recorded_model.config)
        spoken, rest = found.weights[:-1].sum(dim=0), found.weights[-1]
        assert spoken == pytest.approx(region.expand(13, -1))
        assert rest == pytest.approx(1 - region.expand(13, -1))


def peak(dialogue: Dialogue) -> float:
    """What the sounds were divided by so that their sum is not too loud."""
    return max(speaker.speech.sound.peak for speaker in dialogue.speakers)


def test_a_dialogue_needs_a_speaker():
    with pytest.raises(InputError, match="no speaker: connect at least one"):
        Dialogue(())


def test_the_prompt_that_holds():
    """A segment has 47 frames. Its prompt is the last that begins before its middle."""
    prompts = [(0.0, "a"), (2.0, "b"), (2.9, "c"), (60.0, "d")]
    assert [held(prompts, index) for index in range(3)] == ["a", "b", "c"]
    assert held([(1.0, "later")], 0) is None
    assert held([], 0) is None


def test_reading_prompts():
    text = "\n 4.5 she smiles\n0 a woman, 30 years old\n\n10s: she turns"
    assert read_prompts(text) == [
        (0.0, "a woman, 30 years old"),
        (4.5, "she smiles"),
        (10.0, "she turns"),
    ]
    with pytest.raises(InputError, match="Line 2 of the prompts is 'she smiles'"):
        read_prompts("0 a woman\nshe smiles")
    with pytest.raises(InputError, match="no prompt"):
        read_prompts(" \n")


def test_each_segment_has_its_prompt(recorded_model, identity):
    speech, texts = said(recorded_model, 4.0), [text_of(recorded_model, seed) for seed in (3, 4)]
    prompts = [(0.0, texts[0]), (3.0, texts[1])]
    animator = ModelAnimator(recorded_model, identity, speech, SeededNoise(0), text=prompts)
    assert [animator.prompt(index) is texts[index > 1] for index in range(3)] == [True] * 3
