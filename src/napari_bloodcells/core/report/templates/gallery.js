// All cells by class, drawn only where they are in view: 5,000 cells are some hundred elements at a time.
class Gallery {
  constructor(root, store, hooks) {
    Object.assign(this, { root, store, hooks });
    this.data = store.data;
    this.size = Math.max(64, Math.min(this.data.tile, 104));
    this.gap = 8;
    this.sort = "low";
    this.unreviewedOnly = false;
    this.selected = new Set();
    this.focused = -1;
    this.anchor = -1;
    this.urls = new Map();
    this.groups = this.data.classes.map((cls, index) => this.makeGroup(cls, index));
    this.resort();
    this.layout();
    addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(root);
  }

  makeGroup(cls, index) {
    const group = document.createElement("div");
    group.className = "group";
    group.dataset.drop = index;
    const id = "group-" + index;
    group.innerHTML = '<h3><i class="swatch"></i><span></span><small></small></h3><div class="grid" role="listbox" aria-multiselectable="true"></div>';
    group.querySelector("h3").id = id;
    group.querySelector("h3 span").textContent = cls.name;
    group.querySelector(".swatch").style.background = cls.color;
    const grid = group.querySelector(".grid");
    grid.setAttribute("aria-labelledby", id);
    this.root.append(group);
    return { index, group, grid, label: group.querySelector("small"), order: [], tiles: new Map() };
  }

  resort() {
    const c = this.store.cells;
    const by = { low: (a, b) => (c.confidence[a] ?? 0) - (c.confidence[b] ?? 0) || a - b,
      high: (a, b) => (c.confidence[b] ?? 0) - (c.confidence[a] ?? 0) || a - b, field: (a, b) => a - b };
    this.sorted = Array.from({ length: this.store.n }, (_, i) => i).sort(by[this.sort]);
    this.regroup();
  }

  regroup() {
    for (const group of this.groups) group.order = [];
    const c = this.store.cells, counts = this.store.counts();
    for (const i of this.sorted) {
      if (!this.unreviewedOnly || !c.reviewed[i]) this.groups[c.class[i]].order.push(i);
    }
    for (const group of this.groups) {
      group.place = new Map(group.order.map((i, k) => [i, k]));
      const hidden = counts[group.index] - group.order.length;
      group.label.textContent = counts[group.index] + (hidden ? ` (${hidden} reviewed, hidden)` : "");
      group.group.hidden = !counts[group.index] && this.data.classes[group.index].kind === "other";
    }
  }

  layout() {
    const step = this.size + this.gap;
    this.columns = Math.max(1, Math.floor((this.root.clientWidth + this.gap) / step));
    for (const group of this.groups) {
      group.grid.style.height = Math.ceil(group.order.length / this.columns) * (step + 4) + "px";
    }
    this.draw();
  }

  refresh() { this.regroup(); this.layout(); }

