// Kubeflow shows the page in a frame without an address of its own: there, a link to "#calls" would
// leave the page. So the script scrolls instead.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  const target = link && document.getElementById(link.getAttribute("href").slice(1));
  if (!target) return;
  event.preventDefault();
  target.scrollIntoView();
});

// The browser of examples: search, and one example at a time. Without scripts the examples are plain <details>.
for (const browser of document.querySelectorAll(".browser")) {
  const items = [...browser.querySelectorAll(":scope > details")];
  if (items.length < 2) continue;
  const bar = document.createElement("div");
  bar.className = "bar-tools";
  const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "Search these examples" });
  search.setAttribute("aria-label", "Search these examples");
  const tally = document.createElement("span");
  const button = (text, label, by) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text, title: label });
    made.setAttribute("aria-label", label);
    made.addEventListener("click", () => move(by));
    return made;
  };
  const shown = () => items.filter((item) => !item.hidden);
  const current = () => shown().findIndex((item) => item.open);
  const count = () => (tally.textContent = `${current() + 1 || "–"} of ${shown().length}`);
  const move = (by) => {
    const visible = shown();
    if (!visible.length) return;
    const next = visible[(current() + by + visible.length) % visible.length] || visible[0];
    for (const item of items) item.open = item === next;
    bar.scrollIntoView({ block: "start" });
  };
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of items) {
      const text = item.textContent.toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
    }
    count();
  });
  for (const item of items) item.addEventListener("toggle", count);
  bar.append(search, tally, button("←", "Previous example", -1), button("→", "Next example", 1));
  browser.prepend(bar);
  count();
}
