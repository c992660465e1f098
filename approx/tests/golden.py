"""Writes golden.json: approximations computed by other means, in 50 decimal digits, by mpmath (pip install mpmath==1.3.0).

    python3 approx/tests/golden.py

Mean-square approximations come from the normal equations in powers of x with adaptive tanh-sinh quadrature (the library: orthogonal
polynomials and Gauss-Legendre panels in double precision); minimax from an exchange of single systems of linear equations on a
uniform grid (the library: barycentric interpolation); Taylor series from numerical differentiation (the library: differential
equations). Takes about half a minute.
"""

import json
import pathlib

import mpmath as mp

mp.mp.dps = 50

sigmoid = lambda x: 1 / (1 + mp.exp(-x))
normal = lambda x: mp.ncdf(x)
FUNCTIONS = {
    "relu": lambda x: max(x, mp.mpf(0)),
    "sigmoid": sigmoid,
    "tanh": mp.tanh,
    "swish": lambda x: x * sigmoid(x),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "gelu": lambda x: x * normal(x),
}
DERIVATIVES = {
    "relu": lambda x: mp.mpf((mp.sign(x) + 1) / 2),
    "sigmoid": lambda x: sigmoid(x) * sigmoid(-x),
    "tanh": lambda x: mp.sech(x) ** 2,
    "swish": lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
    "softplus": sigmoid,
    "gelu": lambda x: normal(x) + x * mp.npdf(x),
}


def modified_relu(a, b):
    return lambda x: mp.exp(-1 / (mp.mpf("1e-5") + x * x))


def modified_sigmoid(a, b):
    m, h = (a + b) / 2, (b - a) / 2
    return lambda x: mp.mpf(0) if x == m else mp.exp(-((h / (x - m)) ** 2))


def gaussian(sigma):
    def on(a, b):
        s = mp.mpf(sigma) if sigma else (b - a) / 6
        return lambda x: mp.exp(-(((x - (a + b) / 2) / s) ** 2) / 2)

    return on


def integrate(g, a, b):
    inner = [x for x in map(mp.mpf, ("-8", "-2", "-.5", "-.1", "0", ".1", ".5", "2", "8")) if a < x < b]
    return mp.quad(g, [a, *inner, b])


def chebyshev_integral(g, a, b):
    """With the weight 1/sqrt(1 - t^2): x = m + h cos s."""
    m, h = (a + b) / 2, (b - a) / 2
    split = [mp.acos(-m / h)] if a < 0 < b else []
    return mp.quad(lambda s: g(m + h * mp.cos(s)), [0, *split, mp.pi])


def mean_square(f, integral, degree):
    moments = [integral(lambda x, k=k: x**k) for k in range(2 * degree + 1)]
    gram = mp.matrix(degree + 1, degree + 1)
    for i in range(degree + 1):
        for j in range(degree + 1):
            gram[i, j] = moments[i + j]
    right = mp.matrix([integral(lambda x, k=k: f(x) * x**k) for k in range(degree + 1)])
    return list(mp.lu_solve(gram, right))


def weighted(weight, a, b):
    if weight == "chebyshev":
        return lambda g: chebyshev_integral(g, a, b)
    density = weight(a, b) if weight else (lambda x: mp.mpf(1))
    return lambda g: integrate(lambda x: g(x) * density(x), a, b)


def derivative(name, integral, degree):
    """Section 3.2, method 5: for ReLU a sigmoid stands in for the derivative; zero mean error."""
    slope = sigmoid if name == "relu" else DERIVATIVES[name]
    fitted = mean_square(slope, integral, degree - 1)
    p = [mp.mpf(0)] + [c / (k + 1) for k, c in enumerate(fitted)]
    mass = integral(lambda x: mp.mpf(1))
    p[0] = integral(lambda x: FUNCTIONS[name](x) - mp.polyval(p[::-1], x)) / mass
    return p


def points(f, a, b, count, degree):
    xs = [a + (b - a) * i / (count - 1) for i in range(count)]
    return mean_square(f, lambda g: mp.fsum(map(g, xs)), degree)


