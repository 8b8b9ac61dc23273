"use strict";
// Tables that sort and filter, seeds folded, values under the pointer, and everything unfolded in print.
(() => {
  const MISSING = "–", PAGE = 100;
  const number = (text) => {
    const found = /^[+−-]?[\d,]*\.?\d+(e[+-]?\d+)?/i.exec(text.trim());
    return found ? parseFloat(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
  };
  const compare = (a, b) => {
    const x = typeof a === "number" ? a : number(a ?? ""), y = typeof b === "number" ? b : number(b ?? "");
    const noX = Number.isNaN(x), noY = Number.isNaN(y);
    if (noX && noY) return String(a ?? "").localeCompare(String(b ?? ""));
    return noX || noY ? noX - noY : x - y;
  };
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const searchBox = (label, onInput) => {
    const box = element("input", { type: "search", placeholder: "filter", oninput: () => onInput(box.value) });
    box.setAttribute("aria-label", label);
    return box;
  };
  const sortable = (table, onSort) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      const button = element("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.onclick = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        onSort(index, down ? -1 : 1);
      };
    });
  };
  // Missing values stay at the end, whichever way a column is sorted.
  const ordered = (items, valueOf, way) => items.map((item) => [valueOf(item), item]).sort(([a], [b]) => {
    const noA = a === null || a === MISSING, noB = b === null || b === MISSING;
    return noA || noB ? noA - noB : way * compare(a, b);
  }).map(([, item]) => item);

  const plainTable = (table) => {
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    if (!table.tHead || rows.length < 2) return;
    sortable(table, (column, way) => {
      for (const body of table.tBodies) {
        const group = [...body.rows].filter((row) => row.className === "group");
        const mine = [...body.rows].filter((row) => row.className !== "group");
        body.append(...group, ...ordered(mine, (row) => row.cells[column]?.textContent ?? "", way));
      }
    });
    if (rows.length < 9) return;
    const filter = searchBox("filter this table", (text) => {
      const wanted = text.toLowerCase();
      for (const body of table.tBodies) {
        const group = [...body.rows].find((row) => row.className === "group");
        const all = group && group.textContent.toLowerCase().includes(wanted);
        let shown = 0;
        for (const row of body.rows) {
          if (row === group) continue;
          row.hidden = !all && !row.textContent.toLowerCase().includes(wanted);
          shown += !row.hidden;
        }
        if (group) group.hidden = !shown;
      }
    });
    table.closest(".scroll").before(element("div", { className: "tools" }, filter));
  };

  const dataTable = (holder) => {
    const data = JSON.parse(holder.querySelector("script").textContent);
    const table = holder.querySelector("table"), body = table.tBodies[0];
    const state = { folded: Boolean(data.folded), text: "", column: -1, way: 1, shown: PAGE, printing: false };
    const cell = (value, column) => {
      if (value === null) return MISSING;
      if (typeof value !== "number" || column.digits < 0) return String(value);
      return value.toFixed(column.digits).replace("-", "−");
    };
    const address = (row) =>
      row.at(-1) === 1 ? `${data.base}${row[0].split("/").map(encodeURIComponent).join("/")}/` : row.at(-1);
    const count = element("span"), more = element("button", { type: "button", className: "more" });
    const draw = () => {
      const source = state.folded && !state.printing ? data.folded : data.rows;
      const wanted = state.text.toLowerCase().split(/\s+/).filter(Boolean);
      const matches = (row) => {
        const text = row.join(" ").toLowerCase();
        return wanted.every((word) => text.includes(word));
      };
      let rows = wanted.length && !state.printing ? source.filter(matches) : source;
      if (state.column >= 0) rows = ordered(rows, (row) => row[state.column], state.way);
      const shown = state.printing ? rows : rows.slice(0, state.shown);
      body.replaceChildren(...shown.map((row) => element("tr", {}, ...data.columns.map((column, index) => {
        const text = cell(row[index], column), made = element("td", { className: column.css });
        const tone = column.name === "Status" && (data.tones[text] ?? (/diverged|failed/.test(text) ? "bad" : "good"));
        if (tone && column.css === "text") made.className += ` status ${tone}`;
        if (column.link && row.at(-1)) made.append(element("a", { href: address(row) }, text));
        else made.append(text);
        return made;
      }))));
      count.textContent = `${rows.length} of ${source.length} ${state.folded ? "rows, seeds folded" : "runs"}`;
      more.textContent = `${Math.min(PAGE * 10, rows.length - shown.length)} more`;
      more.hidden = shown.length >= rows.length;
    };
    const tools = element("div", { className: "tools" },
      searchBox("filter runs", (text) => Object.assign(state, { text, shown: PAGE }) && draw()), count);
    if (data.folded) {
      const fold = element("button", { type: "button", className: "fold" }, "each run");
      fold.onclick = () => {
        state.folded = !state.folded;
        fold.textContent = state.folded ? "each run" : "fold seeds";
        draw();
      };
      tools.append(fold);
    }
    more.onclick = () => { state.shown += PAGE * 10; draw(); };
    holder.querySelector(".scroll").before(tools);
    holder.append(more);
    sortable(table, (column, way) => { Object.assign(state, { column, way }); draw(); });
    draw();
    addEventListener("beforeprint", () => { state.printing = true; draw(); });
    addEventListener("afterprint", () => { state.printing = false; draw(); });
  };

  const values = (figure) => {
    const points = JSON.parse(figure.dataset.points), drawing = figure.querySelector("svg");
    const value = element("div", { className: "value", hidden: true }), dot = element("div", { className: "dot", hidden: true });
    figure.append(value, dot);
    drawing.addEventListener("pointerleave", () => { value.hidden = dot.hidden = true; });
    drawing.addEventListener("pointermove", (event) => {
      const box = drawing.getBoundingClientRect(), outer = figure.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      const far = ([a, b]) => ((a - x) * box.width) ** 2 + ((b - y) * box.height) ** 2;
      const nearest = points.reduce((best, point) => (far(point) < far(best) ? point : best), points[0]);
      value.hidden = dot.hidden = far(nearest) > 900;
      if (value.hidden) return;
      const left = nearest[0] * box.width + box.left - outer.left, top = nearest[1] * box.height + box.top - outer.top;
      value.textContent = nearest[2];
      Object.assign(dot.style, { left: `${left}px`, top: `${top}px` });
      const half = value.offsetWidth / 2;
      Object.assign(value.style, { left: `${Math.max(half, Math.min(outer.width - half, left))}px`, top: `${top}px` });
    });
  };

  document.querySelectorAll(".data").forEach(dataTable);
  document.querySelectorAll(".scroll > table.sorts").forEach(plainTable);
  document.querySelectorAll("figure[data-points]").forEach(values);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((fold) => { fold.open = true; });
    document.querySelectorAll("tr[hidden]").forEach((row) => { row.hidden = false; });
  });
  addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
})();
