"""The experiment in eager PyTorch, one network after the other. PyTorch's running variance has correction 1."""

import itertools
from typing import Any

import numpy as np
import torch

from bnkit.lab.benchmark.peers.weight_scale import Problem, Run


def prepare(work: Problem) -> dict[str, Run]:
    return {"torch eager": lambda: _run(work)}


def _run(work: Problem) -> np.ndarray:
    x, t, batches = torch.from_numpy(work.x), torch.from_numpy(work.t), torch.from_numpy(work.batches)
    last = np.empty((2, len(work.settings.scales)))
    for (i, scale), normalized in itertools.product(enumerate(work.settings.scales), (False, True)):
        network = _network(work, scale, normalized)
        optimizer = torch.optim.SGD(network.parameters(), lr=work.settings.lr)
        for step, chosen in enumerate(batches):
            network.train()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[chosen]), t[chosen]).backward()
            optimizer.step()
            if step % work.every == 0:
                network.eval()
                with torch.inference_mode():
                    last[int(normalized), i] = (network(x).argmax(1) == t).double().mean().item()
    return last


def _network(work: Problem, scale: float, normalized: bool) -> Any:
    layers: list[Any] = []
    for i, normal in enumerate(work.normals):
        linear = torch.nn.Linear(*normal.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(scale * normal).T)
            linear.bias.zero_()
        layers.append(linear)
        if i == len(work.normals) - 1:
            break
        if normalized:
            norm = torch.nn.BatchNorm1d(normal.shape[1], eps=work.settings.eps, momentum=1 - work.settings.decay)
            norm.running_var.zero_()
            layers.append(norm)
        layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)
