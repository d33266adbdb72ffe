"""Decentralised training: a published copy is split over clients that train apart and average their weights (FedAvg).

    uge protect eurosat --no-passphrase --out published
    python examples/federated.py published published.recipient.uge --test eurosat

Each round, every client starts from the common network, trains on its own share of the published images and sends its
weights back; the mean, weighted by the number of images, is the next common network (McMahan et al., Communication-
Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017). The same network is then
trained centrally on the whole copy, for as many passes.

A plain loop, in one process: Flower (flwr 1.42) brings a web server and a database and asks for older releases of
typer and rich than the ones this project is tested with, and the averaging itself is five lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import uge
from uge.data.images import ImageSet
from uge.keys import RECIPIENT_NETWORK
from uge.records import append_record
from uge.runtime import environment, generator_for, seed_for
from uge.training import Recipe, accuracy_of, fit, learning_rate_at

RECORDS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "fedavg" / "records.jsonl"
State = dict[str, Tensor]


def shares(images: ImageSet, clients: int, seed: int) -> list[ImageSet]:
    """Each client's images: a random partition, equal in size to within one image."""
    order = torch.randperm(len(images), generator=generator_for(seed, "shares"))
    return [images.subset(part) for part in order.tensor_split(clients)]


def average(states: Sequence[State], weights: Sequence[int]) -> State:
    """The mean of several networks' weights and buffers; counters, which are integers, come from the first."""
    total = sum(weights)
    return {
        name: sum((w / total * state[name] for w, state in zip(weights, states, strict=True)), torch.zeros_like(first))
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def federated(
    start: nn.Module,
    recipe: Recipe,
    copy: ImageSet,
    test: ImageSet,
    *,
    clients: int,
    rounds: int,
    local_epochs: int,
    seed: int,
) -> list[float]:
    """Federated averaging from a network; the common network's accuracy in percent after each round.

    The learning rate follows the recipe's schedule over all rounds and is constant within one. The recipe's batch is
    split over the clients, so that all of them together see in a step what central training sees in one, and a pass
    over the copy takes as many steps: with whole batches every client takes a fifth of them, and learns that much less.
    """
    parts = shares(copy, clients, seed)
    common = deepcopy(start)
    accuracies = []
    for number in range(rounds):
        local = replace(
            recipe,
            epochs=local_epochs,
            batch_size=-(-recipe.batch_size // clients),
            learning_rate=learning_rate_at(recipe, (number + 0.5) / rounds),
            schedule="constant",
        )
        states = []
        for client, part in enumerate(parts):
            network = deepcopy(common)
            fit(network, part, local, seed=seed_for(seed, "client", client, number))
            states.append(network.state_dict())
        common.load_state_dict(average(states, [len(part) for part in parts]))
        accuracies.append(accuracy_of(common, test))
        print(f"round {number + 1}/{rounds}: clean test accuracy {accuracies[-1]:.1f} %", flush=True)
    return accuracies


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Both trainings, and the record of them."""
    key = uge.load_key(options.key)
    published = uge.Copy.read(options.published, key)  # refuses a copy that the key is not for
    copy = published.view(key)
    test = uge.load(options.test, "test", image_size=copy.image_size)
    test = test.with_images(key.seen(test.images))
    if not 1 <= options.clients <= len(copy):
        raise uge.UgeError(f"--clients {options.clients} for {len(copy)} images; give 1 to {len(copy)}")
    if options.rounds < 1 or options.local_epochs < 1:
        raise uge.UgeError("--rounds and --local-epochs must be at least 1")
    start = key.module(copy, options.network, options.seed)
    epochs = options.rounds * options.local_epochs
    recipe = replace(key.recipe(options.network, epochs), epochs=epochs)  # one of weights has its own
    sizes = {name: getattr(options, name) for name in ("clients", "rounds", "local_epochs", "seed")}
    accuracies = federated(start, recipe, copy, test, **sizes)
    central = fit(deepcopy(start), copy, recipe, seed=seed_for(options.seed, "central"), test=test)
    assert published.manifest is not None  # there is a key
    return sizes | {
        "kind": "fedavg",
        "dataset": Path(options.test).stem,
        "images": len(copy),
        "test_images": len(test),
        "method": published.manifest.method,
        "epsilon_255": published.manifest.epsilon_255,
        "settings": published.manifest.settings,
        "network": key.spec(copy, options.network).label,
        "local_batch_size": -(-recipe.batch_size // options.clients),
        "accuracy": accuracies[-1],
        "round_accuracy": accuracies,
        "central_accuracy": central.accuracy,
        "central_test_accuracy": list(central.test_accuracy),
        "recipe": recipe.to_dict(),
        "data": copy.digest(),
        "environment": environment(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="folder that `uge protect` wrote")
    parser.add_argument("key", help="NAME.recipient.uge")
    parser.add_argument("--test", required=True, help="DATA with clean images to test on, never trained on")
    parser.add_argument("--network", default=RECIPIENT_NETWORK, help="what all train")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--local-epochs", type=int, default=1, help="passes of a client over its share in one round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", nargs="?", type=Path, const=RECORDS, help="append the result to these records")
    options = parser.parse_args(arguments)
    try:
        row = run(options)
    except uge.UgeError as error:
        parser.error(str(error))
    print(
        f"{row['clients']} clients: {row['accuracy']:.1f} %, central training on the same copy:"
        f" {row['central_accuracy']:.1f} %"
    )
    if options.record:
        append_record(options.record, row)


if __name__ == "__main__":
    main()