def minimax(f, a, b, degree):
    """Exchange of all points, each step one linear system for the coefficients and the error."""
    m, h, count = (a + b) / 2, (b - a) / 2, degree + 2
    reference = [m - h * mp.cos(mp.pi * (i + mp.mpf("0.03") * (i % 2)) / (count - 1)) for i in range(count - 1)] + [b]
    grid = [a + (b - a) * i / 800 for i in range(801)] + ([mp.mpf(0)] if a < 0 < b else [])
    grid.sort()
    for _ in range(30):
        system = mp.matrix(count, count)
        for i, x in enumerate(reference):
            for k in range(degree + 1):
                system[i, k] = x**k
            system[i, degree + 1] = (-1) ** i
        *p, level = mp.lu_solve(system, mp.matrix([f(x) for x in reference]))
        error = lambda x: f(x) - mp.polyval(p[::-1], x)
        values = [error(x) for x in grid]
        runs = []
        for i, value in enumerate(values):
            if runs and mp.sign(values[runs[-1]]) == mp.sign(value):
                if abs(value) > abs(values[runs[-1]]):
                    runs[-1] = i
            elif value != 0:
                runs.append(i)
        while len(runs) > count:
            runs.pop(0 if abs(values[runs[0]]) < abs(values[runs[-1]]) else -1)
        assert len(runs) == count, "too few alternations"
        reference = []
        for i in runs:
            low, high = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
            sign = mp.sign(values[i])
            for _ in range(70):
                left, right = low + (high - low) / 3, high - (high - low) / 3
                if sign * error(left) < sign * error(right):
                    low = left
                else:
                    high = right
            best = max([grid[i], (low + high) / 2], key=lambda x: sign * error(x))
            reference.append(best)
        largest = max(abs(error(x)) for x in reference)
        if largest - abs(level) < largest * mp.mpf("1e-16"):
            return p, largest
    raise RuntimeError("no convergence")


def number(x):
    return float(mp.nstr(x, 20))


def main():
    cases = []

    def add(function, method, ends, degree, p, **more):
        p = [number(c) for c in p]
        case = {"function": function, "method": method, "interval": list(ends), "degree": degree, "coefficients": p}
        cases.append(case | more)
        print(function, method, ends, degree)

    def projections(method, weight, choices):
        for function, ends, degree in choices:
            a, b = map(mp.mpf, ends)
            add(function, method, ends, degree, mean_square(FUNCTIONS[function], weighted(weight, a, b), degree))

    projections("modified-chebyshev", modified_relu, [
        *(("relu", (-l, l), d) for l in (1, 4, 10) for d in (2, 4, 8)),
        ("relu", (-2, 5), 3), ("swish", (-4, 4), 4), ("gelu", (-3, 6), 5), ("softplus", (-4, 4), 4),
    ])
    projections("modified-chebyshev", modified_sigmoid, [
        ("sigmoid", (-2, 2), 3), ("sigmoid", (-8, 8), 7), ("tanh", (-3, 3), 5), ("tanh", (-1, 3), 4),
    ])
    projections("chebyshev", "chebyshev", [("sigmoid", (-8, 8), 7), ("swish", (-5, 3), 5), ("gelu", (-4, 4), 6)])
    projections("legendre", None, [("tanh", (-4, 4), 5), ("softplus", (-3, 5), 4)])
    projections("gaussian", gaussian(None), [("swish", (-4, 4), 4), ("relu", (-5, 5), 2)])
    for name, weight in [
        ("chebyshev", "chebyshev"), ("modified-chebyshev", modified_sigmoid), ("legendre", None),
    ]:
        for function, ends, degree in [
            ("relu", (-4, 4), 2), ("relu", (-4, 4), 8), ("relu", (-5, 3), 3), ("tanh", (-2, 3), 4),
        ]:
            p = derivative(function, weighted(weight, *map(mp.mpf, ends)), degree)
            add(function, "derivative", ends, degree, p, weight=name)
    for function, ends, degree, count in [("relu", (-3, 3), 4, 21), ("sigmoid", (-2, 6), 5, 50)]:
        p = points(FUNCTIONS[function], *map(mp.mpf, ends), count, degree)
        add(function, "numerical", ends, degree, p, points=count)
    for function, ends, degree in [
        ("relu", (-1, 1), 4), ("relu", (-1, 1), 6), ("relu", (-3, 5), 3), ("sigmoid", (-5, 5), 3), ("swish", (-2, 4), 3),
        ("gelu", (-3, 3), 4), ("tanh", (-1, 2), 6),
    ]:
        p, largest = minimax(FUNCTIONS[function], *map(mp.mpf, ends), degree)
        add(function, "minimax", ends, degree, p, sup=number(largest))
    taylor = [
        {"function": name, "at": at, "coefficients": [number(c) for c in mp.taylor(FUNCTIONS[name], at, 9)]}
        for name in FUNCTIONS if name != "relu" for at in (0, 1.5, -3)
    ]
    values = [
        {"function": name, "x": x, "value": number(FUNCTIONS[name](mp.mpf(x))), "slope": number(DERIVATIVES[name](mp.mpf(x)))}
        for name in FUNCTIONS for x in (-700.0, -38.5, -9.25, -1.0, -1e-3, 0.0, 0.125, 2.5, 20.0, 800.0)
    ]
    golden = {"approximations": cases, "taylor": taylor, "values": values}
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = ",\n".join(
        f' "{key}": [\n' + ",\n".join("  " + json.dumps(case) for case in cases) + "\n ]" for key, cases in golden.items()
    )
    path.write_text("{\n" + lines + "\n}\n")


main()
