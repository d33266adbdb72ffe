"""Undistillation L_ud: what keeps a student from learning the authorised model through the copy."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Soft-label distillation loss, what a distilling hacker minimises.

        KD = T² · 1/B sum_i KL( softmax(t_i / T) ‖ softmax(s_i / T) )

    Source: Hinton, Vinyals & Dean 2015; the factor T² keeps gradients comparable across temperatures.

    Args:
        teacher: logits [B, K].
        student: logits [B, K].
        temperature: T > 0.

    Returns:
        A scalar >= 0. Both arguments get gradients; detach the one that should not.
    """
    target = F.log_softmax(teacher / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    return temperature**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)


def undistillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Push students that are being distilled on the copy away from the teacher, to be minimised.

        L_ud = -log(1 + KD)

    Source: the maximised KL is that of Ma et al., Nasty Teacher, ICLR 2021, with the image in the place of the
    teacher's weights. The logarithm is ours: KD has no upper bound, and one badly fitted student would otherwise
    drown every other term.

    Args:
        teacher: the authorised network's logits on x_u, [B, K]; treated as constant, so that the image
            may not move the teacher, whose behaviour gradient matching protects.
        student: a student snapshot's logits on x_u, [B, K]; gets gradients.
        temperature: T > 0.

    Returns:
        A scalar <= 0.
    """
    return -distillation(teacher.detach(), student, temperature).log1p()
