"""L2-regularised logistic regression, one a label, all labels at once, to the optimum.

Legend: N records, F features, C labels, R = min(N, F) directions. The objective of label c is
`mean over its known records of log-loss + l2 / 2 |w_c|^2`, the intercept unpenalised, so that `l2` means the same whatever N
(scikit-learn's C is 1 / (l2 N)). Float64, but for the steps of conjugate gradients.

Features are turned once into their principal directions: the penalty does not see a rotation, and there the Hessian is nearly
diagonal, so that a few conjugate-gradient steps make one Newton step for every label together (two matrix products each).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from lamae_jax.errors import UserError

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
    """The objective of all labels in the rotated features, and its minimiser. Columns are independent problems, and those that
    have arrived are left out of the products: rare labels take many more steps than common ones."""

    def __init__(self, features: np.ndarray, spread: np.ndarray, labels: np.ndarray, weights: np.ndarray):
        self.features, self.labels, self.weights = (
            features,
            labels,
            weights,
        )  # [N, R], [N, C], [N, C] summing to 1 a label
        self.directions = features.shape[1]
        self.single = features.astype(np.float32)  # half the memory to move; Newton's own steps are in double precision
        self.spread = np.append(spread, 1.0)[:, None]  # [R + 1, 1]

    def minimise(self, start: np.ndarray, strength: float) -> np.ndarray:
        """Newton's method with conjugate gradients inside and step halving; raises UserError if it does not arrive."""
        l2 = np.full((self.directions + 1, 1), strength)
        l2[-1] = 0  # the intercept is free
        arrived = np.empty_like(start)
        todo, solution = np.arange(start.shape[1]), start
        labels, weights, logits = self.labels, self.weights, _logits(self.features, start)
        value = _objective(logits, solution, labels, weights, l2)
        for _ in range(NEWTON_STEPS):
            chance = expit(logits)
            gradient = _back(self.features, weights * (chance - labels)) + l2 * solution
            step = self.newton_step(gradient, weights * chance * (1 - chance), l2)
            decrement = -np.sum(gradient * step, 0)
            there = decrement < TOLERANCE
            arrived[:, todo[there]] = solution[:, there]
            if np.all(there):
                return arrived
            if np.any(there):
                left = ~there
                todo, value, decrement = todo[left], value[left], decrement[left]
                solution, step, logits = solution[:, left], step[:, left], logits[:, left]
                labels, weights = labels[:, left], weights[:, left]
            along = _logits(self.features, step)
            length = np.ones(len(todo))
            for _ in range(40):
                new = _objective(logits + length * along, solution + length * step, labels, weights, l2)
                # Rounding decides once the expected gain is at the objective's last digits: accept equality there.
                short = new > value - 1e-4 * length * decrement + 1e-14 * np.abs(value)
                if not np.any(short):
                    break
                length = np.where(short, length / 2, length)
            solution, logits, value = solution + length * step, logits + length * along, new
        raise UserError(
            f"the linear probe did not arrive at l2 {strength:g} in {NEWTON_STEPS} steps; look at the features (constant? huge?)"
        )

    def newton_step(self, gradient: np.ndarray, curvature: np.ndarray, l2: np.ndarray) -> np.ndarray:
        """Solve Hessian step = -gradient, columns together, by conjugate gradients preconditioned by its near-diagonal.

        In single precision: how exact a step is decides how many there are, not where they end.
        """
        # Rare labels' gradients would vanish beside single precision's smallest numbers.
        scale = np.maximum(np.abs(gradient).max(0), 1e-300)
        gradient, curvature, l2 = (each.astype(np.float32) for each in (gradient / scale, curvature, l2))
        diagonal = self.spread.astype(np.float32) * curvature.sum(0) + l2
        diagonal = np.maximum(diagonal, 1e-12 * diagonal.max(0))
        whole, residual = np.zeros_like(gradient), -gradient
        step = whole
        direction = residual / diagonal
        size = np.sum(residual * direction, 0)
        # Inexact far from the optimum, ever more exact near it, which keeps Newton's convergence quadratic-like.
        goal = size * np.clip(size * scale**2, 1e-10, 0.01)
        todo = np.arange(gradient.shape[1])
        for _ in range(CG_STEPS):
            live = size > goal
            if not np.all(live):
                whole[:, todo[~live]] = step[:, ~live]
                if not np.any(live):
                    return whole * scale
                todo, size, goal = todo[live], size[live], goal[live]
                step, residual, direction = step[:, live], residual[:, live], direction[:, live]
                curvature, diagonal = curvature[:, live], diagonal[:, live]
            image = _back(self.single, curvature * _logits(self.single, direction)) + l2 * direction
            advance = size / np.sum(direction * image, 0)
            step = step + advance * direction
            residual = residual - advance * image
            scaled = residual / diagonal
            before, size = size, np.sum(residual * scaled, 0)
            direction = scaled + size / before * direction
        whole[:, todo] = step
        return whole * scale


def _logits(features: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """Of all labels [N, C], from `features` [N, R] and `solution` [R + 1, C], whose last row is the intercepts."""
    return features @ solution[:-1] + solution[-1]


def _back(features: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The transpose of `_logits`: [N, C] -> [R + 1, C]."""
    return np.vstack([features.T @ residual, residual.sum(0)])


def _objective(
    logits: np.ndarray, solution: np.ndarray, labels: np.ndarray, weights: np.ndarray, l2: np.ndarray
) -> np.ndarray:
    """Of each column, [C]."""
    loss = np.logaddexp(0, logits) - labels * logits
    return np.sum(weights * loss, 0) + 0.5 * np.sum(l2 * solution**2, 0)
