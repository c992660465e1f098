#!/usr/bin/env python3
"""Trains and exports one of CryptoDL's networks.

    python models/train/train.py mnist-1            # trains on all training images, exports to models/zoo/trained
    python models/train/train.py mnist-1 --validate # holds out 5000 training images, reports on them, exports nothing
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from cryptodl_train import data, fitting, results
from cryptodl_train.calibration import calibrate
from cryptodl_train.export import export
from cryptodl_train.recipes import RECIPES

ZOO = Path(__file__).resolve().parent.parent / "zoo" / "trained"
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


def overridden(recipe, items):
    for item in items:
        field, value = item.split("=", 1)
        old = getattr(recipe, field)
        kind = type(old) if old is not None else float
        value = value == "True" if kind is bool else tuple(filter(None, value.split(","))) if kind is tuple else kind(value)
        recipe = dataclasses.replace(recipe, **{field: value})
    return recipe


def teacher(name):
    path = CHECKPOINTS / f"{name}.pt"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; train it first: python models/train/train.py {name}")
    net = fitting.build(RECIPES[name])
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval().requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--data", type=Path, help="folder with the four raw files (default: the cache of `cryptodl`)")
    parser.add_argument("--out", type=Path, help="folder for the exported network (default: models/zoo/trained)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a recipe field")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = overridden(RECIPES[args.name], args.set)
    train, test = data.load(recipe.dataset, args.data)
    teachers = [teacher(name) for name in recipe.teachers]

    def log(line):
        print(f"{args.name}: {line}", flush=True)

    if args.validate:
        held_out = train.part(-data.HELD_OUT, None)
        net = fitting.fit(recipe, train.part(0, -data.HELD_OUT), held_out, teachers, log)
        log(f"merged maps rounded, labels kept: {results.agreement(net, held_out)}")
        return
    net = fitting.fit(recipe, train, None, teachers, log)
    if args.out is None and not args.set:
        CHECKPOINTS.mkdir(exist_ok=True)
        torch.save(net.state_dict(), CHECKPOINTS / f"{args.name}.pt")
    score = fitting.correct(net, test)
    calibration = None
    if not isinstance(recipe.activation, str):
        strength = recipe.deformation if recipe.margin_deformation is None else recipe.margin_deformation
        calibration = calibrate(net, train.images, strength)
        export(args.name, recipe, net, calibration, score, test, args.out or ZOO / recipe.folder)
    entry = results.entry(recipe, net, calibration, score, test)
    log(str(entry))
    if args.out is None and not args.set:
        results.save(args.name, entry)


if __name__ == "__main__":
    main()
