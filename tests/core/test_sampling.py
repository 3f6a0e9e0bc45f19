"""The samplers, on distributions with an exactly known denoised estimate."""

import pytest
import torch

from hallo3_core.errors import InputError
from hallo3_core.sampling.guidance import guided
from hallo3_core.sampling.samplers import SAMPLERS, sample
from hallo3_core.sampling.schedule import Schedule, denoiser_alphas


def predict_gaussian(mean: float, std: float):
    """The exact v for normally distributed data, at the denoiser's own alphas."""

    def predict(x, timestep):
        alpha = denoiser_alphas()[timestep].float()
        sigma = (1 - alpha**2).sqrt()
        x0 = mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
        return alpha * (x - alpha * x0) / sigma - sigma * x0

    return predict


def coherent(steps: int) -> Schedule:
    """A schedule with the denoiser's own alphas. The published schedule has others."""
    timesteps = Schedule.published(steps).timesteps
    return Schedule(timesteps, torch.cat([denoiser_alphas()[timesteps], torch.ones(1)]))


def run(sampler: str, predict, steps: int, count: int = 40_000):
    generator = torch.Generator().manual_seed(0)

    def noise():
        return torch.randn(count, generator=generator)

    return list(sample(predict, noise(), coherent(steps), SAMPLERS[sampler], noise))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_reach_the_data_distribution(sampler):
    result = run(sampler, predict_gaussian(mean=2.0, std=0.5), steps=200)[-1]
    assert result.mean().item() == pytest.approx(2.0, abs=0.02)
    assert result.std().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_single_picture_is_found_in_any_number_of_steps(sampler, steps):
    estimates = run(sampler, predict_gaussian(mean=0.7, std=0.0), steps, count=100)
    assert len(estimates) == steps
    assert estimates[-1] == pytest.approx(torch.full((100,), 0.7), abs=1e-4)


def test_the_second_order_solver_needs_fewer_steps_than_the_first():
    predict = predict_gaussian(mean=0.0, std=0.5)
    exact = run("ddim", predict, steps=500, count=1000)[-1]
    errors = {
        sampler: (run(sampler, predict, steps=40, count=1000)[-1] - exact).abs().mean().item()
        for sampler in ("dpm++2m", "ddim")
    }
    assert errors["dpm++2m"] < 0.5 * errors["ddim"]


def test_deterministic_samplers_draw_nothing():
    def refuse():
        raise AssertionError("drew a random number")

    for name in ("dpm++2m", "ddim"):
        steps = sample(
            predict_gaussian(0.0, 1.0),
            torch.zeros(3),
            Schedule.published(4),
            SAMPLERS[name],
            refuse,
        )
        assert len(list(steps)) == 4


def test_schedule_goes_from_noise_to_data():
    for steps in (1, 2, 3, 50, 999):
        schedule = Schedule.published(steps)
        assert len(schedule.timesteps) == steps
        assert schedule.timesteps[0] == 999
        assert schedule.alphas[0] == 0
        assert schedule.alphas[-1] == 1
        assert (schedule.alphas.diff() > 0).all()


@pytest.mark.parametrize("steps", [0, -1, 1000])
def test_impossible_step_counts(steps):
    with pytest.raises(InputError, match=f"steps is {steps}: choose a number from 1 to 999"):
        Schedule.published(steps)


def test_guidance_goes_beyond_the_conditional_prediction():
    without, with_all = (lambda x, t: x * 0 + 1.0), (lambda x, t: x * 0 + 3.0)
    x = torch.zeros(2)
    assert guided(without, with_all, 3.5)(x, 0).tolist() == [8.0, 8.0]
    assert guided(without, with_all, 1.0)(x, 0).tolist() == [3.0, 3.0]
    assert guided(without, with_all, 0.0)(x, 0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("interval", "guided_steps"), [((0, 1), 10), ((0, 0.5), 5), ((0.2, 0.6), 4), ((1, 1), 0)]
)
def test_guidance_over_a_part_of_the_steps(interval, guided_steps):
    """The unconditional branch is not computed outside of the interval."""
    calls = []

    def without(x, timestep):
        calls.append(timestep)
        return 0 * x

    predict = guided(without, lambda x, timestep: x, 3.0, interval)
    given = torch.ones(1)
    found = [predict(given, timestep) for timestep in Schedule.published(10).timesteps]
    assert len(calls) == guided_steps
    assert sum(value.item() for value in found) == pytest.approx(
        3 * guided_steps + 10 - guided_steps
    )
