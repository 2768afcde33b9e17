"""Time of each metric beside the straightforward scikit-learn way, and boosted trees' agreement.

    python -m benchmarks.metrics --codes good entangled --skip gbt     (a minute or two)
    python -m benchmarks.metrics --codes good --only gbt               (scikit-learn: 5 CPU minutes)

Codes are synthetic, of the factors of dSprites (3, 6, 40, 32, 32 values), at the reference's
settings: 10,000 points to fit, 5,000 to test. "good": one latent per factor with noise of .1
deviations, and five latents of noise of .02; "entangled": a random rotation of the normalised
factors in ten dimensions, with noise of .1. Both ways are timed in the same run and print their
scores. scikit-learn's boosted trees are fitted a factor at a time on `--workers` processes.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from factorvae import metrics
from factorvae.errors import run_script
from factorvae.metrics.dci import concentration

SIZES = (3, 6, 40, 32, 32)
KINDS = ("good", "entangled")
ROTATION, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((10, 10)))


def represent(factors: np.ndarray, kind: str, generator: np.random.Generator) -> np.ndarray:
    """Codes float32 [B, 10] of factors [B, 5]."""
    sizes = np.array(SIZES)
    normal = (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)
    if kind == "good":
        noise = generator.standard_normal((len(factors), 10)) * np.repeat([0.1, 0.02], 5)
        return (np.pad(normal, ((0, 0), (0, 5))) + noise).astype(np.float32)
    noise = 0.1 * generator.standard_normal((len(factors), 10))
    return (normal @ ROTATION[:5] + noise).astype(np.float32)


class Case:
    """One kind of codes: x, y to fit; u, v to test; and a table to intervene on."""

    def __init__(self, kind: str):
        generator = np.random.default_rng(0)
        factors = generator.integers(0, SIZES, (15_000, len(SIZES)))
        codes = represent(factors, kind, generator)
        self.x, self.u = codes[:10_000], codes[10_000:]
        self.y, self.v = factors[:10_000], factors[10_000:]
        everything = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
        self.table = represent(everything, kind, generator)

    def look_up(self, factors: np.ndarray) -> np.ndarray:
        return self.table[np.ravel_multi_index(tuple(factors.T), SIZES)]


# --- The straightforward ways -----------------------------------------------------------------


def plain_information(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    binned = [np.digitize(c, np.histogram(c, 20)[1][:-1]) for c in x.T]
    return np.array([[mutual_info_score(f, b) for f in y.T] for b in binned])


def plain_mig(case: Case) -> float:
    ranked = np.sort(plain_information(case.x, case.y), axis=0)
    entropy = np.array([mutual_info_score(f, f) for f in case.y.T])
    return np.mean((ranked[-1] - ranked[-2]) / entropy)


def plain_modularity(case: Case) -> float:
    squared = plain_information(case.x, case.y) ** 2
    best = squared.max(axis=1)
    return np.mean(1 - (squared.sum(axis=1) - best) / (best * (len(SIZES) - 1)))


def plain_neighbors(case: Case) -> np.ndarray:
    """Information of latents [D, F] over the factors' entropies, by nearest neighbours."""
    columns = [mutual_info_classif(case.x, f, n_neighbors=10, random_state=0) for f in case.y.T]
    return np.stack(columns, axis=1) / [mutual_info_score(f, f) for f in case.y.T]


def plain_mig_knn(case: Case) -> float:
    ranked = np.sort(plain_neighbors(case), axis=0)
    return np.mean(ranked[-1] - ranked[-2])


def plain_infomec(case: Case) -> tuple[float, float, float]:
    width = np.ptp(case.x, axis=0)
    nmi = plain_neighbors(case)[width > width.max() / 20]
    shares = [(nmi.max(axis=a) / nmi.sum(axis=a)).mean() for a in (1, 0)]
    parts = nmi.shape[1], nmi.shape[0]
    x, explained = StandardScaler().fit_transform(case.x), []
    for f in case.y.T:
        model = LogisticRegression(C=np.inf, class_weight="balanced").fit(x, f)
        explained.append(1 - log_loss(f, model.predict_proba(x)) / np.log(f.max() + 1))
    m, c = ((s - 1 / p) / (1 - 1 / p) for s, p in zip(shares, parts, strict=True))
    return m, np.mean(explained), c


