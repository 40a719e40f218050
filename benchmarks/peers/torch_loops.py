"""Training and decoding loops around PyTorch modules, the same for all of its contestants."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sizes import BOS, EOS, PAD, Size, Work, batches
from torch import Tensor, nn


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of the tokens (B, T) that are no padding; logits (B, T, V)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=PAD)


def work(run: Callable, network: nn.Module, parts: int = 1) -> Work:
    """Return a unit of work that counts the weights of its network."""
    number = sum(weight.numel() for weight in network.parameters())
    return Work(run, number, parts, {"threads": torch.get_num_threads()})


def training(size: Size, network: nn.Module, loss: Callable[..., Tensor]) -> Work:
    """Return a pass over the batches with the fused Adam.

    Args:
        size: The size.
        network: All that is trained.
        loss: From source (B, S), target_in and target_out (B, T), ids, to the mean loss.
    """
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7, fused=True)
    split = (torch.from_numpy(ids).long().split(size.batch) for ids in batches(size))
    data = list(zip(*split, strict=True))

    def run():
        total = torch.zeros(())
        for batch in data:
            adam.zero_grad(set_to_none=True)
            found = loss(*batch)
            found.backward()
            adam.step()
            total += found.detach()
        return total.item() / len(data)

    return work(run, network, size.batches)


def greedy(step: Callable, state, number: int, steps: int):
    """Return the most probable tokens, one after the other, until all targets have ended (B, n).

    Args:
        step: From tokens (B,) and a state to logits (B, V) and the next state.
        state: The first state.
        number: Targets B.
        steps: Most tokens of a target.
    """
    tokens = torch.full((number,), BOS)
    done, found = torch.zeros(number, dtype=torch.bool), []
    for _ in range(steps):
        logits, state = step(tokens, state)
        tokens = torch.where(done, PAD, logits.argmax(-1))
        found.append(tokens)
        done |= tokens == EOS
        if done.all():
            break
    return torch.stack(found, 1).numpy()