  draw() {
    const line = this.size + this.gap + 4, reach = innerHeight * 0.6;
    for (const group of this.groups) {
      const top = group.grid.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor((-reach - top) / line)) * this.columns;
      const last = Math.min(group.order.length, Math.ceil((innerHeight + reach - top) / line) * this.columns);
      const wanted = new Set(group.order.slice(first, Math.max(first, last)));
      const entry = group.place.has(this.focused) ? this.focused : group.order[0]; // where Tab comes in
      if (entry !== undefined) wanted.add(entry);
      for (const [i, tile] of group.tiles) if (!wanted.has(i)) { tile.remove(); group.tiles.delete(i); }
      for (const i of wanted) {
        let tile = group.tiles.get(i);
        if (!tile) { tile = this.makeTile(i); group.tiles.set(i, tile); group.grid.append(tile); }
        const k = group.place.get(i);
        tile.style.left = (k % this.columns) * (this.size + this.gap) + "px";
        tile.style.top = Math.floor(k / this.columns) * line + "px";
        this.dress(tile, i, k, group.order.length);
        tile.tabIndex = i === entry ? 0 : -1;
      }
    }
  }

  makeTile(i) {
    const tile = document.createElement("div");
    tile.className = "tile";
    tile.dataset.i = i;
    tile.id = "cell-" + i;
    tile.setAttribute("role", "option");
    tile.style.width = tile.style.height = this.size + "px";
    this.paint(tile, i, this.size);
    return tile;
  }

  dress(tile, i, k, total) {
    const c = this.store.cells, cls = this.data.classes[c.class[i]], changed = c.class[i] !== c.machine[i];
    tile.style.setProperty("--c", cls.color);
    tile.setAttribute("aria-selected", this.selected.has(i));
    tile.setAttribute("aria-setsize", total);
    tile.setAttribute("aria-posinset", k + 1);
    const sure = c.confidence[i] === null ? "" : Math.round(100 * c.confidence[i]) + " %";
    const was = changed ? `, the machine said ${this.data.classes[c.machine[i]].name}` : "";
    tile.setAttribute("aria-label", `Cell ${c.cell[i]} of ${this.data.images[c.image[i]].name}, ${cls.name}, confidence ${sure}${was}${c.reviewed[i] ? ", reviewed" : ""}`);
    const mark = changed ? "✎" : c.reviewed[i] ? "✓" : "";
    const state = sure + mark;
    if (tile.dataset.state !== state) {
      tile.dataset.state = state;
      tile.replaceChildren();
      for (const [name, words] of [["sure", sure], ["mark", mark]]) {
        if (words) { const b = document.createElement("span"); b.className = name; b.textContent = words; b.ariaHidden = "true"; tile.append(b); }
      }
    }
  }

  // Put the picture of cell i on an element of `size` pixels; sheets are decoded when first needed.
  paint(element, i, size, unit = "px") {
    const { perSheet, sheetColumns, sheets } = this.data;
    const sheet = Math.floor(i / perSheet), place = i % perSheet;
    if (!sheets[sheet]) { element.classList.add("blank"); return; }
    element.classList.remove("blank");
    element.style.backgroundImage = `url(${this.sheetUrl(sheet)})`;
    element.style.backgroundSize = `${sheetColumns * size}${unit} auto`;
    element.style.backgroundPosition = `${-(place % sheetColumns) * size}${unit} ${-Math.floor(place / sheetColumns) * size}${unit}`;
  }

  sheetUrl(sheet) {
    if (!this.urls.has(sheet)) {
      const [head, body] = this.data.sheets[sheet].split(",");
      const bytes = Uint8Array.from(atob(body), (ch) => ch.charCodeAt(0));
      this.urls.set(sheet, URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(";")[0] })));
    }
    return this.urls.get(sheet);
  }

  groupOf(i) { return this.groups[this.store.cells.class[i]]; }

  select(i, mode = "one") {
    if (mode === "toggle" && this.selected.has(i)) this.selected.delete(i);
    else if (mode === "range" && this.groupOf(i).place.has(this.anchor)) {
      const { place, order } = this.groupOf(i);
      const [a, b] = [place.get(this.anchor), place.get(i)].sort((x, y) => x - y);
      order.slice(a, b + 1).forEach((k) => this.selected.add(k));
    } else {
      if (mode === "one") this.selected.clear();
      this.selected.add(i);
    }
    if (mode !== "range") this.anchor = i;
    this.focus(i);
  }

  clear() { this.selected.clear(); this.draw(); this.hooks.selected(-1); }

  focus(i) {
    this.focused = i;
    this.draw();
    const tile = this.groupOf(i).tiles.get(i);
    if (!tile) return;
    const box = tile.getBoundingClientRect(), bar = this.hooks.barHeight();
    if (box.top < bar + 8) scrollBy(0, box.top - bar - 40);
    else if (box.bottom > innerHeight - 8) scrollBy(0, box.bottom - innerHeight + 40);
    tile.focus({ preventScroll: true });
    this.hooks.selected(i);
  }

  // The neighbor in a direction, over the borders of the groups.
  neighbor(i, key) {
    const group = this.groupOf(i), k = group.place.get(i);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, Home: -k, End: group.order.length - 1 - k }[key];
    const target = k + step;
    if (target >= 0 && target < group.order.length) return group.order[target];
    const others = this.groups.filter((g) => g.order.length);
    const next = others[others.indexOf(group) + Math.sign(step)];
    if (!next) return i;
    if (step > 0) return next.order[step === 1 ? 0 : Math.min(k % this.columns, next.order.length - 1)];
    const tail = next.order.length - 1;
    return next.order[step === -1 ? tail : Math.min(tail, tail - (tail % this.columns) + (k % this.columns))];
  }

  // The cell that takes the focus once `gone` have left their group: the one that follows, so that work flows on.
  following(gone) {
    const leaving = new Set(gone), group = this.groupOf(gone[0]);
    const start = group.place.get(gone[0]) ?? 0;
    return group.order.slice(start).find((i) => !leaving.has(i)) ?? group.order.slice(0, start).reverse().find((i) => !leaving.has(i)) ?? gone[0];
  }
}
