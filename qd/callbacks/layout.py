"""Which scalars stand beside each other on TensorBoard's "Custom scalars" page."""

from __future__ import annotations

from qd.evaluation.points import METRICS

Layout = dict[str, dict[str, list]]


def tensorboard_layout() -> Layout:
    """For ``SummaryWriter.add_custom_scalars``: page → chart → kind and tags (which the plugin reads as patterns)."""
    training = {
        "loss": ["train/loss"],
        "KL per token, nats": ["train/kl_per_token"],
        "KL per sequence, nats": ["train/kl"],
        "reward and baseline": ["train/reward", "train/baseline"],
        "β": ["train/beta"],
        "entropy per token, nats": ["train/entropy"],
        "gradient norm": ["train/grad_norm"],
        "advantage, standard deviation": ["train/advantage_std"],
        "policy gradient": ["train/policy_gradient.*"],
        "seconds of each stage": ["train/seconds_.*"],
    }
    return {
        "evaluation (95 % intervals)": {
            name: ["Margin", [f"eval/{name}", f"eval/{name}_lo", f"eval/{name}_hi"]] for name in METRICS
        },
        "training": {chart: ["Multiline", tags] for chart, tags in training.items()},
    }
