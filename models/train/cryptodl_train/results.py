"""What each recipe achieved: models/train/results.json, and the table made from it."""

import json
import tomllib
from pathlib import Path

import torch

from . import papers
from .fitting import rounding
from .recipe_torch import PolyActivation

FOLDER = Path(__file__).resolve().parent.parent
FILE = FOLDER / "results.json"
BITS = (8, 6, 5, 4)


@torch.no_grad()
def agreement(net, data):
    """Share of labels that stay when every merged map is rounded to symmetric integers of so many bits."""
    net.eval()
    dtype, net.dtype = net.dtype, torch.float32

    def labels(perturb):
        return torch.cat([net(x, perturb)[0].argmax(1) for x in data.images.split(500)])

    exact = labels(None)
    rounded = {bits: labels(rounding(dict.fromkeys(net.architecture, bits))) for bits in BITS}
    result = {str(bits): float((found == exact).double().mean()) for bits, found in rounded.items()}
    net.dtype = dtype
    return result


@torch.no_grad()
def cost(net):
    """(values that activations act on, multiply-adds of the layers as published) per image."""
    values = multiply_adds = 0
    for name, a, b in net.trace(torch.zeros(1, *net.shape)):
        module = getattr(net, name)
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            multiply_adds += b.numel() * module.weight[0].numel()
        elif type(net.architecture[name]).__name__ == "Activation":
            values += b.numel()
    return values, multiply_adds


def degrees(net):
    """Degree of every polynomial activation, by name."""
    polynomials = ((name, getattr(net, name)) for name in net.architecture)
    return {name: module.coefficients.shape[-1] - 1 for name, module in polynomials if isinstance(module, PolyActivation)}


def entry(recipe, net, description, score, test):
    """`description` is the path of the exported one, None if the network cannot be exported."""
    values, multiply_adds = cost(net)
    result = {
        "title": recipe.title, "dataset": recipe.dataset, "epochs": sum(cycle.epochs for cycle in recipe.cycles()),
        "correct": score, "images": len(test), "activation_values": values, "multiply_adds": multiply_adds,
    }
    if description is not None:
        # Of coefficients per channel, their mean.
        result["polynomials"] = {name: getattr(net, name).coefficients.view(-1, degree + 1).mean(0).tolist()
                                 for name, degree in degrees(net).items()}
        layers = tomllib.loads(description.read_text())["layer"]
        result["ranges"] = {layer["name"]: layer["range"] for layer in layers if layer["kind"] == "polynomial"}
        result["agreement"] = agreement(net, test)
    return result


def load():
    return json.loads(FILE.read_text()) if FILE.is_file() else {}


def save(name, entry):
    """Adds or replaces the network's entry, and rewrites the tables made of all entries."""
    results = {**load(), name: entry}
    FILE.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    fill(FOLDER / "README.md", {"results": table(results)})
    fill(FOLDER.parent.parent / "docs" / "accuracy.md", papers.tables(results))


def fill(file, tables):
    """Replaces the text between `<!-- NAME: written by train.py -->` and `<!-- end -->` by each table."""
    text = file.read_text()
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: written by train.py -->", "<!-- end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{lines}\n{end}{rest.split(end, 1)[1]}"
    file.write_text(text)


def table(results):
    header = ["network", "degree", "activation values", "multiply-adds", "test accuracy", *(f"{b} bits" for b in BITS)]
    rows = [header, ["---"] * len(header)]
    for name, e in sorted(results.items()):
        found = {len(c) - 1 for c in e.get("polynomials", {}).values()}
        kept = [percent(e["agreement"][str(b)]) if "agreement" in e else "" for b in BITS]
        rows.append([f"`{name}`", ", ".join(map(str, found)), f"{e['activation_values']:,}",
                     f"{e['multiply_adds'] / 1e6:.2f} M", percent(e["correct"] / e["images"]), *kept])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def percent(share):
    return f"{100 * share:.2f} %"
