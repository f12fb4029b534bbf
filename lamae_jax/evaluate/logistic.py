"""L2-regularised logistic regression, one a label, all labels at once, to the optimum.

Legend: N records, F features, C labels, R = min(N, F) directions. The objective of label c is
`mean over its known records of log-loss + l2 / 2 |w_c|^2`, the intercept unpenalised, so that `l2` means the same whatever N
(scikit-learn's C is 1 / (l2 N)). Float64 throughout.

Features are turned once into their principal directions: the penalty does not see a rotation, and there the Hessian is nearly
diagonal, so that a few conjugate-gradient steps make one Newton step for every label together (two matrix products each).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

# Newton decrement (twice the objective's distance to its minimum): far below what a change in any AUROC could come from.
TOLERANCE = 1e-13
NEWTON_STEPS = 100
CG_STEPS = 50


@dataclass(frozen=True)
class Logistic:
    """One solution: `weights` [F, C] on the features as given, `intercepts` [C]."""

    weights: np.ndarray
    intercepts: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Log-odds [N, C] of features [N, F]."""
        return features @ self.weights + self.intercepts


def fit_path(features: np.ndarray, labels: np.ndarray, l2_values: tuple[float, ...]) -> dict[float, Logistic]:
    """Fit every label at every strength of the penalty, from the strongest to the weakest, each starting where the last ended.

    `features` [N, F], centred; `labels` [N, C] of 1, 0 or NaN (unknown: left out for that label).
    Raises ValueError where a label has one sign only (its intercept would run to infinity) or a strength is not positive.
    """
    known = ~np.isnan(labels)
    positives = np.sum(labels == 1, axis=0)
    if np.any(positives == 0) or np.any(positives == known.sum(0)) or min(l2_values) <= 0:
        raise ValueError("every label needs both signs and every strength must be positive")
    rotation, spread = _principal(features)
    problem = _Problem(features @ rotation, spread, np.where(known, labels, 0.0), known / known.sum(0))
    rate = positives / known.sum(0)
    solution = np.zeros((problem.directions + 1, labels.shape[1]))  # the last row holds the intercepts
    solution[-1] = np.log(rate / (1 - rate))
    path = {}
    for l2 in sorted(l2_values, reverse=True):
        solution = problem.minimise(solution, l2)
        path[l2] = Logistic(rotation @ solution[:-1], solution[-1].copy())
    return path


def _principal(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions [F, R] that span the features' rows, and the mean square [R] along each."""
    n, f = features.shape
    if f > n:  # few records: the thin side decides the cost
        _, singular, directions = np.linalg.svd(features, full_matrices=False)
        return directions.T, singular**2 / n
    values, directions = np.linalg.eigh(features.T @ features / n)
    return directions, np.maximum(values, 0)


class _Problem:
    """The objective of all labels in the rotated features, and its minimiser. Columns are independent problems."""

    def __init__(self, features: np.ndarray, spread: np.ndarray, labels: np.ndarray, weights: np.ndarray):
        self.features, self.labels, self.weights = (
            features,
            labels,
            weights,
        )  # [N, R], [N, C], [N, C] summing to 1 a label
        self.directions = features.shape[1]
        self.spread = np.append(spread, 1.0)[:, None]  # [R + 1, 1]

    def logits(self, solution: np.ndarray) -> np.ndarray:
        return self.features @ solution[:-1] + solution[-1]

    def back(self, residual: np.ndarray) -> np.ndarray:
        """The transpose of `logits`: [N, C] -> [R + 1, C]."""
        return np.vstack([self.features.T @ residual, residual.sum(0)])

    def objective(self, logits: np.ndarray, solution: np.ndarray, l2: np.ndarray) -> np.ndarray:
        loss = np.logaddexp(0, logits) - self.labels * logits
        return np.sum(self.weights * loss, 0) + 0.5 * np.sum(l2 * solution**2, 0)

    def minimise(self, solution: np.ndarray, strength: float) -> np.ndarray:
        """Newton's method with conjugate gradients inside and step halving; raises ArithmeticError if it does not arrive."""
        l2 = np.full((self.directions + 1, 1), strength)
        l2[-1] = 0  # the intercept is free
        logits = self.logits(solution)
        value = self.objective(logits, solution, l2)
        for _ in range(NEWTON_STEPS):
            chance = expit(logits)
            gradient = self.back(self.weights * (chance - self.labels)) + l2 * solution
            curvature = self.weights * chance * (1 - chance)
            step = self.newton_step(gradient, curvature, l2)
            decrement = -np.sum(gradient * step, 0)
            if np.all(decrement < TOLERANCE):
                return solution
            along = self.logits(step)
            length = np.where(decrement < TOLERANCE, 0.0, 1.0)
            for _ in range(40):
                new = self.objective(logits + length * along, solution + length * step, l2)
                # Rounding decides once the expected gain is at the objective's last digits: accept equality there.
                short = new > value - 1e-4 * length * decrement + 1e-14 * np.abs(value)
                if not np.any(short):
                    break
                length = np.where(short, length / 2, length)
            solution, logits, value = solution + length * step, logits + length * along, new
        raise ArithmeticError(f"logistic regression did not converge at l2 {strength:g} in {NEWTON_STEPS} steps")

    def newton_step(self, gradient: np.ndarray, curvature: np.ndarray, l2: np.ndarray) -> np.ndarray:
        """Solve Hessian step = -gradient, columns together, by conjugate gradients preconditioned by its near-diagonal."""
        diagonal = self.spread * curvature.sum(0) + l2
        diagonal = np.maximum(diagonal, 1e-12 * diagonal.max(0))
        step, residual = np.zeros_like(gradient), -gradient
        scaled = residual / diagonal
        direction, size = scaled, np.sum(residual * scaled, 0)
        # Inexact far from the optimum, ever more exact near it, which keeps Newton's convergence quadratic-like.
        goal = size * np.minimum(0.01, size)
        for _ in range(CG_STEPS):
            live = size > np.maximum(goal, 1e-300)
            if not np.any(live):
                break
            image = self.back(curvature * self.logits(direction)) + l2 * direction
            advance = np.where(live, size / np.where(live, np.sum(direction * image, 0), 1), 0)
            step = step + advance * direction
            residual = residual - advance * image
            scaled = residual / diagonal
            new = np.where(live, np.sum(residual * scaled, 0), size)
            direction = scaled + np.where(live, new / np.where(live, size, 1), 0) * direction
            size = new
        return step
