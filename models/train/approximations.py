#!/usr/bin/env python3
"""Writes approximations.json: the polynomials that recipes take from the approximation library, with the commands that made them.

    python models/train/approximations.py [BINARY]     # BINARY: the program [default: target/release/cryptodl]
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parent / "approximations.json"
# The interval is where the recipes' range penalty keeps the values. Those of Table 1 are on one that is not symmetric about 0, near the
# range of `mnist-1`: on a symmetric one ReLU is x/2 plus an even function, and the derivative method has no odd powers but x.
COMMANDS = {
    "relu-least-squares": "approx --function relu --method numerical --degree 2 --interval=-5,3",
    "relu-taylor": "approx --function relu --method taylor --degree 2 --interval=-5,3",
    "relu-chebyshev": "approx --function relu --method chebyshev --degree 2 --interval=-5,3",
    "relu-modified-chebyshev": "approx --function relu --method modified-chebyshev --degree 2 --interval=-5,3",
    "relu-derivative": "approx --function relu --method derivative --degree 3,4,5,6,7,8 --interval=-5,3",
    "sigmoid": "approx --function sigmoid --method chebyshev --degree 3 --interval=-4,4",
    "tanh": "approx --function tanh --method chebyshev --degree 3 --interval=-4,4",
    "swish": "approx --function swish --method chebyshev --degree 4 --interval=-4,4",
}


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/cryptodl"
    result = {}
    for name, command in COMMANDS.items():
        run = subprocess.run([binary, *shlex.split(command), "--json", "-"], check=True, capture_output=True, text=True)
        found = json.loads(run.stdout)["approximations"]
        polynomials = {str(one["requested_degree"]): one["coefficients"] for one in found}
        result[name] = {"command": f"cryptodl {command} --json -", "coefficients": polynomials}
    FILE.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
