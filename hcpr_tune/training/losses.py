"""The HCPR losses (SPAT, AAAI-23, arXiv 2210.15068): pure functions, one value per image; the caller averages.

Logits are cosines z in (B, K) with a bias: z_j = <w_j/|w_j|, f/|f|> + b_j. `scale` is the paper's s, `margin` its m.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def modulated_logits(logits: Tensor, labels: Tensor, scale: float, margin: float, pace: float) -> Tensor:
    """Logits whose every pair is weighed by how hard the model finds it, (B, K) -> (B, K).

    u_j = s * z_j * (1 + pace * (g_j - 1)) with g_y = 1 + m - z_y for the true class and g_j = z_j + m for the others. The
    factors g are neither detached nor clamped, as in the published code. pace 1 is the published loss, pace 0 is s * z.
    """
    true_class = F.one_hot(labels, logits.shape[1]).bool()
    factors = torch.where(true_class, 1 + margin - logits, logits + margin)
    return scale * logits * (1 + pace * (factors - 1))


def self_paced_accuracy(logits: Tensor, labels: Tensor, scale: float, margin: float, pace: float = 1.0) -> Tensor:
    """Cross-entropy of the modulated natural logits, (B, K), (B,) -> (B,)."""
    return F.cross_entropy(modulated_logits(logits, labels, scale, margin, pace), labels, reduction="none")


def pair_consistency(
    natural: Tensor, adversarial: Tensor, scale: float, kl_weight: float, square_weight: float
) -> Tensor:
    """Hard-class pair consistency of natural and adversarial logits, (B, K), (B, K) -> (B,).

    With k_j = p_j * log(p_j / q_j), p = softmax(s * natural), q = softmax(s * adversarial):
    kl_weight * sum_j k_j + square_weight * sum_j k_j^2. The paper's beta * sum_j k_j * (k_j + n) is kl_weight = beta * n,
    square_weight = beta. The gradient flows through p and q.
    """
    log_p = F.log_softmax(scale * natural, dim=1)
    log_q = F.log_softmax(scale * adversarial, dim=1)
    terms = log_p.exp() * (log_p - log_q)
    return kl_weight * terms.sum(dim=1) + square_weight * terms.square().sum(dim=1)


def misclassification_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max over other classes of z_j, minus z_y, (B, K), (B,) -> (B,): an image is classified rightly where it is below 0.

    Its sign does not depend on the scale of the logits, and neither does the direction in which it rises, so that an attack
    on it cannot be fooled by a scale that saturates the cross-entropy.
    """
    true_logit = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(dim=1) - true_logit
