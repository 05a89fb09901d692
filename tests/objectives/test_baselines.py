from __future__ import annotations

import pytest
import torch

from qd.objectives.baselines import BASELINES, PromptMovingAverage, build_baseline

PROMPTS = ["slow jazz", "fast techno", "solo flute"]


def build(name, decay=0.9):
    return build_baseline(name, decay=decay, feature_width=4)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def trained(name):
    """Returns a baseline that has seen five steps."""
    baseline = build(name)
    optimizer = torch.optim.SGD(baseline.parameters(), lr=0.1) if list(baseline.parameters()) else None
    for step in range(5):
        rewards, features = draw(3, 2, seed=step), draw(3, 4, seed=100)
        baseline.update(rewards, PROMPTS)
        if optimizer:
            optimizer.zero_grad()
            baseline.loss(rewards, features).backward()
            optimizer.step()
    return baseline


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_depends_on_the_rewards_of_its_own_prompt(name):
    baseline, rewards, features = trained(name), draw(3, 2, seed=9), draw(3, 4, seed=100)
    before = baseline(rewards, PROMPTS, features)
    assert before.shape == rewards.shape
    assert not before.requires_grad
    for prompt in range(3):
        perturbed = rewards.clone()
        perturbed[prompt] += torch.tensor([0.7, 0.2])
        after = baseline(perturbed, PROMPTS, features)
        torch.testing.assert_close(after[prompt], before[prompt])
        if name == "other_prompts":
            others = [i for i in range(3) if i != prompt]
            torch.testing.assert_close(after[others] - before[others], torch.full((2, 2), 0.45 / 2))


@pytest.mark.parametrize("name", BASELINES)
def test_all_samples_of_a_prompt_have_the_same_baseline(name):
    values = trained(name)(draw(3, 2), PROMPTS, draw(3, 4, seed=100))
    assert torch.equal(values[:, 0], values[:, 1])


@pytest.mark.parametrize("name", BASELINES)
def test_state_dict_round_trip(name, tmp_path):
    source, rewards, features = trained(name), draw(3, 2, seed=9), draw(3, 4, seed=100)
    torch.save(source.state_dict(), tmp_path / "state.pt")
    copy = build(name)
    copy.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(copy(rewards, PROMPTS, features), source(rewards, PROMPTS, features))
    if name in ("moving_average", "prompt_moving_average", "value_head"):
        assert not torch.equal(copy(rewards, PROMPTS, features), build(name)(rewards, PROMPTS, features))
    for baseline in (source, copy):
        baseline.update(rewards, PROMPTS)
    assert torch.equal(copy(rewards, PROMPTS, features), source(rewards, PROMPTS, features))


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "other_prompts"])
def test_is_zero_before_the_first_step(name):
    assert torch.equal(build(name)(draw(3, 2), PROMPTS, draw(3, 4)), torch.zeros(3, 2))


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "value_head"])
def test_only_the_value_head_has_a_loss(name):
    assert build(name).loss(draw(3, 2), draw(3, 4)).item() == 0


def test_other_prompts_is_the_leave_one_out_mean():
    rewards = draw(3, 2)
    values = build("other_prompts")(rewards, PROMPTS)
    for prompt in range(3):
        others = [rewards[i, j].item() for i in range(3) for j in range(2) if i != prompt]
        assert values[prompt, 0].item() == pytest.approx(sum(others) / 4)


def test_other_prompts_includes_the_prompts_of_other_ranks():
    rewards, other_ranks = draw(1, 2), draw(3, 2, seed=1)

    def gather(values):
        return torch.cat([values, other_ranks.mean(1, keepdim=True)])

    values = build("other_prompts")(rewards, ["slow jazz"], gather=gather)
    torch.testing.assert_close(values, other_ranks.mean().expand(1, 2))


def test_other_prompts_refuses_a_single_prompt_and_names_another_baseline():
    with pytest.raises(ValueError, match="moving_average"):
        build("other_prompts")(draw(1, 2), ["slow jazz"])


def test_moving_average_equals_weights_written_out():
    baseline, batches = build("moving_average", decay=0.8), [draw(3, 2, seed=seed) for seed in range(4)]
    for batch in batches:
        baseline.update(batch, PROMPTS)
    weights = [0.8 ** (3 - k) for k in range(4)]
    expected = sum(w * b.mean().item() for w, b in zip(weights, batches, strict=True)) / sum(weights)
    assert baseline(batches[0], PROMPTS)[0, 0].item() == pytest.approx(expected)


