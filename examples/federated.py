"""Decentralised training: a published copy is split over clients that train apart and average their weights (FedAvg).

    uge key new --no-passphrase --network convnet --data fashion-mini --out mine
    uge protect fashion-mini --key mine.protector.uge --out published
    python examples/federated.py published mine.recipient.uge --test fashion-mini

Each round, every client starts from the common network, trains on its own share of the published images and sends its
weights back; the mean, weighted by the number of images, is the next common network (McMahan et al., Communication-
Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017). The first common network is the key's. The
same network is then trained centrally on the whole copy, for as many passes.

A plain loop, in one process: Flower (flwr 1.42) brings a web server and a database and asks for older releases of
typer and rich than the ones this project is tested with, and the averaging itself is five lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import uge
from uge.publish import read_manifest
from uge.records import append_record
from uge.runtime import environment, generator_for, seed_for
from uge.training import accuracy_of, learning_rate_at

RECORDS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "fedavg" / "records.jsonl"
State = dict[str, Tensor]


def shares(images: uge.ImageSet, clients: int, seed: int) -> list[uge.ImageSet]:
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
    key: uge.Key, copy: uge.ImageSet, test: uge.ImageSet, clients: int, rounds: int, local_epochs: int, seed: int
) -> list[float]:
    """Federated averaging from the key's weights; the common network's accuracy in percent after each round.

    The learning rate follows the key's schedule over all rounds and is constant within one. The key's batch is split
    over the clients, so that all of them together see in a step what central training sees in one, and a pass over the
    copy takes as many steps: with whole batches every client takes a fifth of them, and learns that much less.
    """
    parts = shares(copy, clients, seed)
    batch_size = -(-key.recipe.batch_size // clients)
    common = key.network_module()
    accuracies = []
    for number in range(rounds):
        rate = learning_rate_at(key.recipe, (number + 0.5) / rounds)
        recipe = replace(
            key.recipe, epochs=local_epochs, batch_size=batch_size, learning_rate=rate, schedule="constant"
        )
        states = []
        for client, part in enumerate(parts):
            network = key.network_module()
            network.load_state_dict(common.state_dict())
            uge.fit(network, part, recipe, seed=seed_for(seed, "client", client, number))
            states.append(network.state_dict())
        common.load_state_dict(average(states, [len(part) for part in parts]))
        accuracies.append(accuracy_of(common, test))
        print(f"round {number + 1}/{rounds}: clean test accuracy {accuracies[-1]:.1f} %", flush=True)
    return accuracies


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Both trainings, and the record of them."""
    key = uge.load_key(options.key)
    view = uge.authorised_view(options.published, key)  # refuses a copy that the key is not for
    copy = view.images
    held_out = uge.load(options.test, "test", image_size=copy.image_size)
    test = uge.authorised_view(held_out, key, headroom_255=view.headroom_255).images
    if not 1 <= options.clients <= len(copy):
        raise uge.UgeError(f"--clients {options.clients} for {len(copy)} images; give 1 to {len(copy)}")
    if options.rounds < 1 or options.local_epochs < 1:
        raise uge.UgeError("--rounds and --local-epochs must be at least 1")
    sizes = (options.clients, options.rounds, options.local_epochs, options.seed)
    accuracies = federated(key, copy, test, *sizes)
    central = uge.fit(
        key.network_module(),
        copy,
        replace(key.recipe, epochs=options.rounds * options.local_epochs),
        seed=seed_for(options.seed, "central"),
        test=test,
    )
    manifest = read_manifest(options.published)
    return {
        "kind": "fedavg",
        "dataset": Path(options.test).stem,
        "images": len(copy),
        "test_images": len(test),
        "method": manifest.method,
        "epsilon_255": manifest.epsilon_255,
        "settings": manifest.settings,
        "network": key.network.label,
        "clients": options.clients,
        "rounds": options.rounds,
        "local_epochs": options.local_epochs,
        "local_batch_size": -(-key.recipe.batch_size // options.clients),
        "seed": options.seed,
        "accuracy": accuracies[-1],
        "round_accuracy": accuracies,
        "central_accuracy": central.accuracy,
        "central_test_accuracy": list(central.test_accuracy),
        "recipe": key.recipe.to_dict(),
        "data": copy.digest(),
        "environment": environment(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="folder that `uge protect` wrote")
    parser.add_argument("key", help="NAME.recipient.uge")
    parser.add_argument("--test", required=True, help="DATA with clean images to test on, never trained on")
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