def plain_explicitness(case: Case) -> float:
    scaler, areas = StandardScaler().fit(case.x), []
    for f, g in zip(case.y.T, case.v.T, strict=True):
        model = LogisticRegression().fit(scaler.transform(case.x), f)
        one_hot = np.eye(f.max() + 1)[g]
        areas.append(roc_auc_score(one_hot, model.predict_proba(scaler.transform(case.u))))
    return np.mean(areas)


def plain_sap(case: Case) -> float:
    scores = np.zeros((case.x.shape[1], len(SIZES)))
    for i, k in np.ndindex(scores.shape):
        model = LinearSVC(C=0.01, class_weight="balanced").fit(case.x[:, [i]], case.y[:, k])
        scores[i, k] = model.score(case.u[:, [i]], case.v[:, k])
    ranked = np.sort(scores, axis=0)
    return np.mean(ranked[-1] - ranked[-2])


def plain_irs(case: Case) -> float:
    largest = np.abs(case.x - case.x.mean(axis=0)).max(axis=0)
    deviations = np.zeros((case.x.shape[1], len(SIZES)))
    for k, f in enumerate(case.y.T):
        group = np.digitize(f, np.histogram(f, 20)[1][:-1])
        for value in np.unique(group):
            members = case.x[group == value]
            distance = np.abs(members - members.mean(axis=0))
            deviations[:, k] += np.quantile(distance, 0.99, axis=0) / len(np.unique(group))
    return np.average((1 - deviations / largest[:, None]).max(axis=1), weights=largest)


def plain_factor_vae(case: Case) -> float:
    generator = np.random.default_rng(0)

    def vote() -> tuple[int, int]:
        k = generator.integers(len(SIZES))
        factors = generator.integers(0, SIZES, (64, len(SIZES)))
        factors[:, k] = factors[0, k]
        spread = case.look_up(factors)[:, live].var(axis=0, ddof=1) / variance
        return k, spread.argmin()

    sample = case.look_up(generator.integers(0, SIZES, (10_000, len(SIZES))))
    live = sample.std(axis=0, ddof=1) >= 0.05
    variance = sample[:, live].var(axis=0, ddof=1)
    votes = np.zeros((len(SIZES), live.sum()))
    for _ in range(10_000):
        votes[vote()] += 1
    chosen = votes.argmax(axis=0)
    return np.mean([chosen[least] == k for k, least in (vote() for _ in range(5_000))])


def plain_beta_vae(case: Case) -> float:
    generator = np.random.default_rng(0)
    labels = generator.integers(len(SIZES), size=15_000)
    features = []
    for k in labels:
        first, second = generator.integers(0, SIZES, (2, 64, len(SIZES)))
        second[:, k] = first[:, k]
        features.append(np.abs(case.look_up(first) - case.look_up(second)).mean(axis=0))
    model = LogisticRegression().fit(features[:10_000], labels[:10_000])
    return model.score(features[10_000:], labels[10_000:])


def plain_regression(case: Case, model: Lasso | RandomForestRegressor, weights: str) -> tuple:
    scale_x, scale_y = StandardScaler().fit(case.x), StandardScaler().fit(case.y)
    importance, scores = [], []
    for k in range(len(SIZES)):
        model.fit(scale_x.transform(case.x), scale_y.transform(case.y)[:, k])
        importance.append(np.abs(getattr(model, weights)))
        target = scale_y.transform(case.v)[:, k]
        error = np.sqrt(np.mean((model.predict(scale_x.transform(case.u)) - target) ** 2))
        scores.append(1 - error / target.std())
    matrix = np.stack(importance, axis=1)
    weight = matrix.sum(axis=1) / matrix.sum()
    return weight @ concentration(matrix), concentration(matrix.T).mean(), np.mean(scores)


def plain_boosting(arguments: tuple) -> tuple[np.ndarray, float, float]:
    """Importances, held-out accuracy and CPU seconds for one factor."""
    x, f, u, g = arguments
    start = time.process_time()
    model = GradientBoostingClassifier(random_state=0).fit(x, f)
    accuracy = model.score(u, g)
    return model.feature_importances_, accuracy, time.process_time() - start


# --- The table ----------------------------------------------------------------------------------


