// SPDX-License-Identifier: Apache-2.0
/**
 * Weights on the simplex, as sliders move them. They are whole thousandths, so that their sum
 * is exactly 1 and the name of the model says exactly what is drawn from.
 */

export const UNITS = 1000;

/** Whole shares of a whole total, as near to the proportions as can be (largest remainders). */
function deal(total, proportions) {
  const sum = proportions.reduce((a, b) => a + b, 0);
  const exact = proportions.map((p) => (sum > 0 ? (total * p) / sum : total / proportions.length));
  const units = exact.map(Math.floor);
  const order = exact.map((x, i) => [x - units[i], i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const missing = total - units.reduce((a, b) => a + b, 0);
  for (let i = 0; i < missing; i++) units[order[i][1]]++;
  return units;
}

export class Weights {
  /** @param count  objectives, at least 1; equal weights */
  constructor(count) {
    this.units = deal(UNITS, Array(count).fill(1));
    this.locked = Array(count).fill(false);
    // Unrounded, so that proportions outlive a pass through small shares.
    this.exact = [...this.units];
    // What the weights were before another one pushed all of them to 0.
    this.memory = [...this.units];
  }

  /** What the weights without a lock, and k, have to share. */
  free(k) {
    return UNITS - this.units.reduce((sum, u, j) => sum + (j !== k && this.locked[j] ? u : 0), 0);
  }

  canMove(k) {
    return !this.locked[k] && this.units.some((_, j) => j !== k && !this.locked[j]);
  }

  /** Give k so many units, at most those that no lock holds; the others keep their proportions. */
  move(k, wanted) {
    if (!this.canMove(k)) return;
    const free = this.free(k);
    const value = Math.max(0, Math.min(free, Math.round(wanted) || 0));
    const others = this.units.map((_, j) => j).filter((j) => j !== k && !this.locked[j]);
    const held = others.some((j) => this.exact[j] > 0) ? this.exact : this.memory;
    const shares = others.map((j) => held[j]);
    const sum = shares.reduce((a, b) => a + b, 0);
    const units = deal(free - value, shares);
    others.forEach((j, i) => {
      this.memory[j] = shares[i];
      this.exact[j] = (free - value) * (sum > 0 ? shares[i] / sum : 1 / others.length);
      this.units[j] = units[i];
    });
    this.units[k] = value;
    this.exact[k] = value;
  }

  /** Take weights as they are; the nearest on the simplex where they are not on it. */
  set(weights) {
    this.units = deal(UNITS, weights.map((w) => Math.max(0, w)));
    this.exact = [...this.units];
    this.memory = [...this.units];
    this.locked.fill(false);
  }

  values() {
    return this.units.map((u) => u / UNITS);
  }
}

/** The model of these weights: mpo@helpful=0.4:concise=0.6 */
export function modelName(names, units) {
  const byName = names.every((name) => !/[=:@\s]/.test(name));
  if (!byName) return "mpo@" + units.map((u) => u / UNITS).join(":");
  const parts = names.map((name, k) => `${name}=${units[k] / UNITS}`);
  return "mpo@" + parts.filter((_, k) => units[k] > 0).join(":");
}
