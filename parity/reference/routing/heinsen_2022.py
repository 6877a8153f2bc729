"""Outputs that predict the inputs: Heinsen 2022, arXiv:2211.11754."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.reference._parts import Sizes, Stages, numbered, zeros
from parity.reference.routing._base import Routing


class Heinsen2022(Routing):
    """The author's `EfficientVectorRouting`, with votes and activations of the inputs given.

    What it begins with there, the activation scores `A`, is at the end here, for the outputs.
    """

    def __init__(self, sizes: Sizes, iterations: int = 2) -> None:
        super().__init__(sizes, iterations)
        I, K, J, D = sizes  # noqa: E741
        generator = torch.Generator().manual_seed(0)

        def normal(deviation: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(deviation * torch.randn(shape, generator=generator))

        self.W_G1 = normal(D**-0.5, D, K)
        self.W_G2 = normal(1.0, J, K)
        self.B_G2 = zeros(J, K)
        self.W_S = normal(K**-0.5, I, J)
        self.B_S = zeros(I, J)
        self.beta_use = normal(1.0, I, J)
        self.beta_ign = normal(1.0, I, J)
        self.W_A = normal(2 * D**-0.5, J, D)
        self.B_A = zeros(J)

    def forward(self, votes: Tensor, activation: Tensor, pose: Tensor) -> Stages:
        """Routes a batch; activations are the paper's `f(a_inp)`, poses its `x_inp`."""
        stages: Stages = {}
        B, I, J, D = votes.shape  # noqa: E741
        data = activation[:, :, None]
        x_pred = pose.new_zeros(B, J, pose.shape[2])
        S = votes.new_zeros(B, I, J)
        for r in range(1, self.iterations + 1):
            R = torch.softmax(S, dim=2)
            D_use = data * R
            D_ign = data - D_use
            phi = self.beta_use * D_use - self.beta_ign * D_ign
            x_out = torch.einsum("bij,bijd->bjd", phi, votes)
            x_norm = functional.layer_norm(x_out, (D,))
            a = torch.einsum("bjd,jd->bj", x_norm, self.W_A) / J**0.5 + self.B_A
            stages |= numbered(r, x_pred=x_pred, S=S, R=R, D_use=D_use, D_ign=D_ign)
            stages |= numbered(r, phi=phi, x_out=x_out, x_norm=x_norm, a_out=a)
            x_pred = torch.einsum("bjd,dk,jk->bjk", x_norm, self.W_G1, self.W_G2) + self.B_G2
            similarity = torch.einsum("bik,bjk->bij", pose, x_pred)
            S = functional.logsigmoid(similarity * self.W_S + self.B_S)
        return stages | {"capsules": x_norm, "coupling": R, "lengths": torch.sigmoid(a)}
