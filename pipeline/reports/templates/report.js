"use strict";

for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input");
  const show = () => {
    box.style.setProperty("--cut", range.value + "%");
    range.setAttribute("aria-valuetext", Math.round(range.value) + " percent before");
  };
  range.addEventListener("input", show);
  show();
}

const sortBy = (heading) => {
  const headings = [...heading.parentElement.children];
  const column = headings.indexOf(heading);
  const body = heading.closest("table").tBodies[0];
  const opposite = { ascending: "descending", descending: "ascending" };
  const direction = opposite[heading.getAttribute("aria-sort")] || heading.dataset.first;
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.value;
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (heading.dataset.kind === "text" ? x.localeCompare(y) : x - y);
  };
  body.append(...[...body.rows].sort(order));
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
};

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
