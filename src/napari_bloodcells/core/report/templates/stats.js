// The statistics of core/statistics/ (intervals.py, reference.py, remarks.py) once more, for the page: tests hold the two equal.
const Stats = (() => {
  const LANCZOS = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];

  function lnGamma(x) {
    let sum = LANCZOS[0];
    for (let i = 1; i < 9; i++) sum += LANCZOS[i] / (x - 1 + i);
    const t = x + 6.5;
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
  }

  // Continued fraction of the incomplete beta function (Lentz), converging where x < (a + 1) / (a + b + 2).
  function fraction(a, b, x) {
    const tiny = 1e-300;
    let c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (Math.abs(d) < tiny ? tiny : d);
    let h = d;
    for (let m = 1; m <= 500; m++) {
      for (const step of [m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
        -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))]) {
        d = 1 + step * d; d = 1 / (Math.abs(d) < tiny ? tiny : d);
        c = 1 + step / c; if (Math.abs(c) < tiny) c = tiny;
        h *= d * c;
      }
      if (Math.abs(d * c - 1) < 1e-15) break;
    }
    return h;
  }

  function incompleteBeta(a, b, x) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const front = Math.exp(lnGamma(a + b) - lnGamma(a) - lnGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * fraction(a, b, x) / a : 1 - front * fraction(b, a, 1 - x) / b;
  }

  function inverseBeta(a, b, p) {
    let low = 0, high = 1;
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (incompleteBeta(a, b, middle) < p) low = middle; else high = middle;
    }
    return (low + high) / 2;
  }

  // Exact binomial 95 % interval of k of n, as fractions; 0 to 1 where nothing was counted.
  function clopperPearson(k, n) {
    return [k > 0 ? inverseBeta(k, n - k + 1, 0.025) : 0, k < n ? inverseBeta(k + 1, n - k, 0.975) : 1];
  }

  // Simultaneous interval of one class of a differential; b is the quantile of core/statistics/intervals.py.
  function goodman(k, n, b) {
    if (!n) return [0, 1];
    const half = Math.sqrt(b * (b + 4 * k * (n - k) / n)), middle = b + 2 * k, whole = 2 * (n + b);
    return [Math.max(0, (middle - half) / whole), Math.min(1, (middle + half) / whole)];
  }

  // Whole percents that add up to 100, by the largest remainder; ties to the larger count, then to the first.
  function wholePercents(counts) {
    const n = counts.reduce((a, b) => a + b, 0);
    if (!n) return counts.map(() => 0);
    const whole = counts.map((k) => Math.floor(100 * k / n));
    const rest = counts.map((k) => (100 * k) % n);
    const order = counts.map((_, i) => i).sort((i, j) => rest[j] - rest[i] || counts[j] - counts[i] || i - j);
    const missing = 100 - whole.reduce((a, b) => a + b, 0);
    order.slice(0, missing).forEach((i) => { whole[i] += 1; });
    return whole;
  }

  // [code, words]: high or low only where the whole interval lies outside of the limits.
  function flag(value, low, high, limits) {
    if (!limits || !Number.isFinite(value)) return ["", ""];
    let least, most;  // to nine places: 9.9 x 5 / 110 is 0.45, and not above it by the error of a product in binary
    [value, low, high, least, most] = [value, low, high, ...limits].map((v) => Math.round(v * 1e9) / 1e9);
    if (low > most) return ["H", "high"];
    if (high < least) return ["L", "low"];
    if (value > most) return ["(H)", "borderline high"];
    if (value < least) return ["(L)", "borderline low"];
    return ["", "within range"];
  }

  // What the interval has to do with a flag.
  function meaning(code) {
    if (!code) return "";
    if (code.startsWith("(")) return "the 95 % interval reaches into the reference range, so it may be chance";
    return `the whole 95 % interval lies ${code === "H" ? "above" : "below"} the reference range`;
  }

  function correctedWbc(wbc, nrbcPer100) {
    return Number.isFinite(nrbcPer100) && nrbcPer100 >= 5 ? wbc * 100 / (100 + nrbcPer100) : wbc;
  }

  // Python's rounding of a printed figure: a tie goes to the even digit (12.25 is 12.2), where toFixed goes up.
  function fixed(value, digits) {
    const doubled = value * 2 ** (digits + 1), down = Math.floor(value * 10 ** digits);
    const tie = Number.isInteger(doubled) && doubled % 2 !== 0;
    return (tie ? (down % 2 === 0 ? down : down + 1) / 10 ** digits : value).toFixed(digits);
  }

  // The remarks that hang on the classes of the cells (count_remarks of core/statistics/remarks.py).
  function countRemarks(total, unidentified, [least, wanted], many) {
    const said = [], plural = (n, one, several) => `${n} ${n === 1 ? one : several}`;
    const were = plural(total, "white cell was", "white cells were");
    if (!total) said.push("No white cell was classified.");
    else if (total < least) said.push(`Only ${were} classified: fewer than ${least}; count more fields before you report.`);
    else if (total < wanted) said.push(`${were} classified: fewer than the ${wanted} that are wanted.`);
    if (unidentified && unidentified > many * (total + unidentified)) {
      const share = fixed(100 * unidentified / (total + unidentified), 0);
      said.push(`${plural(unidentified, "cell", "cells")} (${share} %) ${unidentified === 1 ? "is" : "are"} unidentified: ` +
        "perhaps abnormal; look at each before you report.");
    }
    return said;
  }

  return { clopperPearson, goodman, wholePercents, flag, meaning, correctedWbc, fixed, countRemarks };
})();
