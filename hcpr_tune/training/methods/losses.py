"""Losses: pure functions of logits that return one value per image; the caller averages.

The HCPR losses are those of SPAT (AAAI-23, arXiv 2210.15068), on cosine logits z in (B, K) with a bias:
z_j = <w_j/|w_j|, f/|f|> + b_j. `scale` is the paper's s, `margin` its m. The baselines' losses cite their papers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)_y, with a share of each label spread over all classes, (B, K), (B,) -> (B,)."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def kl_divergence(natural: Tensor, adversarial: Tensor) -> Tensor:
    """KL(softmax(natural) || softmax(adversarial)), (B, K), (B, K) -> (B,). The gradient flows through both."""
    return pair_consistency(natural, adversarial, scale=1.0, kl_weight=1.0, square_weight=0.0)


def modulated_logits(
    logits: Tensor, labels: Tensor, scale: float, margin: float, pace: float, detached: bool = False
) -> Tensor:
    """Logits with each class pair weighted by how hard the model finds it, (B, K) -> (B, K).

    u_j = s * z_j * (1 + pace * (g_j - 1)) with g_y = 1 + m - z_y for the true class and g_j = z_j + m for the others.
    As in the published code, the factors g are not clamped, and the gradient flows through them unless `detached`. pace
    1 is the published loss, pace 0 is s * z.
    """
    true_class = _one_hot(labels, logits)
    seen = logits.detach() if detached else logits
    factors = torch.where(true_class, 1 + margin - seen, seen + margin)
    return scale * logits * (1 + pace * (factors - 1))


def self_paced_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    scale: float,
    margin: float,
    pace: float = 1.0,
    detached: bool = False,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of the modulated natural logits, (B, K), (B,) -> (B,)."""
    return cross_entropy(modulated_logits(logits, labels, scale, margin, pace, detached), labels, label_smoothing)


def pair_consistency(
    natural: Tensor, adversarial: Tensor, scale: float, kl_weight: float, square_weight: float
) -> Tensor:
    """Hard-class pair consistency of natural and adversarial logits, (B, K), (B, K) -> (B,).

    With k_j = p_j * log(p_j / q_j), p = softmax(s * natural), q = softmax(s * adversarial):
    kl_weight * sum_j k_j + square_weight * sum_j k_j^2. The paper's beta * sum_j k_j * (k_j + n) means
    kl_weight = beta * n and square_weight = beta. The gradient flows through p and q.
    """
    log_p = F.log_softmax(scale * natural, dim=1)
    log_q = F.log_softmax(scale * adversarial, dim=1)
    terms = log_p.exp() * (log_p - log_q)
    return kl_weight * terms.sum(dim=1) + square_weight * terms.square().sum(dim=1)


def misclassification_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max over other classes of z_j, minus z_y, (B, K), (B,) -> (B,): below 0 if the image is classified correctly.

    Neither its sign nor the direction of its gradient depends on the scale of the logits, so that a scale that
    saturates the cross-entropy cannot fool an attack on it.
    """
    true_logit = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(dim=1) - true_logit


def boosted_cross_entropy(adversarial: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log p_y - log(1 - max over other classes of p_j) with p = softmax(adversarial), (B, K), (B,) -> (B,).

    MART's first term (Wang et al., ICLR 2020). 1 - p_j is summed from the other classes' probabilities, to keep
    precision when p_j is near 1.
    """
    log_p = F.log_softmax(adversarial, dim=1)
    baseline = adversarial.scatter(1, labels[:, None], -torch.inf).argmax(dim=1, keepdim=True)
    log_rest = log_p.scatter(1, baseline, -torch.inf).logsumexp(dim=1)
    return cross_entropy(adversarial, labels, label_smoothing) - log_rest


def misclassification_aware_kl(natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    """KL(natural || adversarial) * (1 - p_y(natural)), (B, K), (B, K), (B,) -> (B,): MART's second term, undetached."""
    true_probability = F.softmax(natural, dim=1).gather(1, labels[:, None]).squeeze(1)
    return kl_divergence(natural, adversarial) * (1 - true_probability)


def margin_logits(logits: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """s * (z_y - m) for the true class and s * z_j for the others, (B, K), (B,) -> (B, K).

    Hypersphere embedding (Pang et al., NeurIPS 2020).
    """
    return scale * (logits - margin * _one_hot(labels, logits).to(logits.dtype))


def _one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """(B,) -> (B, K) bool. `F.one_hot` looks at the labels' values, for which the host may have to wait."""
    return labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
