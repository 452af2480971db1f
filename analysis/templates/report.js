"use strict";
(() => {
  const hues = ["#4f7fc0", "#d98e32", "#4b9b6e", "#c25c8a", "#8a6fc0", "#3f9aa6", "#b3574a", "#8b8f35", "#6d7f94", "#c98bb9",
    "#2f6f8f", "#e0b04c", "#7bb07a", "#a0477d", "#5f5fb0", "#78c0c4", "#d67c6a", "#b3b560", "#98795a", "#5a9ad8", "#9a9a9a"];
  const steps = ["#3b4a8c", "#3f7fae", "#4fae9b", "#c8b04a", "#d9703f"];
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "status");
  document.body.append(tip);

  const place = (event) => {
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const below = event.clientY + 18 + box.height < innerHeight;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, below ? event.clientY + 18 : event.clientY - box.height - 14) + "px";
  };
  const show = (event, head, text) => {
    tip.replaceChildren();
    if (head) { const b = document.createElement("b"); b.textContent = head; tip.append(b); }
    tip.append(text);
    tip.classList.add("on");
    place(event);
  };
  const hide = () => tip.classList.remove("on");

  for (const item of document.querySelectorAll("[data-tip]")) {
    item.addEventListener("pointermove", (event) => show(event, "", item.dataset.tip));
    item.addEventListener("pointerleave", hide);
  }

  for (const figure of document.querySelectorAll("figure.map")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const circles = [...figure.querySelectorAll("circle")];
    const legend = figure.querySelector(".map-legend");
    const radius = circles.length > 1500 ? 5 : circles.length > 300 ? 7 : 10;
    for (const circle of circles) circle.setAttribute("r", radius);
    const svg = figure.querySelector("svg");
    svg.addEventListener("pointermove", (event) => {
      const circle = event.target.closest("circle");
      if (!circle) return hide();
      const i = Number(circle.dataset.i);
      show(event, data.heads[i], data.texts[i] + "\n" + data.ids[i]);
    });
    svg.addEventListener("pointerleave", hide);
    const color = (coloring, code) => {
      if (!coloring.ordered) return hues[code % hues.length];
      const last = Math.max(1, coloring.groups.length - 1);
      return steps[Math.round((code / last) * (steps.length - 1))];
    };
    const paint = (key) => {
      const coloring = data.colorings[key];
      const counts = coloring.groups.map(() => 0);
      circles.forEach((circle, i) => {
        circle.style.fill = color(coloring, coloring.codes[i]);
        circle.classList.remove("dim");
        counts[coloring.codes[i]] += 1;
      });
      legend.replaceChildren();
      coloring.groups.forEach((name, code) => {
        if (!counts[code]) return;
        const button = document.createElement("button");
        const dot = document.createElement("i");
        dot.style.background = color(coloring, code);
        button.type = "button";
        button.append(dot, `${name} ${counts[code]}`);
        button.addEventListener("click", () => {
          const alone = button.getAttribute("aria-pressed") !== "true";
          for (const other of legend.children) other.setAttribute("aria-pressed", "false");
          button.setAttribute("aria-pressed", String(alone));
          circles.forEach((circle, i) => circle.classList.toggle("dim", alone && coloring.codes[i] !== code));
        });
        legend.append(button);
      });
    };
    const select = figure.querySelector(".color-by");
    select.addEventListener("change", () => paint(select.value));
    paint(select.value);
  }
})();
