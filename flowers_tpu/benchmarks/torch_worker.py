"""Trains a network of torchvision on one resident batch; a process of its own, by --torch_python.

    python torch_worker.py REQUEST

REQUEST is a JSON object: `backbone`, `alpha`, `num_classes`, `image_size`, `batch_size`,
`optimizer`, `learning_rate`, `momentum`, `weight_decay`. Then each line of standard input,
`PRECISION STEPS`, is answered by a line with the seconds that so many steps took. The first line
that is written is the version. Nothing of the package is imported: it is another interpreter.
"""

import contextlib
import json
import os
import sys
import time

import torch
import torchvision
from torch import nn


def make_network(backbone: str, num_classes: int, alpha: float) -> nn.Module:
    """The features of a network, average pooling and a linear layer; the weights are random.

    It takes float32 pixels `[batch, 3, size, size]` and gives logits `[batch, num_classes]`.
    """
    if backbone == "vgg16":
        features, channels = torchvision.models.vgg16(weights=None).features, 512
    else:
        network = torchvision.models.mobilenet_v2(weights=None, width_mult=alpha)
        features, channels = network.features, network.last_channel
    pooling = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(features, *pooling, nn.Linear(channels, num_classes))


def make_optimizer(request: dict, parameters) -> torch.optim.Optimizer:
    """The optimizer of a request."""
    rate, decay = request["learning_rate"], request["weight_decay"]
    if request["optimizer"] == "sgd":
        momentum = request["momentum"]
        return torch.optim.SGD(parameters, rate, momentum, nesterov=momentum > 0)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[request["optimizer"]]
    return kind(parameters, rate, weight_decay=decay)


class Trainer:
    """A network, its optimizer and a batch, channels last."""

    def __init__(self, request: dict, precision: str):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        network = make_network(request["backbone"], request["num_classes"], request["alpha"])
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(request, self.network.parameters())
        shape = (request["batch_size"], 3, request["image_size"], request["image_size"])
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(
            0, request["num_classes"], shape[:1], dtype=torch.int64, device=self.device
        )
        self.bfloat16 = precision == "bfloat16"

    def seconds(self, steps: int) -> float:
        """Does so many steps and waits for the last; returns how long that took."""
        begin = time.perf_counter()
        for _ in range(steps):
            loss = self._step()
        loss.item()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def _step(self) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        images = self.pixels.float() / 127.5 - 1
        autocast = contextlib.nullcontext()
        if self.bfloat16:
            autocast = torch.autocast(self.device, dtype=torch.bfloat16)
        with autocast:
            logits = self.network(images)
        loss = nn.functional.cross_entropy(logits.float(), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss


def main(request: str) -> None:
    """Answers requests until standard input ends."""
    wanted, trainers = json.loads(request), {}
    torch.set_num_threads(_usable_processors())  # as many as TensorFlow takes
    print(torch.__version__, flush=True)
    for line in sys.stdin:
        precision, steps = line.split()
        if precision not in trainers:
            trainers[precision] = Trainer(wanted, precision)
        print(trainers[precision].seconds(int(steps)), flush=True)


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main(sys.argv[1])