def test_prompt_moving_average_learns_each_prompt_and_gives_a_new_one_the_average():
    baseline = build("prompt_moving_average")
    rewards = torch.tensor([[0.2, 0.2], [0.5, 0.5], [0.8, 0.8]])
    for _ in range(3):
        baseline.update(rewards, PROMPTS)
    torch.testing.assert_close(baseline(rewards, PROMPTS), rewards)
    unseen = baseline(rewards[:1], ["a choir of whales"])
    torch.testing.assert_close(unseen, torch.full((1, 2), 0.5))


def test_prompt_moving_average_keeps_the_difference_of_a_prompt_while_all_rewards_drift():
    baseline = build("prompt_moving_average", decay=0.5)
    baseline.update(torch.tensor([[0.4, 0.4], [0.2, 0.2]]), ["slow jazz", "fast techno"])
    for _ in range(30):
        baseline.update(torch.tensor([[0.7, 0.7], [0.5, 0.5]]), ["solo flute", "sad tango"])
    value = baseline(torch.zeros(1, 2), ["slow jazz"])[0, 0].item()
    assert value == pytest.approx(0.6 + 0.1, abs=1e-5)  # the current average plus the earlier difference


def test_prompt_moving_average_counts_a_repeated_prompt_as_one_update():
    baseline = build("prompt_moving_average", decay=0.9)
    baseline.update(torch.tensor([[0.1, 0.3], [0.5, 0.7], [0.9, 0.9]]), ["slow jazz", "slow jazz", "solo flute"])
    assert baseline.prompt_weight.sum().item() == pytest.approx(2 * 0.1)
    assert baseline(torch.zeros(1, 2), ["slow jazz"])[0, 0].item() == pytest.approx(0.4)


def test_prompt_moving_average_is_equal_on_all_ranks():
    rewards, prompts = draw(4, 2), ["slow jazz", "fast techno", "solo flute", "slow jazz"]
    alone = build("prompt_moving_average")
    alone.update(rewards, prompts)

    def gather(values):
        if values.dtype == torch.long:
            return alone._slots(prompts)
        return rewards if values.ndim == 2 else rewards.mean(1)

    for here in (slice(0, 2), slice(2, 4)):
        rank = build("prompt_moving_average")
        rank.update(rewards[here], prompts[here], gather=gather)
        for name, value in alone.state_dict().items():
            assert torch.equal(rank.state_dict()[name], value)


def test_slots_depend_only_on_the_text():
    assert build("prompt_moving_average")._slots(["slow jazz"]).tolist() == [53013]


def test_value_head_learns_the_rewards_and_does_not_train_the_features():
    baseline, features = build("value_head"), draw(8, 4, seed=1).requires_grad_()
    rewards = (features.detach() @ torch.tensor([0.5, -0.2, 0.1, 0.3]) + 0.2)[:, None].expand(8, 2)
    assert baseline.loss(rewards, features).item() == pytest.approx(rewards[:, 0].square().mean().item())
    optimizer = torch.optim.Adam(baseline.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        baseline.loss(rewards, features).backward()
        optimizer.step()
    assert features.grad is None
    torch.testing.assert_close(baseline(rewards, ["x"] * 8, features), rewards, rtol=0, atol=0.02)


def test_refuses_bad_input():
    with pytest.raises(ValueError, match="other_prompts, moving_average"):
        build("group_mean")
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay"):
            build("moving_average", decay=decay)
    with pytest.raises(ValueError, match="features"):
        build("value_head")(draw(3, 2), PROMPTS)


def test_two_prompts_in_one_slot_share_a_value(monkeypatch):
    monkeypatch.setattr(PromptMovingAverage, "SLOTS", 1)
    baseline = build("prompt_moving_average")
    baseline.update(torch.tensor([[0.2, 0.2], [0.6, 0.6]]), ["slow jazz", "fast techno"])
    torch.testing.assert_close(baseline(torch.zeros(2, 2), ["slow jazz", "new"]), torch.full((2, 2), 0.4))
