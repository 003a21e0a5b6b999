// The classes of all cells, every change with its undo, autosave in this browser, and cells.csv.
class Store {
  constructor(data) {
    this.data = data;
    this.cells = data.cells;
    this.n = data.cells.cell.length;
    this.original = { class: [...this.cells.class], reviewed: [...this.cells.reviewed],
      reviewer: [...this.cells.reviewer], time: [...this.cells.time] };
    this.done = [];
    this.undone = [];
    this.listeners = [];
    this.reviewer = "";
    this.key = "napari-bloodcells:" + data.id;
  }

  onChange(listener) { this.listeners.push(listener); }
  className(index) { return this.data.classes[index].name; }
  classNamed(name) { return this.data.classes.findIndex((c) => c.name === name); }

  snapshot(i) {
    const c = this.cells;
    return [c.class[i], c.reviewed[i], c.reviewer[i], c.time[i]];
  }

  put(i, [cls, reviewed, reviewer, time]) {
    const c = this.cells;
    c.class[i] = cls; c.reviewed[i] = reviewed; c.reviewer[i] = reviewer; c.time[i] = time;
  }

  // One step of the reviewer: all of `indices` become class `cls`, or are confirmed as they are (cls null).
  assign(indices, cls) {
    const time = new Date().toISOString().slice(0, 19) + "Z";
    const step = indices.map((i) => ({ i, before: this.snapshot(i),
      after: [cls === null ? this.cells.class[i] : cls, 1, this.reviewer, time] }));
    if (!step.length) return;
    step.forEach(({ i, after }) => this.put(i, after));
    this.done.push(step);
    this.undone = [];
    this.changed(indices);
  }

  undo() { this.travel(this.done, this.undone, "before"); }
  redo() { this.travel(this.undone, this.done, "after"); }

  travel(from, to, side) {
    const step = from.pop();
    if (!step) return;
    (side === "before" ? [...step].reverse() : step).forEach((change) => this.put(change.i, change[side]));
    to.push(step);
    this.changed(step.map((change) => change.i));
  }

  changed(indices) {
    this.save();
    this.listeners.forEach((listener) => listener(indices));
  }

  isChanged(i) {
    const o = this.original;
    return this.cells.class[i] !== o.class[i] || this.cells.reviewed[i] !== o.reviewed[i];
  }

  baked(i) { const o = this.original; return [o.class[i], o.reviewed[i], o.reviewer[i], o.time[i]]; }

  changes() { return Array.from({ length: this.n }, (_, i) => i).filter((i) => this.isChanged(i)); }

  // Autosave: a closed tab or a crash loses nothing.  A browser may refuse storage to files; then there is none.
  // Beside each change stands what the page said of the cell, which tells a change to this page from one that is older.
  save() {
    try {
      const kept = this.changes().map((i) => [i, ...this.snapshot(i), ...this.baked(i)]);
      if (kept.length) localStorage.setItem(this.key, JSON.stringify({ time: Date.now(), kept }));
      else localStorage.removeItem(this.key);
    } catch { /* storage refused */ }
  }

  // What the page was made with since (report --corrections) is kept, unless the change is newer.
  restore() {
    try {
      const saved = JSON.parse(localStorage.getItem(this.key) || "null");
      if (!saved || !Array.isArray(saved.kept)) return 0;
      const sound = saved.kept.filter(([i, cls]) => i >= 0 && i < this.n && cls >= 0 && cls < this.data.classes.length);
      const same = (a, b) => String(a) === String(b), moment = (change) => Date.parse(change[3]) || 0;
      const lost = ({ before, after, baked }) => !same(before, after) &&
        (!before[1] || same(before, baked) || moment(after) > moment(before));
      const step = sound.map(([i, ...kept]) => ({ i, before: this.snapshot(i), after: kept.slice(0, 4), baked: kept.slice(4) }))
        .filter(lost);
      if (!step.length) { localStorage.removeItem(this.key); return 0; }
      step.forEach(({ i, after }) => this.put(i, after));
      this.done.push(step);
      this.listeners.forEach((listener) => listener(step.map((change) => change.i)));
      return step.length;
    } catch { return 0; }
  }

  counts() {
    const counts = this.data.classes.map(() => 0);
    for (const cls of this.cells.class) counts[cls] += 1;
    return counts;
  }

  // The table of core/counting/cellstable.py, with the same columns, numbers and neutralized texts.
  csv() {
    const c = this.cells, names = this.data.classes.map((k) => k.name);
    const number = (v) => v === null ? "" : Number.isInteger(v) ? v + ".0" : String(v);
    const pixel = (v) => v === null ? "" : v.toFixed(2).replace(/\.?0+$/, "").replace(/^-0$/, "0");
    const text = (s) => {
      const safe = /^'*[=+\-@\t\r]/.test(s) ? "'" + s : s;
      return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
    };
    const field = {
      image: (i) => text(this.data.images[c.image[i]].name), cell: (i) => String(c.cell[i]),
      class: (i) => text(names[c.class[i]]), confidence: (i) => number(c.confidence[i]),
      box_source: (i) => text(c.source[i]), distance: (i) => number(c.distance[i]), label: (i) => text(c.label[i]),
      machine_class: (i) => text(names[c.machine[i]]), reviewed: (i) => String(c.reviewed[i]),
      reviewer: (i) => text(c.reviewer[i]), time: (i) => text(c.time[i]),
    };
    ["x_min", "y_min", "x_max", "y_max"].forEach((name, k) => { field[name] = (i) => pixel(c.box[i][k]); });
    this.data.probabilities.forEach((name, k) => { field["p_" + name] = (i) => number(c.p[i][k]); });
    const columns = this.data.columns;
    const lines = [columns.map(text).join(",")];
    for (let i = 0; i < this.n; i++) lines.push(columns.map((name) => field[name](i)).join(","));
    return lines.join("\n") + "\n";
  }
}
