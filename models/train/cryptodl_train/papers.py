"""The papers' accuracies beside ours: the tables of docs/accuracy.md."""

# Table: (heading, [(row, accuracy in the paper, our network)]).
TABLES = {
    "table-1": ("method for ReLU", [
        ("numerical least squares, degree 2", "56.87 %", "mnist-1-least-squares"),
        ("Taylor, degree 2", "40.28 %", "mnist-1-taylor"),
        ("Chebyshev, degree 2", "68.98 %", "mnist-1-chebyshev"),
        ("modified Chebyshev, degree 2", "88.53 %", "mnist-1-modified-chebyshev"),
        ("derivative, degree 3", "98.52 %", "mnist-1-derivative-3"),
        ("derivative, degree 4", "", "mnist-1-derivative-4"),
        ("derivative, degree 5", "", "mnist-1-derivative-5"),
        ("derivative, degree 6", "", "mnist-1-derivative-6"),
        ("derivative, degree 7", "", "mnist-1-derivative-7"),
        ("derivative, degree 8", "99.21 % (best of 3 to 8)", "mnist-1-derivative-8"),
        ("learned coefficients, degree 2", "", "mnist-1-square"),
        ("learned coefficients, degree 3", "", "mnist-1"),
    ]),
    "table-2": ("CNN Model 2 with", [
        ("ReLU, original", "99.56 %", "mnist-2-original-relu"),
        ("ReLU, polynomial", "99.52 %", "mnist-2"),
        ("ReLU, polynomial, wider network", "", "mnist-best"),
        ("Sigmoid, original", "98.85 %", "mnist-2-original-sigmoid"),
        ("Sigmoid, polynomial", "98.94 %", "mnist-2-sigmoid"),
        ("Tanh, original", "97.27 %", "mnist-2-original-tanh"),
        ("Tanh, polynomial", "98.15 %", "mnist-2-tanh"),
    ]),
    "others": ("network", [
        ("CryptoNets", "98.95 %", "cryptonets"),
        ("SecureML, two hidden layers of 128", "93.4 %", "secureml"),
        ("light network of Chabanne et al., Taylor polynomial", "97.95 %", "chabanne-light"),
        ("Swish of degree 4 (Ishiyama et al.)", "99.22 %", "swish-mnist"),
        ("CNN Model 1 on Fashion-MNIST", "", "fashion-1"),
        ("residual network, two skips", "", "mnist-res"),
    ]),
    "cifar-10": ("network on CIFAR-10", [
        ("CNN with polynomials of ReLU", "91.5 %", "cifar-10"),
        ("CNN with ReLU, original", "94.2 %", "cifar-10-original-relu"),
    ]),
}


def tables(results):
    """The Markdown of every table; a network without results has no row."""
    texts = {}
    for name, (heading, rows) in TABLES.items():
        lines = [f"| {heading} | paper | ours | network |", "|---|---|---|---|"]
        for row, paper, network in rows:
            if network in results:
                ours = 100 * results[network]["correct"] / results[network]["images"]
                lines.append(f"| {row} | {paper} | {ours:.2f} % | `{network}` |")
        texts[name] = "\n".join(lines)
    return texts
