"""Protection inside the null space of a key: exact for the authorised network, a shortcut for everybody else.

The generator proposes d = G(x, y); the key's groups turn it into whole steps along their sign vectors:

    z_g = round( b_g * tanh(gain * sigma_g . d_g / sqrt(n_g)) ),   x_u,g = x_g + sigma_g * z_g

with a bound b_g drawn at random below epsilon, dithered rounding, and z_g kept where no value leaves 0..255. Averaged
over keys the copies move along d: a network without the key meets d's shortcut in noise, and learns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uge.errors import ConfigError
from uge.keys.null_space import Groups, NullSpace
from uge.protect.keyed import KeyedConfig, KeyedProtection


@dataclass(frozen=True)
class NullSpaceConfig(KeyedConfig):
    """Settings of the protection in the null space, besides those of `KeyedConfig`.

    Attributes:
        least_magnitude: the bound of a group is drawn from this share of epsilon up to epsilon; at 1 the perturbation
            would be nearly binary, and snapping to +-epsilon would help a denoiser.
    """

    least_magnitude: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least_magnitude <= 1:
            raise ConfigError(f"least_magnitude is a share from 0 to 1, got {self.least_magnitude}")


def perturb(
    images: Tensor, proposal: Tensor, groups: Groups, bound: Tensor, dither: Tensor, gain: float
) -> tuple[Tensor, Tensor]:
    """x_u for one batch with units of one kind.

    Args:
        images: x, uint8 [N, C, H, W].
        proposal: d, float32 [N, C, H, W] in [-1, 1]; gets gradients.
        groups: the groups of these images.
        bound: b, float32 [N, U] in 8-bit steps, read at the slot of each group.
        dither: float32 [N, U] in [0, 1), likewise.
        gain: how steeply z follows the proposal.

    Returns:
        x_u float32 [N, C, H, W] on the scale 0..255, whole numbers; and the share of groups that cannot move.
        The gradient goes through z as if it had not been rounded.
    """
    x = groups.arrange(images.float())  # [N, M, U]
    up, down = 255 - x.amax(1), x.amin(1)
    positive = groups.sign > 0
    rise = groups.least(torch.where(positive, up, down), 255)
    fall = groups.least(torch.where(positive, down, up), 255)
    units = groups.sizes()
    size = (units * x.shape[1]).clamp_min(1)
    direction = groups.sums(groups.arrange(proposal)) / size.sqrt()
    wanted = bound * (gain * direction).tanh()
    inside = torch.maximum(torch.minimum(wanted, rise), -fall)
    with torch.no_grad():
        whole = torch.maximum(torch.minimum((inside + dither).floor(), torch.minimum(rise, bound)), -fall)
        whole = torch.maximum(whole, -bound)
        used = units > 0
        still = ((rise == 0) & (fall == 0) & used).sum() / used.sum()
    z = inside + (whole - inside).detach()
    return (x + groups.spread(z)[:, None]).view(images.shape), still


class NullSpaceProtection(KeyedProtection[NullSpace]):
    """Makes the copy inside the null space of the key."""

    def _perturbed(
        self, images: Tensor, labels: Tensor, space: NullSpace, nonces: Sequence[bytes]
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        assert isinstance(config, NullSpaceConfig)
        proposal = self._proposal(images, labels)
        result, still = [], proposal.new_zeros(())
        kinds = space.kinds(nonces)
        shape = images.shape[1:]
        for tied, members in kinds:
            chosen = [nonces[i] for i in members.tolist()]
            groups = space.groups(chosen, shape, tied=tied).to(self.device)
            stream = space.key_stream("rounding", chosen, shape, groups.group.shape[1])
            halves = torch.from_numpy(stream.view("<i4") & 0xFFFFFF).to(self.device)
            dither, share = halves[:, 0::2] / 2**24, halves[:, 1::2] / 2**24  # two independent numbers from each word
            least = config.least_magnitude * config.epsilon_255
            bound = (least + (config.epsilon_255 - least) * share).round().clamp_min(1)
            part, fixed = perturb(
                images[members].to(self.device), proposal[members], groups, bound, dither, config.gain
            )
            result.append(part)
            still = still + fixed * len(members) / len(images)
        if len(kinds) == 1:
            return result[0], still
        back = torch.cat([members for _, members in kinds]).argsort()
        return torch.cat(result)[back], still


PRESETS: dict[str, NullSpaceConfig] = {
    "quick": NullSpaceConfig(epochs=6, generator_width=16, surrogates=("vgg:depth=8,width=8", "convnet:width=16")),
    "default": NullSpaceConfig(),
    "strong": NullSpaceConfig(epochs=60, generator_width=48, run_epochs=20),
}