def timed(function: Callable[[], object]) -> tuple[object, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def show(*columns: object) -> None:
    print("{:22} {:>9} {:>9} {:>8}   {:24} {}".format(*columns), flush=True)


def numbers(values: object) -> str:
    return " ".join(f"{v:.4f}" for v in np.atleast_1d(values))


def pairs(case: Case) -> dict[str, tuple[Callable, Callable]]:
    """For each metric: ours, returning a dict, and the straightforward way, returning scores."""
    sample, split = (case.x, case.y), (case.x, case.y, case.u, case.v)
    lasso, forest = Lasso(alpha=0.02), RandomForestRegressor(10, max_depth=12, random_state=0)

    def intervene(metric: Callable) -> dict:
        return metric(case.look_up, SIZES, np.random.default_rng(0))

    return {
        "factor_vae_score": (
            lambda: intervene(metrics.factor_vae_score),
            lambda: plain_factor_vae(case),
        ),
        "beta_vae_score": (
            lambda: intervene(metrics.beta_vae_score),
            lambda: plain_beta_vae(case),
        ),
        "mig": (lambda: metrics.mig(*sample), lambda: plain_mig(case)),
        "mig, neighbours": (
            lambda: metrics.mig(*sample, estimator="knn"),
            lambda: plain_mig_knn(case),
        ),
        "modularity": (lambda: metrics.modularity(*sample), lambda: plain_modularity(case)),
        "explicitness": (lambda: metrics.explicitness(*split), lambda: plain_explicitness(case)),
        "sap": (lambda: metrics.sap(*split), lambda: plain_sap(case)),
        "irs": (lambda: metrics.irs(*sample), lambda: plain_irs(case)),
        "infomec": (lambda: metrics.infomec(*sample), lambda: plain_infomec(case)),
        "dci, lasso": (
            lambda: metrics.dci(*split, estimator="lasso"),
            lambda: plain_regression(case, lasso, "coef_"),
        ),
        "dci, forest": (
            lambda: metrics.dci(*split, estimator="forest"),
            lambda: plain_regression(case, forest, "feature_importances_"),
        ),
    }


MAIN = {  # where the score's key is not the metric's name
    "mig, neighbours": ("mig",),
    "infomec": ("infom", "infoe", "infoc"),
    "dci, lasso": ("disentanglement", "completeness", "informativeness"),
    "dci, forest": ("disentanglement", "completeness", "informativeness"),
}


def compare_metrics(case: Case) -> None:
    total = 0.0
    for name, (ours, plain) in pairs(case).items():
        result, seconds = timed(ours)
        expected, plain_seconds = timed(plain)
        total += seconds
        scores = numbers([result[key] for key in MAIN.get(name, (name,))])
        ratio = f"{plain_seconds / seconds:.1f}x"
        show(name, f"{seconds:.2f}", f"{plain_seconds:.2f}", ratio, scores, numbers(expected))
    show("all of these", f"{total:.2f}", "", "", "", "")


def compare_boosting(case: Case, workers: int) -> None:
    ours, seconds = timed(lambda: metrics.dci(case.x, case.y, case.u, case.v))
    jobs = [(case.x, case.y[:, k], case.u, case.v[:, k]) for k in (2, 3, 4, 1, 0)]
    with ProcessPoolExecutor(workers) as pool:
        fitted, plain_seconds = timed(lambda: list(pool.map(plain_boosting, jobs)))
    importance, accuracies, cpu = zip(*fitted, strict=True)
    matrix = np.stack(importance, axis=1)
    weight = matrix.sum(axis=1) / matrix.sum()
    expected = weight @ concentration(matrix), concentration(matrix.T).mean(), np.mean(accuracies)
    keys = ("disentanglement", "completeness", "informativeness")
    scores = [ours[key] for key in keys]
    ratio = f"{sum(cpu) / seconds:.1f}x"
    show("dci, gbt", f"{seconds:.1f}", f"{sum(cpu):.1f}", ratio, numbers(scores), numbers(expected))
    show("  apart by", "", "", "", numbers(np.abs(np.subtract(scores, expected))), "")
    print(f"  (scikit-learn: CPU seconds; {plain_seconds:.1f} s on {workers} processes)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--skip", choices=("gbt",), help="leave out the boosted trees")
    parser.add_argument("--only", choices=("gbt",), help="the boosted trees alone")
    parser.add_argument("--workers", type=int, default=2, help="processes for scikit-learn's trees")
    arguments = parser.parse_args()
    # Both ways stop at the same number of steps, converged or not.
    warnings.simplefilter("ignore", ConvergenceWarning)
    for kind in arguments.codes:
        print(f"{kind} codes, seconds")
        show("metric", "ours", "plainly", "ratio", "our scores", "plain scores")
        case = Case(kind)
        if arguments.only != "gbt":
            compare_metrics(case)
        if arguments.skip != "gbt":
            compare_boosting(case, arguments.workers)


if __name__ == "__main__":
    raise SystemExit(run_script(main))
