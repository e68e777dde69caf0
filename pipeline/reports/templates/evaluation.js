for (const chart of document.querySelectorAll(".plot .chart")) {
  const parts = [...chart.querySelectorAll('g[id*="-curve-"], g[id*="-leader-"], g[id*="-name-"]')];
  const numberOf = (part) => part.id.match(/-(\d+)$/)[1];
  const pick = (number) => {
    for (const part of parts) part.classList.toggle("dim", number !== null && numberOf(part) !== number);
  };
  for (const part of parts) {
    part.addEventListener("mouseenter", () => pick(numberOf(part)));
    part.addEventListener("mouseleave", () => pick(null));
  }
}
