// The selected cell: in its field, close up, with its probabilities; and the small card that follows the pointer.
class Inspector {
  constructor(root, store, gallery, choose) {
    Object.assign(this, { root, store, gallery, choose });
    this.data = store.data;
    this.byImage = new Map();
    store.cells.image.forEach((image, i) => {
      if (!this.byImage.has(image)) this.byImage.set(image, []);
      this.byImage.get(image).push(i);
    });
    this.show(-1);
  }

  static make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  show(i) {
    this.current = i;
    const make = Inspector.make;
    if (i < 0) {
      this.root.replaceChildren(make("p", "empty", "Select a cell to see it in its field."));
      return;
    }
    const c = this.store.cells, image = this.data.images[c.image[i]], cls = this.data.classes[c.class[i]];
    const title = make("h3", "", image.name);
    const where = make("p", "where", `Cell ${c.cell[i]} of ${this.byImage.get(c.image[i]).length} in this field · ${cls.name}`);
    const close = make("div", "close");
    const crop = make("div", "crop");
    crop.style.width = crop.style.height = "128px";
    this.gallery.paint(crop, i, 128);
    close.append(crop, this.bars(i, 8));
    const facts = make("p", "facts2", this.facts(i));
    this.root.replaceChildren(title, where, this.view(i, image), close, facts);
  }

  facts(i) {
    const c = this.store.cells, machine = this.data.classes[c.machine[i]].name, parts = [];
    if (c.machine[i] !== c.class[i]) parts.push(`The machine said ${machine}.`);
    if (c.reviewed[i]) parts.push(`Reviewed${c.reviewer[i] ? " by " + c.reviewer[i] : ""}.`);
    if (c.label[i]) parts.push(`The data set says ${c.label[i]}.`);
    if (c.distance[i] !== null && c.distance[i] > 1) parts.push("Unlike the training data.");
    return parts.join(" ");
  }

  // The field with all boxes, the selected one bright; the pictures of fields may be left out of large reports.
  view(i, image) {
    const make = Inspector.make, view = make("div", "view");
    if (!image.uri) { view.append(make("p", "empty", "The picture of this field is not in the report.")); view.style.lineHeight = "1.5"; return view; }
    const picture = make("img");
    picture.src = image.uri;
    picture.alt = `Field ${image.name}`;
    const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", `0 0 ${image.size[0]} ${image.size[1]}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const others = this.byImage.get(this.store.cells.image[i]).filter((k) => k !== i).slice(0, 300);
    const rect = (k, className) => {
      const [x1, y1, x2, y2] = this.store.cells.box[k], r = document.createElementNS(ns, "rect");
      Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: className }).forEach(([a, v]) => r.setAttribute(a, v));
      if (className !== "halo") r.style.stroke = this.data.classes[this.store.cells.class[k]].color;
      r.addEventListener("click", () => this.choose(k));
      return r;
    };
    svg.append(...others.map((k) => rect(k, "")), rect(i, "halo"), rect(i, "on"));
    view.append(picture, svg);
    return view;
  }

  bars(i, most) {
    const list = Inspector.make("ul", "bars"), p = this.store.cells.p[i];
    const order = p.map((_, k) => k).filter((k) => p[k] !== null).sort((a, b) => p[b] - p[a]).slice(0, most);
    for (const k of order) {
      const line = Inspector.make("li"), name = this.data.probabilities[k], cls = this.data.classes.find((x) => x.name === name);
      const bar = Inspector.make("i");
      bar.style.width = Math.max(1, 100 * p[k]) + "%";
      bar.style.background = cls ? cls.color : "#999";
      line.append(Inspector.make("span", "", name), Inspector.make("em", "", (100 * p[k]).toFixed(1) + " %"), bar);
      list.append(line);
    }
    return list;
  }

  hover(card, i, event) {
    if (i < 0) { card.hidden = true; return; }
    const c = this.store.cells;
    card.replaceChildren(Inspector.make("p", "", `${this.data.images[c.image[i]].name} · cell ${c.cell[i]}`), this.bars(i, 5));
    card.hidden = false;
    const box = card.getBoundingClientRect();
    card.style.left = Math.min(event.clientX + 16, innerWidth - box.width - 8) + "px";
    card.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18) + "px";
  }
}
