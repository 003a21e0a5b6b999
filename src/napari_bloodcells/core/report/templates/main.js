// Ties the page together: table, chips, keys, dragging, export.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const store = new Store(data);
  const toolbar = byId("toolbar"), status = byId("status"), card = byId("hover");
  let inspector = null;
  const gallery = new Gallery(byId("gallery"), store, {
    selected: (i) => { if (inspector) inspector.show(i); },
    barHeight: () => (getComputedStyle(toolbar).position === "sticky" ? toolbar.offsetHeight : 0),
  });
  inspector = new Inspector(byId("inspector"), store, gallery, (i) => gallery.select(i));
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  // ---- table -------------------------------------------------------------------------------------------------
  const kinds = data.classes.map((c) => c.kind);
  function figures() {
    const counts = store.counts(), white = kinds.map((k, i) => (k === "wbc" ? i : -1)).filter((i) => i >= 0);
    const total = white.reduce((sum, i) => sum + counts[i], 0), whole = Stats.wholePercents(white.map((i) => counts[i]));
    const nrbc = kinds.reduce((sum, k, i) => sum + (k === "nrbc" ? counts[i] : 0), 0);
    const wbc = data.wbc === null ? null : Stats.correctedWbc(data.wbc, total ? 100 * nrbc / total : NaN);
    const rows = white.map((i, k) => {
      const [low, high] = data.goodman ? Stats.goodman(counts[i], total, data.goodman) : Stats.clopperPearson(counts[i], total);
      const percent = total ? 100 * counts[i] / total : NaN;
      const name = data.classes[i].name;
      const row = { name, count: counts[i], percent, whole: whole[k], low: 100 * low, high: 100 * high };
      row.flag = Stats.flag(percent, row.low, row.high, data.limits[name]);
      row.absolute = wbc === null || !total ? null : [percent, row.low, row.high].map((v) => wbc * v / 100);
      row.absoluteFlag = row.absolute ? Stats.flag(...row.absolute, data.absoluteLimits[name]) : ["", ""];
      return row;
    });
    return { counts, total, nrbc, wbc, rows };
  }

  function writeFlag(cell, [code, words]) {
    const span = cell.querySelector(".flag");
    span.dataset.code = code;
    span.title = Stats.meaning(code);
    span.textContent = words || "–";
  }

  function updateTable() {
    const now = figures(), dash = (v, d) => (Number.isFinite(v) ? Stats.fixed(v, d) : "–");
    for (const row of now.rows) {
      const line = document.querySelector(`#differential tr[data-class="${CSS.escape(row.name)}"]`);
      const part = (name) => line.querySelector(`[data-f="${name}"]`);
      part("count").textContent = row.count;
      part("whole").textContent = now.total ? row.whole : "–";
      part("percent").textContent = dash(row.percent, 1);
      part("interval").textContent = now.total ? `${dash(row.low, 1)} – ${dash(row.high, 1)}` : "–";
      part("fill").style.width = (now.total ? row.percent : 0) + "%";
      part("whisker").style.left = row.low + "%";
      part("whisker").style.width = row.high - row.low + "%";
      writeFlag(part("flag"), row.flag);
      const second = document.querySelector(`#absolute tr[data-class="${CSS.escape(row.name)}"]`);
      if (second) {
        const [value, low, high] = row.absolute ?? [NaN, NaN, NaN];
        second.querySelector('[data-f="value"]').textContent = dash(value, 2);
        second.querySelector('[data-f="interval"]').textContent = row.absolute ? `${dash(low, 2)} – ${dash(high, 2)}` : "–";
        writeFlag(second.querySelector('[data-f="flag"]'), row.absoluteFlag);
      }
    }
    document.querySelector("[data-total]").textContent = now.total;
    document.querySelector("[data-whole-total]").textContent = now.total ? 100 : "–";
    byId("fact-total").textContent = now.total;
    const reviewers = [...new Set(store.cells.reviewer.filter((name, i) => name && store.cells.reviewed[i]))].sort();
    byId("fact-reviewed").textContent = `${store.cells.reviewed.reduce((a, b) => a + b, 0)} of ${plural(store.n, "cell")}` +
      (reviewers.length ? ` (${reviewers.join(", ")})` : "");
    document.querySelectorAll('[data-apart]:not([data-kind="found"])').forEach((part) => {  // those are no cells of the table
      const i = store.classNamed(part.dataset.apart), rate = part.querySelector("small");
      part.querySelector("b").textContent = now.counts[i] ?? 0;
      if (part.dataset.kind === "nrbc" && rate) rate.textContent = ` ${dash(100 * now.counts[i] / now.total, 1)} per 100 WBC`;
    });
    if (byId("apart-wbc") && now.wbc !== null) {
      byId("apart-wbc").querySelector("b").textContent = Stats.fixed(now.wbc, 2);
      byId("wbc-note").hidden = now.wbc === data.wbc;
    }
    updateRemarks(now);
    const stale = store.done.length > 0;
    document.querySelectorAll(".corrected").forEach((cell) => cell.classList.toggle("stale", stale));
    if (byId("stale")) byId("stale").hidden = !stale;
    data.classes.forEach((_, i) => { byId("chip-" + i).querySelector("b").textContent = now.counts[i]; });
    byId("undo").disabled = !store.done.length;
    byId("redo").disabled = !store.undone.length;
    return now;
  }

  // Remarks that hang on the classes are made anew; those of the photographs stay as they are.
  function updateRemarks(now) {
    const list = byId("remarks").querySelector("ul"), unidentified = now.counts[store.classNamed("unidentified")];
    list.querySelectorAll("[data-count]").forEach((item) => item.remove());
    const made = Stats.countRemarks(now.total, unidentified, data.wanted, data.manyUnidentified).map((text) => {
      const item = Inspector.make("li", "", text);
      item.dataset.count = "";
      return item;
    });
    list.prepend(...made);
    byId("remarks").hidden = !list.childElementCount;
  }

  // ---- classes as buttons, which cells can be dragged onto ---------------------------------------------------
  data.classes.forEach((cls, i) => {
    const chip = Inspector.make("button", "chip");
    chip.type = "button";
    chip.id = "chip-" + i;
    chip.dataset.drop = i;
    const swatch = Inspector.make("i", "swatch");
    swatch.style.background = cls.color;
    chip.append(swatch, Inspector.make("span", "", cls.name), Inspector.make("b"));
    if (cls.key) { chip.append(Inspector.make("kbd", "", cls.key)); chip.setAttribute("aria-keyshortcuts", cls.key); }
    chip.addEventListener("click", () => assign(i));
    byId("chips").append(chip);
  });

  function assign(cls) {
    const chosen = [...gallery.selected];
    if (!chosen.length) { status.textContent = "No cell is selected."; return; }
    const next = gallery.following(chosen.sort((a, b) => (gallery.groupOf(a).place.get(a) ?? 0) - (gallery.groupOf(b).place.get(b) ?? 0)));
    store.assign(chosen, cls);
    const name = cls === null ? "confirmed" : "now " + data.classes[cls].name;
    gallery.select(next);
    const row = figures().rows.find((r) => cls !== null && r.name === data.classes[cls].name);
    status.textContent = `${plural(chosen.length, "cell")} ${name}.` + (row ? ` ${row.name}: ${row.count} of ${figures().total}, ${Stats.fixed(row.percent, 1)} %.` : "");
  }

  function travel(direction) {
    const step = direction === "undo" ? store.done.at(-1) : store.undone.at(-1);
    if (!step) return;
    store[direction]();
    status.textContent = direction === "undo" ? "Undone." : "Done again.";
    gallery.selected = new Set(step.map((change) => change.i));
    if (gallery.groupOf(step[0].i).place.has(step[0].i)) gallery.focus(step[0].i);
  }

  // ---- keys ----------------------------------------------------------------------------------------------------
  const keys = new Map(data.classes.map((cls, i) => [cls.key, i]).filter(([key]) => key));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea")) return;
    const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    if (control && !event.altKey && (key === "z" || key === "y")) {
      event.preventDefault();
      travel(key === "y" || event.shiftKey ? "redo" : "undo");
      return;
    }
    if (control || event.altKey) return;
    const onTile = event.target.closest(".tile");
    if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") {
      if (!onTile) return;
      event.preventDefault();
      gallery.select(gallery.neighbor(gallery.focused, event.key), event.shiftKey ? "range" : "one");
    } else if (event.key === "Escape") gallery.clear();
    else if ((event.key === " " || event.key === "Enter") && onTile) {
      event.preventDefault();
      if (!gallery.selected.size) gallery.select(Number(onTile.dataset.i));
      assign(null);
    } else if (event.key === "Delete") assign(store.classNamed("not a WBC"));
    else if (keys.has(key) && gallery.selected.size) { event.preventDefault(); assign(keys.get(key)); }
  });

  // ---- pointer: click selects, moving drags ------------------------------------------------------------------
  let drag = null;
  const root = byId("gallery");
  root.addEventListener("focusin", (event) => {
    const tile = event.target.closest(".tile");
    if (tile && gallery.focused < 0) gallery.select(Number(tile.dataset.i));
  });
  root.addEventListener("pointerdown", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || event.button) return;
    drag = { i: Number(tile.dataset.i), x: event.clientX, y: event.clientY, ghost: null, target: null,
      mode: event.ctrlKey || event.metaKey ? "toggle" : event.shiftKey ? "range" : "one" };
    event.preventDefault();
  });
  addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 6) startDrag();
    if (!drag.ghost) return;
    drag.ghost.style.left = event.clientX + 6 + "px";
    drag.ghost.style.top = event.clientY + 6 + "px";
    const target = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-drop]") ?? null;
    if (target !== drag.target) {
      drag.target?.classList.remove("drop");
      target?.classList.add("drop");
      drag.target = target;
    }
  });
  addEventListener("pointerup", () => endDrag(true));
  addEventListener("pointercancel", () => endDrag(false));

  function startDrag() {
    if (!gallery.selected.has(drag.i)) gallery.select(drag.i);
    card.hidden = true;
    drag.ghost = Inspector.make("div", "ghost tile");
    drag.ghost.style.width = drag.ghost.style.height = "64px";
    gallery.paint(drag.ghost, drag.i, 64);
    if (gallery.selected.size > 1) drag.ghost.append(Inspector.make("b", "", gallery.selected.size));
    document.body.append(drag.ghost);
  }

  function endDrag(dropped) {
    if (!drag) return;
    const { i, mode, ghost, target } = drag;
    drag = null;
    ghost?.remove();
    target?.classList.remove("drop");
    if (!dropped) return;
    if (!ghost) gallery.select(i, mode);
    else if (target && Number(target.dataset.drop) !== store.cells.class[i]) assign(Number(target.dataset.drop));
  }

  root.addEventListener("pointerover", (event) => {
    const tile = event.target.closest(".tile");
    if (!drag) inspector.hover(card, tile ? Number(tile.dataset.i) : -1, event);
  });
  root.addEventListener("pointerleave", () => { card.hidden = true; });
  addEventListener("scroll", () => { card.hidden = true; }, { passive: true });

  // ---- toolbar -------------------------------------------------------------------------------------------------
  byId("sort").addEventListener("change", (event) => { gallery.sort = event.target.value; gallery.resort(); gallery.layout(); });
  byId("unreviewed").addEventListener("change", (event) => { gallery.unreviewedOnly = event.target.checked; gallery.refresh(); });
  addEventListener("beforeprint", () => { printed(); });
  byId("reviewer").addEventListener("input", (event) => { store.reviewer = event.target.value.trim(); });
  byId("undo").addEventListener("click", () => travel("undo"));
  byId("redo").addEventListener("click", () => travel("redo"));
  byId("export").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([store.csv()], { type: "text/csv" }));
    link.download = "cells.csv";
    link.click();
    status.textContent = `cells.csv written with ${plural(store.changes().length, "reviewed cell")}.`;
  });
  byId("theme").addEventListener("click", () => {
    const html = document.documentElement;
    const dark = html.dataset.theme ? html.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    html.dataset.theme = dark ? "light" : "dark";
  });

  // ---- on paper: the first cells of each class -----------------------------------------------------------------
  function printed() {
    const most = 22, box = byId("printed");
    box.replaceChildren(...(store.n ? [Inspector.make("h2", "", "Cells")] : []));
    for (const group of gallery.groups) {
      const all = gallery.sorted.filter((i) => store.cells.class[i] === group.index);
      if (!all.length) continue;
      const part = Inspector.make("div", "printgroup"), strip = Inspector.make("div", "strip");
      const name = data.classes[group.index].name;
      part.append(Inspector.make("h3", "", all.length > most ? `${name}: the ${most} least sure of ${all.length}` : `${name}: ${all.length}`), strip);
      const byDoubt = [...all].sort((a, b) => (store.cells.confidence[a] ?? 0) - (store.cells.confidence[b] ?? 0));
      for (const i of byDoubt.slice(0, most)) {
        const picture = Inspector.make("i");
        picture.style.setProperty("--c", data.classes[group.index].color);
        gallery.paint(picture, i, 15, "mm");
        strip.append(picture);
      }
      box.append(part);
    }
  }

  store.onChange(() => { gallery.refresh(); updateTable(); if (inspector.current >= 0) inspector.show(inspector.current); });
  const back = store.restore();
  if (back) {
    const note = byId("restored"), away = Inspector.make("button", "", "Discard them");
    away.type = "button";
    away.addEventListener("click", () => { store.undo(); note.hidden = true; });
    note.append(`${plural(back, "correction")} from your last visit ${back === 1 ? "was" : "were"} restored. `, away);
    note.hidden = false;
  }
  updateTable();
  printed();
  window.bloodcells = { store, gallery, figures, Stats };
})();
