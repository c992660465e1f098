#!/usr/bin/env python3
"""Trains and exports one of CryptoDL's networks.

    python models/train/train.py mnist-1            # trains on all training images, exports to models/zoo/trained
    python models/train/train.py mnist-1 --validate # holds out 5000 training images, reports on them, exports nothing
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from cryptodl_train import augmentation, data, export, fitting, results
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


def teacher(name, folder, validate):
    """A trained network; one that has not seen the held-out images either if these are to measure."""
    path, flag = (folder / f"{name}.validate.pt", " --validate") if validate else (folder / f"{name}.pt", "")
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; train it first: python models/train/train.py {name}{flag}")
    net = fitting.build(RECIPES[name])
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval().requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--data", type=Path, help="folder with the four raw files (default: the cache of `cryptodl`)")
    parser.add_argument("--out", type=Path, help="folder for the exported network (default: models/zoo/trained)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS,
                        help="folder for what a training leaves after every pass, from which the same command goes on, "
                             "and for trained networks (default: %(default)s)")
    parser.add_argument("--cryptodl", nargs="+", default=export.FROM_SOURCE, metavar="WORD",
                        help="command that runs `cryptodl` (default: build it and run it with cargo)")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--snapshot", type=Path, metavar="FOLDER",
                        help="only export what the checkpoint of an unfinished training holds; with --validate "
                             "calibrated and measured on the held-out images")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a recipe field")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = overridden(RECIPES[args.name], args.set)
    train, test = data.load(recipe.dataset, args.data)
    teachers = [teacher(name, args.checkpoints, args.validate) for name in recipe.teachers]
    partial = args.checkpoints / f"{args.name}.partial.pt"

    def log(line):
        print(f"{args.name}: {line}", flush=True)

    if args.validate:
        train, held_out = train.part(0, -data.HELD_OUT), train.part(-data.HELD_OUT, None)
        partial = args.checkpoints / f"{args.name}.validate.partial.pt"
    if args.snapshot:
        net = fitting.unfinished(recipe, partial, train)
        measured = held_out if args.validate else test
        score = fitting.correct(net, measured)
        log(f"{score} of {len(measured)}")
        images = measured.images if args.validate else augmentation.for_calibration(train.images, recipe)
        export.export(args.name, recipe, net, images, score, measured, args.snapshot, args.cryptodl)
        return
    if args.validate:
        net = fitting.fit(recipe, train, held_out, teachers, log, partial)
        if not args.set:
            torch.save(net.state_dict(), args.checkpoints / f"{args.name}.validate.pt")
        if not isinstance(recipe.activation, str):
            log(f"merged maps rounded, labels kept: {results.agreement(net, held_out)}")
        return
    net = fitting.fit(recipe, train, None, teachers, log, partial)
    if args.out is None and not args.set:
        args.checkpoints.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), args.checkpoints / f"{args.name}.pt")
    score = fitting.correct(net, test)
    description = None
    if not isinstance(recipe.activation, str):
        folder, images = args.out or ZOO / recipe.folder, augmentation.for_calibration(train.images, recipe)
        export.export(args.name, recipe, net, images, score, test, folder, args.cryptodl)
        description = folder / f"{args.name}.toml"
    entry = results.entry(recipe, net, description, score, test)
    log(str(entry))
    if args.out is None and not args.set:
        results.save(args.name, entry)
    for done in (*fitting.cycle_checkpoints(partial), fitting.grid_checkpoint(partial)):
        done.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
