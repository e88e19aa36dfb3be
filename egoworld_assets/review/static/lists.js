// Keys on lists, and buttons that copy a command.

const rows = [...document.querySelectorAll("[data-row]")];
let at = -1;

function go(to) {
  if (!rows.length) return;
  rows[at]?.classList.remove("at");
  at = Math.max(0, Math.min(rows.length - 1, to));
  rows[at].classList.add("at");
  rows[at].scrollIntoView({ block: "nearest" });
  (rows[at].querySelector("a") ?? rows[at]).focus({ preventScroll: true });
}

function isTyping(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select");
}

addEventListener("keydown", (event) => {
  if (isTyping(event)) return;
  if (event.key === "j") go(at + 1);
  else if (event.key === "k") go(at - 1);
  else if (event.key === "n") document.querySelector("a[rel=next]")?.click();
  else if (event.key === "p") document.querySelector("a[rel=prev]")?.click();
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const said = button.textContent;
    try {
      // a browser may leave the promise open while it asks for permission
      const late = new Promise((_, refuse) => setTimeout(refuse, 500));
      await Promise.race([navigator.clipboard.writeText(button.dataset.copy), late]);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = said), 2000);
  });
}
