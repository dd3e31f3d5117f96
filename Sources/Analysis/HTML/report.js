"use strict";
// Draws what ReportPage.swift embeds. Text from the dump reaches the page through textContent only.
(() => {
  const byID = (id) => document.getElementById(id);
  const data = (id) => { const node = byID(id); return node ? JSON.parse(node.textContent) : null; };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const count = (n) => n.toLocaleString("en-US");
  const buffers = (n) => count(n) + (n === 1 ? " buffer" : " buffers");
  const bytes = (n) => {
    for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
      if (n >= size * (unit === "GiB" ? 10 : 1)) return (n / size).toFixed(1) + " " + unit;
    }
    return n + " B";
  };
  const percent = (part, whole) => (whole > 0 ? (100 * part / whole).toFixed(1) : "0.0") + " %";
  const make = (tag, text, className) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };

  // Tables: a group of rows is one tbody, which search hides and sorting moves.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const first = [...table.tBodies].some((body) => body.rows[0].cells[column]?.dataset.v !== undefined);
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "descending" ? "ascending" : "descending") : first ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const key = (body) => body.rows[0].cells[column];
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x.dataset.v !== undefined && y.dataset.v !== undefined) return sign * (Number(x.dataset.v) - Number(y.dataset.v));
        if (x.dataset.v !== undefined) return -1;
        if (y.dataset.v !== undefined) return 1;
        return sign * x.textContent.localeCompare(y.textContent);
      };
      table.append(...[...table.tBodies].sort(compare));
    }));
  }
  for (const field of document.querySelectorAll(".table-search")) {
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const body of field.parentElement.querySelectorAll("tbody")) {
        const text = body.textContent.toLowerCase();
        body.hidden = !words.every((word) => text.includes(word));
      }
    });
  }

  // A table that is wider than its place says which columns are out of sight, and fades where they begin.
  for (const box of document.querySelectorAll(".table-scroll")) {
    const hint = make("p", "", "scroll-hint");
    hint.hidden = true;
    box.before(hint);
    const look = () => {
      const [first, ...others] = [...box.querySelector("thead tr").cells];
      // A table of nothing has no columns.
      if (!first) return;
      const [left, right] = [first.getBoundingClientRect().right, box.getBoundingClientRect().right];
      const outside = others.filter((head) => {
        const place = head.getBoundingClientRect();
        return place.right > right + 1 || place.left < left - 1;
      });
      const names = outside.map((head) => head.textContent.trim()).filter(Boolean);
      hint.hidden = outside.length === 0;
      hint.textContent = "Scroll sideways" + (names.length > 0 ? " for: " + names.join(", ") : " for more");
      box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    };
    box.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(box);
  }

  // The map of chunks. Each chunk is drawn once, a point a page; what is in sight is copied from there, scaled.
  const map = data("map-data");
  if (map) {
    const box = byID("map"), canvas = box.querySelector("canvas"), space = byID("map-space"), detail = byID("map-detail");
    const across = Math.min(64, map.pagesPerChunk), down = Math.ceil(map.pagesPerChunk / across), gap = 6;
    const uses = [
      ["b", "--reachable", "one buffer"], ["u", "--unreachable", "one buffer, unreachable"], ["s", "--slab", "small buffers"],
      ["x", "--unreachable", "small buffers, mostly unreachable"], ["f", "--free", "free"], ["v", "--reserve", "reserve"],
    ];
    const names = { p: "small buffers, under a quarter full", q: "small buffers, under half full", r: "small buffers, over half full" };
    for (const [letter, , name] of uses) names[letter] = name;
    names.s = "small buffers, over three quarters full";
    const siteHues = [212, 28, 150, 272, 350, 52, 185, 310, 95, 240];
    const siteColour = (rank) => `hsl(${siteHues[rank % siteHues.length]} 58% ${dark.matches ? 62 : 46}%)`;
    const decode = (text) => {
      const letters = new Uint8Array(map.pagesPerChunk);
      let at = 0;
      for (const [, letter, times] of text.matchAll(/([A-Za-z.])(\d*)/g)) {
        const end = Math.min(letters.length, at + Number(times || 1));
        letters.fill(letter.charCodeAt(0), at, end);
        at = end;
      }
      return letters;
    };
    const probe = make("canvas").getContext("2d", { willReadFrequently: true });
    const rgb = (css) => {
      probe.clearRect(0, 0, 1, 1);
      probe.fillStyle = css;
      probe.fillRect(0, 0, 1, 1);
      return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const mix = (a, b, share) => a.map((part, index) => Math.round(part * share + b[index] * (1 - share)));
    let mode = "use", zoom = 1, selected = 0, palette = {}, cache = [];

    const refreshPalette = () => {
      const free = rgb(colour("--free")), slab = rgb(colour("--slab"));
      palette = { use: {}, site: {} };
      for (const [letter, name] of uses) palette.use[letter.charCodeAt(0)] = rgb(colour(name));
      [["p", 0.35], ["q", 0.55], ["r", 0.8], ["s", 1]].forEach(([letter, share]) => {
        palette.use[letter.charCodeAt(0)] = mix(slab, free, share);
      });
      palette.site[".".charCodeAt(0)] = free;
      palette.site["z".charCodeAt(0)] = rgb(colour("--muted"));
      map.sites.forEach((_, rank) => { palette.site[65 + rank] = rgb(siteColour(rank)); });
      cache = [];
    };
    const picture = (index) => {
      if (cache[index]) return cache[index];
      const tile = make("canvas");
      tile.width = across;
      tile.height = down;
      const image = new ImageData(across, down), letters = decode(map.chunks[index][mode]), colours = palette[mode];
      letters.forEach((letter, page) => {
        const [r, g, b] = colours[letter] || [128, 128, 128];
        image.data.set([r, g, b, 255], page * 4);
      });
      tile.getContext("2d").putImageData(image, 0, 0);
      return (cache[index] = tile);
    };
    const layout = () => {
      const width = box.clientWidth, tileWidth = across * zoom, tileHeight = down * zoom;
      const columns = Math.max(1, Math.floor((width - gap) / (tileWidth + gap)));
      return { width, columns, tileWidth, tileHeight, rows: Math.ceil(map.chunks.length / columns) };
    };
    const place = (index, { columns, tileWidth, tileHeight }) => ({
      x: gap + (index % columns) * (tileWidth + gap), y: gap + Math.floor(index / columns) * (tileHeight + gap),
    });
    const draw = () => {
      const view = layout(), total = gap + view.rows * (view.tileHeight + gap), height = Math.min(total, 438);
      const scale = window.devicePixelRatio || 1;
      space.style.height = total + "px";
      canvas.width = Math.round(view.width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.width = view.width + "px";
      canvas.style.height = height + "px";
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      pen.imageSmoothingEnabled = false;
      const first = Math.max(0, Math.floor((box.scrollTop - gap) / (view.tileHeight + gap))) * view.columns;
      for (let index = first; index < map.chunks.length; index++) {
        const { x, y } = place(index, view), top = y - box.scrollTop;
        if (top > height) break;
        pen.drawImage(picture(index), x, top, view.tileWidth, view.tileHeight);
        if (index === selected) {
          pen.strokeStyle = colour("--text");
          pen.lineWidth = 2;
          pen.strokeRect(x - 2, top - 2, view.tileWidth + 4, view.tileHeight + 4);
        }
      }
      byID("map-zoom").textContent = zoom + "×";
      byID("map-out").disabled = zoom === 1;
      byID("map-in").disabled = zoom === 8;
    };
    const describe = (chunk) => `Chunk ${chunk.index}${chunk.kind === "cached" ? " (cached)" : ""}: `
      + `${buffers(chunk.buffers)}, ${bytes(chunk.live)} live (${percent(chunk.live, chunk.bytes)})`
      + (map.knowsUnreachable ? `, ${bytes(chunk.unreachable)} unreachable` : "") + `, arena ${chunk.arena}, ${chunk.age} old`;
    const select = (index, show) => {
      selected = Math.max(0, Math.min(map.chunks.length - 1, index));
      byID("map-status").textContent = describe(map.chunks[selected]);
      const view = layout(), { y } = place(selected, view);
      if (y < box.scrollTop) box.scrollTop = y - gap;
      if (y + view.tileHeight > box.scrollTop + box.clientHeight) box.scrollTop = y + view.tileHeight + gap - box.clientHeight;
      if (show || !detail.hidden) showDetail();
      draw();
    };
    const showDetail = () => {
      const chunk = map.chunks[selected], large = make("canvas"), use = decode(chunk.use), site = decode(chunk.site);
      large.width = across * 8;
      large.height = down * 8;
      const pen = large.getContext("2d");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(picture(selected), 0, 0, large.width, large.height);
      const facts = make("dl", undefined, "facts"), hover = make("p", "Point at a page to see what it is.", "hint");
      const fact = (name, value) => facts.append(make("dt", name), make("dd", value));
      fact("chunk", `${chunk.index}${chunk.kind === "cached" ? ", kept for later" : ""}`);
      fact("arena", chunk.arena);
      fact("mapped", `${bytes(chunk.bytes)}, ${chunk.age} ago`);
      fact("live", `${buffers(chunk.buffers)}, ${bytes(chunk.live)} (${percent(chunk.live, chunk.bytes)})`);
      if (map.knowsUnreachable) fact("unreachable", `${bytes(chunk.unreachable)} (${percent(chunk.unreachable, chunk.live)} of live)`);
      fact("free pages", `${count(chunk.freePages)} of ${count(map.pagesPerChunk)}`);
      fact("largest free run", `${count(chunk.largestFree)} pages, ${bytes(chunk.largestFree * map.pageSize)}`);
      large.addEventListener("mousemove", (event) => {
        const scale = large.width / large.clientWidth / 8;
        const page = Math.floor(event.offsetY * scale) * across + Math.floor(event.offsetX * scale);
        if (page >= map.pagesPerChunk) return;
        const rank = site[page] - 65, letter = String.fromCharCode(use[page]);
        const who = letter === "f" ? "" : rank >= 0 && rank < map.sites.length ? `, mostly ${map.sites[rank]}` : site[page] === 122 ? ", mostly another site" : "";
        hover.textContent = `Page ${count(page)}: ${names[letter] || "unknown"}${who}`;
      });
      const side = make("div");
      side.append(facts, hover);
      detail.replaceChildren(large, side);
      detail.hidden = false;
    };
    const setZoom = (value) => { zoom = Math.max(1, Math.min(8, value)); select(selected); };
    const legend = () => {
      const items = mode === "use"
        ? uses.filter(([letter]) => letter !== "x").map(([, name, text]) => [colour(name), text === "one buffer, unreachable" ? "unreachable" : text])
        : [...map.sites.map((name, rank) => [siteColour(rank), name]), [colour("--muted"), "other sites"], [colour("--free"), "free"]];
      byID("map-legend").replaceChildren(...items.map(([shade, text]) => {
        const item = make("li"), dot = make("i");
        dot.style.background = shade;
        item.append(dot, text);
        return item;
      }));
    };
    const refresh = () => { refreshPalette(); legend(); select(selected); };
    box.addEventListener("scroll", draw);
    box.addEventListener("keydown", (event) => {
      const { columns } = layout();
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -selected, End: map.chunks.length };
      if (event.key in steps) select(selected + steps[event.key]);
      else if (event.key === "+" || event.key === "=") setZoom(zoom * 2);
      else if (event.key === "-") setZoom(zoom / 2);
      else if (event.key === "Enter" || event.key === " ") select(selected, true);
      else if (event.key === "Escape") detail.hidden = true;
      else return;
      event.preventDefault();
    });
    const hit = (event) => {
      const view = layout(), bounds = canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - bounds.left - gap) / (view.tileWidth + gap));
      const row = Math.floor((event.clientY - bounds.top + box.scrollTop - gap) / (view.tileHeight + gap));
      const index = row * view.columns + column;
      return column >= 0 && column < view.columns && index >= 0 && index < map.chunks.length ? index : -1;
    };
    canvas.addEventListener("click", (event) => { const index = hit(event); if (index >= 0) select(index, true); });
    canvas.addEventListener("mousemove", (event) => {
      const index = hit(event);
      canvas.title = index >= 0 ? describe(map.chunks[index]) : "";
      canvas.style.cursor = index >= 0 ? "pointer" : "default";
    });
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      setZoom(event.deltaY < 0 ? zoom * 2 : zoom / 2);
    }, { passive: false });
    byID("map-in").addEventListener("click", () => setZoom(zoom * 2));
    byID("map-out").addEventListener("click", () => setZoom(zoom / 2));
    byID("map-mode").addEventListener("change", (event) => { mode = event.target.value; refresh(); });
    dark.addEventListener("change", refresh);
    new ResizeObserver(() => requestAnimationFrame(draw)).observe(box);
    refresh();
  }

  // Owners as a flame graph that hangs from its root.
  const flame = data("flame-data");
  if (flame) {
    const box = byID("flame"), row = 26;
    const hues = { process: 215, "event loop": 200, listener: 190, connection: 150, session: 130, "inflight window": 95,
      "offline queue": 60, "retained messages": 275, will: 300, "rpc bridge": 320, transport: 240, site: 38 };
    let focus = flame;
    const link = (node, parent, depth) => {
      node.parent = parent;
      node.depth = depth;
      for (const child of node.s || []) link(child, node, depth + 1);
    };
    link(flame, null, 0);
    const says = (node) => `${node.n}${node.x ? " (closed)" : ""}: ${bytes(node.b)} in ${buffers(node.c)}, ${percent(node.b, flame.b)}`
      + (node.u ? `; unreachable ${bytes(node.u)}` : "");
    const paint = (restore) => {
      const width = box.clientWidth, nodes = [];
      let deepest = 0;
      const visit = (node, left, size) => {
        nodes.push([node, left, size]);
        deepest = Math.max(deepest, node.depth);
        let at = left;
        for (const child of node.s || []) {
          const part = node.b > 0 ? size * child.b / node.b : 0;
          if (part >= 2) visit(child, at, part);
          at += part;
        }
      };
      for (let node = focus.parent; node; node = node.parent) nodes.unshift([node, 0, width]);
      visit(focus, 0, width);
      box.style.height = (deepest + 1) * row + "px";
      box.replaceChildren(...nodes.map(([node, left, size]) => {
        const button = make("button", size > 34 ? node.n : "");
        button.type = "button";
        button.setAttribute("role", "treeitem");
        button.setAttribute("aria-level", node.depth + 1);
        button.setAttribute("aria-label", says(node));
        button.title = says(node);
        button.tabIndex = node === focus ? 0 : -1;
        button.className = node.depth < focus.depth ? "above" : "";
        const hue = hues[node.k] ?? 220, light = (dark.matches ? 62 : 76) - (node.n.length * 7 + node.depth * 3) % 8;
        button.style.setProperty("--kind", `hsl(${hue} ${dark.matches ? 38 : 52}% ${light}%)`);
        if (node.u) {
          const share = Math.max(2, Math.round(100 * node.u / node.b)), red = colour("--unreachable");
          button.style.backgroundImage = `linear-gradient(${red}, ${red})`;
          button.style.backgroundSize = `${share}% 4px`;
          button.style.backgroundPosition = "left bottom";
          button.style.backgroundRepeat = "no-repeat";
        }
        Object.assign(button.style, { left: left + "px", top: node.depth * row + "px", width: Math.max(1, size) + "px" });
        if (size < 12) button.style.padding = "0";
        button.addEventListener("click", () => zoomTo(node));
        button.addEventListener("focus", () => { byID("flame-status").textContent = says(node); });
        button.addEventListener("mouseenter", () => { byID("flame-status").textContent = says(node); });
        node.button = button;
        return button;
      }));
      byID("flame-reset").disabled = focus === flame;
      if (restore) focus.button.focus();
      byID("flame-status").textContent = says(focus);
    };
    const zoomTo = (node) => { focus = node; paint(true); };
    const drawn = (node) => node && node.button && node.button.isConnected;
    box.addEventListener("keydown", (event) => {
      const button = document.activeElement;
      let node = null;
      const search = (at) => { if (at.button === button) node = at; (at.s || []).forEach(search); };
      search(flame);
      if (!node) return;
      const siblings = node.parent ? node.parent.s.filter(drawn) : [node], at = siblings.indexOf(node);
      const targets = { ArrowUp: node.parent, ArrowDown: (node.s || []).find(drawn), ArrowLeft: siblings[at - 1], ArrowRight: siblings[at + 1] };
      if (event.key in targets) { if (drawn(targets[event.key])) targets[event.key].button.focus(); }
      else if (event.key === "Escape") { if (focus.parent) zoomTo(focus.parent); }
      else return;
      event.preventDefault();
    });
    byID("flame-reset").addEventListener("click", () => zoomTo(flame));
    dark.addEventListener("change", () => paint(false));
    let known = 0;
    const resized = () => { if (box.clientWidth !== known) { known = box.clientWidth; paint(false); } };
    new ResizeObserver(() => requestAnimationFrame(resized)).observe(box);
    resized();
  }
})();
